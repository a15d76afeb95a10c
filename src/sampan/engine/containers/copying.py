"""Where a container's files are for `docker cp`: its root as it sees it while it runs, else its mounts one by one."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.core.trees import Grafts
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import sources
from sampan.engine.containers.container import Container
from sampan.engine.containers.record import MountPoint
from sampan.errors import Conflict, Forbidden
from sampan.linux.fs import resolve_in_root

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class Place:
    """A path of a container: an open directory that is the root of all look-ups, and the path from there. `below`: what
    would be mounted below the path, were the container running."""

    root: int
    path: str
    below: Grafts = field(default_factory=dict)


@contextlib.asynccontextmanager
async def place(engine: Engine, container: Container, path: str, *, write: bool = False) -> AsyncIterator[Place]:
    """Raises Forbidden where `write` is wanted and not allowed, Conflict when it ends meanwhile."""
    if container.task is not None and not container.restarting:
        root = await _running_root(container)
        try:
            if write:
                await run_blocking(_check_writable, container, root, path)
            yield Place(root, path)
        finally:
            os.close(root)
        return
    # What is mounted to be looked at must not meet a start or a removal.
    async with container.lock:
        await container.unmounted.wait()
        await container.given_back.wait()
        if container.task is not None or not engine.containers.has(container):
            raise Conflict(f"container {container.id} has just changed its state")
        snapshots = engine.core.snapshots
        volatile = container.record.host_config.auto_remove
        merged = await run_blocking(lambda: snapshots.mount(container.id, volatile=volatile))
        root = os.open(merged, _ROOT)
        try:
            if write:
                await run_blocking(_check_writable, container, root, path)
            async with _sources(engine, container) as points:
                found, inside = await run_blocking(_mount_of, points, root, path)
                with contextlib.ExitStack() as opened:
                    below = {} if write else await run_blocking(_below, points, root, path, opened)
                    if found is None:
                        yield Place(root, path, below)
                    else:
                        yield Place(_opened(found.source, opened), inside, below)
        finally:
            os.close(root)
            await run_blocking(snapshots.unmount, container.id)


@contextlib.asynccontextmanager
async def _sources(engine: Engine, container: Container) -> AsyncIterator[Sequence[MountPoint]]:
    """The mounts of a stopped container, as they are while it runs."""
    if not sources.may_block(engine, container.record.mounts):
        yield container.record.mounts
        return
    taken = await run_blocking(sources.take, engine, container.record)
    try:
        yield taken
    finally:
        await run_blocking(sources.give_back, engine, container.record)


async def _running_root(container: Container) -> int:
    """The root of its first process. The pid is its own for as long as its shim, which reaps it, says that it runs."""
    task = container.task
    assert task is not None
    try:
        root = os.open(f"/proc/{task.pid}/root", _ROOT)
    except OSError:
        raise Conflict(f"container {container.id} is not running") from None
    try:
        if (await task.state()).pid != task.pid:
            raise Conflict(f"container {container.id} is not running")
    except BaseException:
        os.close(root)
        raise
    return root


def _mount_of(points: Sequence[MountPoint], root: int, path: str) -> tuple[MountPoint | None, str]:
    """The mount that a path of a stopped container lies in, and the path from there. A trailing `/.` stays."""
    whole = _resolved(root, path)
    tail = path[len(path.rstrip("/.")) :] if path.endswith(("/", "/.")) else ""
    for point in _holding(points, whole):
        if point.type != "tmpfs" and os.path.isdir(point.source):
            return point, (whole.removeprefix(point.destination) or "/") + tail
    return None, path


def _below(points: Sequence[MountPoint], root: int, path: str, opened: contextlib.ExitStack) -> Grafts:
    """What is mounted below a path of a stopped container, by the path from there."""
    whole = _resolved(root, path).rstrip("/")
    found: dict[str, tuple[int, str]] = {}
    for point in points:
        if point.type != "tmpfs" and point.destination.startswith(f"{whole}/"):
            source = os.path.realpath(point.source)
            with contextlib.suppress(OSError):
                parent = _opened(os.path.dirname(source), opened)
                found[point.destination.removeprefix(f"{whole}/")] = (parent, os.path.basename(source) or ".")
    return found


def _opened(directory: str, opened: contextlib.ExitStack) -> int:
    descriptor = os.open(directory, _ROOT)
    opened.callback(os.close, descriptor)
    return descriptor


def _holding(points: Sequence[MountPoint], path: str) -> list[MountPoint]:
    """The mounts that a path lies in, the innermost first."""
    found = [each for each in points if f"{path}/".startswith(f"{each.destination}/")]
    return sorted(found, key=lambda each: -len(each.destination))


def _resolved(root: int, path: str) -> str:
    """Without links, as far as it leads anywhere."""
    with contextlib.suppress(OSError):
        return resolve_in_root(root, path)
    return posixpath.normpath(path)


def _check_writable(container: Container, root: int, path: str) -> None:
    for point in _holding(container.record.mounts, _resolved(root, path))[:1]:
        if not point.writable:
            raise Forbidden("mounted volume is marked read-only")
        return
    if container.record.host_config.readonly_rootfs:
        raise Forbidden("container rootfs is marked read-only")
