"""What an engine finds when it starts: containers that live on, and such as ended while there was none."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from sampan.core.tasks import Task
from sampan.engine.containers import anonymous, sources
from sampan.engine.containers.container import Container
from sampan.engine.containers.remains import release
from sampan.engine.containers.revival import is_boot, is_due
from sampan.errors import SampanError, Unavailable
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.containers.service import Containers
    from sampan.engine.services import Engine

_log = logging.getLogger("sampan.containers")


async def adopt(engine: Engine, containers: Containers) -> set[str]:
    """Connect, or settle what is over. Returns the ids of the containers whose shims live."""
    _remove_leftovers(engine, containers)
    live: set[str] = set()
    for container in containers.all():
        try:
            on_event, on_lost = containers.heard(container)
            task = await Task.connect(engine.core.paths.shim(container.id), on_event, on_lost)
        except SampanError as error:
            if not isinstance(error, Unavailable):
                _log.warning("container %s: %s", container.id[:12], error.message)
            _settle(engine, containers, container)
            continue
        live.add(container.id)
        for name in sources.names(container.record.mounts):
            engine.volumes.hold(name, container.id)
        _resume(containers, container, task)
    anew = is_boot(engine.config.exec_root) or not engine.config.on_demand
    containers.to_revive = [
        each for each in containers.all() if each.id not in live and is_due(each.record, anew=anew)
    ]  # fmt: skip
    return live


def _remove_leftovers(engine: Engine, containers: Containers) -> None:
    """Directories and file systems of containers that were never recorded, or whose removal was cut short."""
    known = {container.id for container in containers.all()}
    core = engine.core
    for name in os.listdir(core.paths.containers):
        if name not in known:
            shutil.rmtree(f"{core.paths.containers}/{name}", ignore_errors=True)
    for name in core.snapshots.containers():
        if sources.owner(name) not in known:
            core.snapshots.remove_container(name)
    anonymous.finish(engine, known)


def _resume(containers: Containers, container: Container, task: Task) -> None:
    state = task.initial
    container.task = task
    container.paused = state.status == msg.TaskStatus.PAUSED
    container.restarting = state.status == msg.TaskStatus.RESTARTING
    if state.status == msg.TaskStatus.STOPPED and state.exited is not None:
        containers.ended(container, state.exited)
        return
    container.set_state(
        started_at=state.started_at, restart_count=state.restart_count, running=True, health=state.health
    )  # fmt: skip


def _settle(engine: Engine, containers: Containers, container: Container) -> None:
    """No shim: how did it end, if it ran?"""
    exited = _last_exit(engine, container)
    state = container.record.state
    unheard = exited is not None and exited.started_at > state.started_at
    if not state.running and not unheard:
        if os.path.isdir(engine.core.paths.shim(container.id)):
            # A start that was cut short, or an end whose remains nobody has taken away.
            container.given_back.clear()
            containers.in_background(_tidy(engine, container))
        if container.record.host_config.auto_remove and (
            container.record.state.finished_at or container.record.state.error
        ):
            containers.in_background(_remove(containers, container))
        return
    if exited is None:
        # The shim was killed, or the machine went down: nobody saw the end.
        exited = msg.Exited(id=container.id, pid=0, exit_status=255, exited_at=time.time_ns())
    exited = msgspec.structs.replace(exited, will_restart=False)
    containers.ended(container, exited)


def _last_exit(engine: Engine, container: Container) -> msg.Exited | None:
    with contextlib.suppress(OSError, msgspec.DecodeError):
        with open(engine.core.paths.exit_file(container.id), "rb") as file:
            exited = msgspec.json.decode(file.read(), type=msg.Exited)
        if exited.started_at >= container.record.state.started_at or exited.will_restart:
            return exited
    return None


async def _tidy(engine: Engine, container: Container) -> None:
    try:
        await release(engine, container)
        container.released = True
    finally:
        container.given_back.set()


async def _remove(containers: Containers, container: Container) -> None:
    with contextlib.suppress(SampanError):
        await containers.remove(container, volumes=True)
