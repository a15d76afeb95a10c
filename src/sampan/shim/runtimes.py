"""What a task needs of the runtime that runs its container. Two do it: ours in process (`sampan.runtime.container`) and
any other by its command (`foreign`). For type checkers only: at run time nothing imports this module."""

from __future__ import annotations

from typing import Protocol

from sampan.linux.cgroup.counters import Counters
from sampan.oci.runtime import LinuxResources, Process
from sampan.runtime.container import ExecProcess, Stdio


class RunningContainer(Protocol):
    """A container that is created, and a child of this process: who holds it reaps `pid`, and closes `master` (the
    terminal, if it has one). Each method raises SampanError; `pids` and `stats` are of the whole group."""

    pid: int
    master: int | None

    def start(self) -> None:
        """Execute the program. When that fails, the process has ended or is about to."""

    def exec(self, wanted: Process, stdio: Stdio, window: tuple[int, int] | None = None) -> ExecProcess:
        """Run one more process, at once; it is a child of this process too."""

    def kill(self, signal: int, all: bool = False) -> None:  # noqa: A002 - the runtime specification's word
        """Signal the first process, or all. NotFound when there is none."""

    def pause(self) -> None:
        """Freeze every process."""

    def resume(self) -> None:
        """Thaw them."""

    def update(self, resources: LinuxResources) -> None:
        """Change the limits; what is not given stays."""

    def stats(self) -> Counters:
        """The counters of the control group."""

    def pids(self) -> list[int]:
        """All processes, by their ids in this process's namespace."""

    def oom_count(self) -> int:
        """How many of its processes the kernel has killed for want of memory; also after its end, up to `delete`."""

    def reset(self) -> None:
        """After the first process's end: kill whoever is left in the group."""

    def delete(self, force: bool = False) -> None:
        """Remove what is left of it. `force`: its processes too. Idempotent."""
