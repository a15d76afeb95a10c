"""What a run has taken, given back at its end; and what it leaves behind when its shim was killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from typing import TYPE_CHECKING

from sampan.core.tasks import Task
from sampan.engine import runtimes
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import announce, anonymous, sharing, sources, starting
from sampan.engine.containers.container import Container
from sampan.errors import SampanError
from sampan.faults import stage
from sampan.linux.cgroup import Cgroup
from sampan.shimapi.messages import CleanUp

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_log = logging.getLogger("sampan.containers")


async def give_back(engine: Engine, container: Container, task: Task | None) -> None:
    """After the end of the process, all but the mount. `task`: the shim, which is told to end."""
    ending = asyncio.ensure_future(task.shutdown()) if task is not None else None
    await _free_network(engine, container)
    announce.given_back(engine, container.record)
    if ending is not None:
        with contextlib.suppress(SampanError):
            await ending
    await remove_remains(engine, container)
    await _free_sources(engine, container)


async def _free_sources(engine: Engine, container: Container) -> None:
    record = container.record
    if sources.may_block(engine, record.mounts):
        await run_blocking(sources.give_back, engine, record)
    elif record.mounts:
        sources.give_back(engine, record)


async def release(engine: Engine, container: Container) -> None:
    """All that a run took and that is over. Idempotent."""
    await _free_network(engine, container)
    await unmount(engine, container)
    await remove_remains(engine, container)
    await _free_sources(engine, container)


async def _free_network(engine: Engine, container: Container) -> None:
    engine.names.withdraw(container.id)
    with contextlib.suppress(SampanError, OSError):
        await engine.sandboxes.release(container.id)


async def unmount(engine: Engine, container: Container) -> None:
    """It takes as long as the disk does to write what is in its cache, of the whole file system below."""
    with contextlib.suppress(SampanError, OSError):
        await run_blocking(engine.core.snapshots.unmount, container.id)


def remove_files(engine: Engine, container: Container, volumes: bool) -> str | None:
    """All that is kept of a container, and its row; `volumes`: its anonymous ones too. The name of the writable layer,
    which is left to be discarded. Blocks."""
    core, containers = engine.core, engine.containers
    points = container.record.mounts if volumes else ()
    with anonymous.announced(core.metadata, container.id, anonymous.of(points)):
        layer = core.snapshots.forget_container(container.id)
        stage("remove.forgotten")
        sources.remove_images(engine, container.id, container.record.mounts)
        shutil.rmtree(core.paths.bundle(container.id), ignore_errors=True)
        stage("remove.files")
        # The row at last: what a kill leaves before that is removed with the container once more.
        containers.forget(container)
        stage("remove.row")
        containers.remove_anonymous(points)
    return layer


async def discard(engine: Engine, container: Container, layer: str) -> None:
    """Remove the files of a container that is gone: nobody has to wait for that."""
    await container.unmounted.wait()
    stage("remove.discarding")
    try:
        await run_blocking(engine.core.snapshots.discard, layer)
        images = {container.record.image, *(point.image for point in container.record.mounts if point.image)}
        if any(engine.core.images.find(each) is None for each in images):  # It was the last that stood on their layers.
            await run_blocking(engine.core.gc)
    except OSError as error:
        _log.warning("remove the layer of %s: %s; the engine's next start tries again", container.id[:12], error)


async def remove_remains(engine: Engine, container: Container) -> None:
    """Remove the shim's directory, the runtime's state and the cgroup, and end the processes in it: the shim does so
    itself unless it was killed. Idempotent."""
    paths = engine.core.paths
    runtime = container.record.host_config.runtime
    state = f"{paths.foreign_runtime(runtime)}/{container.id}"
    if runtime and os.path.isdir(state):
        await _forget(engine, container, runtime)
        shutil.rmtree(state, ignore_errors=True)
    if sharing.concerns(container.record.host_config):
        sharing.unpin(paths.shim(container.id))
    shutil.rmtree(paths.shim(container.id), ignore_errors=True)
    shutil.rmtree(f"{paths.runtime}/{container.id}", ignore_errors=True)
    group = Cgroup(starting.cgroup(container))
    if group.exists():
        with contextlib.suppress(OSError):
            await run_blocking(_end, group)


async def _forget(engine: Engine, container: Container, runtime: str) -> None:
    """Tell the runtime, which may keep more than its directory; one that is not there any more can't be told."""
    paths = engine.core.paths
    directory = paths.shim(container.id)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with contextlib.suppress(SampanError):
        await engine.spawner.clean_up(
            CleanUp(
                id=container.id, runtime=runtimes.command(engine.config, runtime),
                state_root=paths.foreign_runtime(runtime), run_dir=directory,
            )
        )  # fmt: skip


def _end(group: Cgroup) -> None:
    group.kill()
    group.delete()
