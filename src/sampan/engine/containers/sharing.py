"""`--pid container:` and `--ipc container:`: namespaces of another container's, and the memory that it shares.

What is joined is pinned in the shim's directory by a bind mount: the shim, which starts its container again by itself,
joins the very same namespace however often the other one has been started since, and never that of a process that has
got its number. `/dev/shm` of a shareable container is mounted there too, where others can bind it from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import HostConfig
from sampan.engine.containers.container import Container
from sampan.engine.containers.record import Record
from sampan.errors import Conflict, Internal, InvalidArgument, NotFound
from sampan.linux.mount import MNT_DETACH, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount, umount

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_OTHERS = "container:"
_PINS = ("ns-pid", "ns-ipc", "shm")


def settled(host: HostConfig, resolve: Callable[[str], Container]) -> HostConfig:
    """With the others' ids. Raises InvalidArgument in Docker's words."""

    def by_id(mode: str) -> str:
        if not mode.startswith(_OTHERS):
            return mode
        try:
            return _OTHERS + resolve(mode.removeprefix(_OTHERS)).id
        except NotFound as error:
            raise InvalidArgument(error.message) from None

    return msgspec.structs.replace(host, pid_mode=by_id(host.pid_mode), ipc_mode=by_id(host.ipc_mode))


def concerns(host: HostConfig) -> bool:
    """Whether there is anything to pin."""
    return host.ipc_mode == "shareable" or host.ipc_mode.startswith(_OTHERS) or host.pid_mode.startswith(_OTHERS)


def namespaces(host: HostConfig, directory: str) -> dict[str, str]:
    """The pins of what is joined, by kind. `directory`: the shim's."""
    modes = {"pid": host.pid_mode, "ipc": host.ipc_mode}
    return {kind: f"{directory}/ns-{kind}" for kind, mode in modes.items() if mode.startswith(_OTHERS)}


def memory(host: HostConfig, directory: str) -> str:
    """Where /dev/shm is bound from; empty: it is the container's own."""
    shared = host.ipc_mode == "shareable" or host.ipc_mode.startswith(_OTHERS)
    return f"{directory}/shm" if shared else ""


async def pin(engine: Engine, record: Record) -> None:
    """Before the start. Raises Conflict for another that does not run, InvalidArgument for one that does not share."""
    host, directory = record.host_config, engine.core.paths.shim(record.id)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode)):
        if mode.startswith(_OTHERS):
            await _pin_namespace(engine, mode.removeprefix(_OTHERS), kind, f"{directory}/ns-{kind}")
    try:
        if host.ipc_mode == "shareable":
            os.mkdir(f"{directory}/shm", 0o700)
            options = f"mode=1777,size={host.shm_size}"
            mount("shm", f"{directory}/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
        elif host.ipc_mode.startswith(_OTHERS):
            os.mkdir(f"{directory}/shm", 0o700)
            donor = engine.core.paths.shim(host.ipc_mode.removeprefix(_OTHERS))
            mount(f"{donor}/shm", f"{directory}/shm", flags=MS_BIND)
    except OSError as error:
        raise Internal(f"mount the shared memory: {(error.strerror or str(error)).lower()}") from error


async def _pin_namespace(engine: Engine, other: str, kind: str, path: str) -> None:
    failed = f"failed to join {kind.upper()} namespace: "
    container = engine.containers.find(other)
    if container is None:
        raise Conflict(f"{failed}No such container: {other}")
    stopped = Conflict(f"{failed}container {other} is not running")
    if container.task is None:
        raise stopped
    if container.restarting:
        raise Conflict(f"{failed}container {other} is restarting")
    if kind == "ipc" and container.record.host_config.ipc_mode != "shareable":
        raise InvalidArgument(
            f"{failed}container {other}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )
    task = container.task
    try:
        descriptor = os.open(f"/proc/{task.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise stopped from None
    try:
        # The pid is its own for as long as its shim, which reaps it, says that it runs.
        if (await task.state()).pid != task.pid:
            raise stopped
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o400))
        mount(f"/proc/self/fd/{descriptor}", path, flags=MS_BIND)
    except OSError as error:
        raise Internal(f"{failed}{(error.strerror or str(error)).lower()}") from error
    finally:
        os.close(descriptor)


def unpin(directory: str) -> None:
    """Unmount what `pin` has mounted, as far as it came. Idempotent."""
    for name in _PINS:
        with contextlib.suppress(OSError):
            umount(f"{directory}/{name}", MNT_DETACH)
