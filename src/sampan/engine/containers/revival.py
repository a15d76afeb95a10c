"""What is started again by the engine, and in what order: after a boot of the machine, a restart of the engine, and
when a shim was killed. While a shim lives, its restart policy is its own affair (shim/restart.py).

As with dockerd, a policy is asked about every container that does not run and has run before: `always` starts it
whoever had stopped it, `unless-stopped` if no user had, `on-failure` if it ended with a status other than 0 and was not
started again too often. An engine that a client starts on demand is not a restart of the service, though: what a user
has stopped is not started again by the next command, but by the next boot.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from sampan.api.containers import HostConfig
from sampan.engine.containers.record import Record
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.engine.containers.container import Container
    from sampan.engine.services import Engine

_log = logging.getLogger("sampan.containers")

AT_ONCE = 8
_AFTER_SHIM = 0.1
"""Seconds, as a shim's own restart would take at first."""


def is_due(record: Record, *, anew: bool) -> bool:
    """Whether its policy starts it again. `anew`: the machine or the service has been started."""
    state, policy = record.state, record.host_config.restart_policy
    if not state.started_at or (state.stopped_by_user and not anew):
        return False
    match policy.name:
        case "always":
            return True
        case "unless-stopped":
            return not state.stopped_by_user
        case "on-failure":
            most = policy.maximum_retry_count
            return state.exit_code != 0 and (not most or state.restart_count < most)
        case _:
            return False


def is_boot(exec_root: str) -> bool:
    """Whether this is the first engine since the machine was booted: what lies in the exec root is gone then. False
    from now on."""
    try:
        os.close(os.open(f"{exec_root}/booted", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def needed_by(host: HostConfig) -> set[str]:
    """The containers, by name or id, that must run before one with this configuration starts."""
    modes = (host.network_mode, host.pid_mode, host.ipc_mode)
    needed = {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}
    return needed | {link.partition(":")[0].removeprefix("/") for link in host.links or ()}


def in_order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """The keys, each behind those that it needs; otherwise, and where they need one another, in the order given."""
    found: dict[str, None] = {}
    open_: set[str] = set()

    def add(name: str) -> None:
        if name in found or name in open_:
            return
        open_.add(name)
        for needed in needs[name]:
            if needed in needs:
                add(needed)
        found[name] = None

    for name in needs:
        add(name)
    return list(found)


async def revive(engine: Engine, due: Iterable[Container]) -> None:
    """Start them, several at once, each when those that it needs have started or failed to. The oldest first."""
    containers = {each.id: each for each in sorted(due, key=lambda each: each.record.created)}
    needs = {key: _ids(engine, each.record.host_config) for key, each in containers.items()}
    room = asyncio.Semaphore(AT_ONCE)
    under_way: dict[str, asyncio.Task[None]] = {}
    for key in in_order(needs):
        before = [under_way[needed] for needed in needs[key] if needed in under_way]
        under_way[key] = asyncio.create_task(_start(engine, containers[key], before, room))
    if under_way:
        await asyncio.wait(under_way.values())


def _ids(engine: Engine, host: HostConfig) -> set[str]:
    found: set[str] = set()
    for name in needed_by(host):
        try:
            found.add(engine.containers.resolve(name).id)
        except SampanError:
            continue
    return found


async def _start(
    engine: Engine, container: Container, before: list[asyncio.Task[None]], room: asyncio.Semaphore
) -> None:
    if before:
        await asyncio.wait(before)
    async with room:
        try:
            await engine.containers.start(container)
        except SampanError as error:
            _log.warning("container %s: not started again: %s", container.id[:12], error.message)


async def after_shim(engine: Engine, container: Container, still: Callable[[], bool]) -> None:
    """Its shim was killed, and could not do it. `still`: nobody has done anything to it since."""
    await asyncio.sleep(_AFTER_SHIM)
    count = container.record.state.restart_count
    if not still() or not is_due(container.record, anew=False):
        return
    try:
        await engine.containers.start(container)
    except SampanError as error:
        _log.warning("container %s: not started again: %s", container.id[:12], error.message)
        return
    container.set_state(restart_count=count + 1)
