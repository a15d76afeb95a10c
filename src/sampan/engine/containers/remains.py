"""What a run leaves behind when its shim was killed: the shim removes it itself otherwise."""

from __future__ import annotations

import contextlib
import shutil

from sampan.core.paths import Paths
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import starting
from sampan.engine.containers.container import Container
from sampan.linux.cgroup import Cgroup


async def remove_remains(paths: Paths, container: Container) -> None:
    """Remove the shim's directory, the runtime's state and the cgroup, and end the processes in it. Idempotent."""
    shutil.rmtree(paths.shim(container.id), ignore_errors=True)
    shutil.rmtree(f"{paths.runtime}/{container.id}", ignore_errors=True)
    group = Cgroup(starting.cgroup(container))
    if group.exists():
        with contextlib.suppress(OSError):
            await run_blocking(_end, group)


def _end(group: Cgroup) -> None:
    group.kill()
    group.delete()
