"""A control group in whichever hierarchies this machine has: made, limited, counted, frozen, killed and removed.

Cgroup v1 has a tree for each controller (or for a pair, as cpu and cpuacct), v2 one tree for all. `hierarchies` finds
what is mounted, and everything else walks over its result: one tree or ten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable
from functools import cache

import msgspec

from sampan.linux import bpf
from sampan.linux.cgroup import counters_v1, counters_v2, v1, v2
from sampan.linux.cgroup.counters import Counters
from sampan.linux.cgroup.write import Write
from sampan.oci.runtime import LinuxResources

_KILL_TIMEOUT = 10.0


class Hierarchies(msgspec.Struct, frozen=True):
    """`roots`: where each controller's tree is mounted; on v2 the one entry "" is the tree of all."""

    unified: bool
    roots: dict[str, str]

    def root(self, controller: str) -> str | None:
        """The tree that has the controller; None if it is not mounted. cpuacct goes with cpu on v1 by its own entry."""
        return self.roots.get("" if self.unified else controller)


@cache
def hierarchies() -> Hierarchies:
    """What is mounted, by /proc/self/mountinfo. Read once: a spawner's children inherit the answer."""
    roots: dict[str, str] = {}
    unified = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, rest = line.rstrip("\n").partition(" - ")
            kind, _, options = rest.split(" ", 2)
            point = fields.split(" ")[4]
            if kind == "cgroup":
                for option in options.split(","):
                    if option not in ("rw", "ro", "noprefix", "xattr", "clone_children"):
                        roots.setdefault(option, point)
            elif kind == "cgroup2":
                unified = unified or point
    controllers = {each for each in roots if not each.startswith(("name=", "release_agent="))}
    if controllers or not unified:
        return Hierarchies(False, {each: point for each, point in roots.items() if not each.startswith("release_")})
    return Hierarchies(True, {"": unified})


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        error.filename = path
        error.add_note(f"writing {value!r}")
        raise
    finally:
        os.close(descriptor)


class Cgroup:
    """The group at `path` (absolute, below the roots of the hierarchies)."""

    def __init__(self, path: str) -> None:
        """ValueError for a path that is the root itself or leads out of it."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise ValueError(f"invalid cgroup path {path!r}")
        self.path = "/" + "/".join(parts)
        self._trees = hierarchies()

    @property
    def directories(self) -> list[str]:
        """One on v2; on v1 one for each tree, each once."""
        return list(dict.fromkeys(root + self.path for root in self._trees.roots.values()))

    @property
    def unified(self) -> bool:
        return self._trees.unified

    def directory(self, controller: str) -> str | None:
        root = self._trees.root(controller)
        return None if root is None else root + self.path

    def create(self) -> None:
        """Make the directories, those above them too; FileExistsError when the group is there and has processes.

        When one can't be made, those that were are removed again.
        """
        with contextlib.ExitStack() as undo:
            for directory in self.directories:
                if self._make(directory):
                    undo.callback(os.rmdir, directory)
            undo.pop_all()

    def _make(self, directory: str) -> bool:
        """False if it was there already."""
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            if _read(f"{directory}/cgroup.procs").strip():
                raise FileExistsError(errno.EEXIST, "cgroup is not empty", directory) from None
            return False
        except FileNotFoundError:
            self._make_parents(directory)
            os.mkdir(directory, 0o755)
        if self.unified:
            self._take_controllers(directory)
        elif os.path.exists(f"{directory}/cpuset.cpus"):
            _inherit_cpuset(directory)
        return True

    def _take_controllers(self, directory: str) -> None:
        """Groups above that were there already may not have passed on what the root has."""
        root = directory[: -len(self.path)]
        if _read(f"{directory}/cgroup.controllers").split() != _read(f"{root}/cgroup.controllers").split():
            self._make_parents(directory)

    def _make_parents(self, directory: str) -> None:
        root = directory[: -len(self.path)]
        at = root
        for part in self.path.split("/")[1:-1]:
            if self.unified:
                _delegate(at)
            at += "/" + part
            with contextlib.suppress(FileExistsError):
                os.mkdir(at, 0o755)
            if not self.unified and os.path.exists(f"{at}/cpuset.cpus"):
                _inherit_cpuset(at)
        if self.unified:
            _delegate(at)

    def apply(self, resources: LinuxResources) -> None:
        """Write the limits. OSError names the file and the value that was refused."""
        plan = v2.writes(resources) if self.unified else v1.writes(resources)
        again: list[Write] = []
        for write in plan:
            try:
                self._apply(write)
            except OSError as error:
                if not write.retry or error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
                again.append(write)
        for write in again:
            self._apply(write)
        if self.unified and resources.devices:
            group = self.open()
            try:
                bpf.attach_device_program(group, v2.device_program(resources.devices))
            finally:
                os.close(group)

    def _apply(self, write: Write) -> None:
        directory = self.directory(write.controller)
        if directory is None:
            if write.optional:
                return
            raise FileNotFoundError(errno.ENOENT, f"the {write.controller} cgroup controller is not mounted")
        try:
            _write(f"{directory}/{write.file}", write.value)
        except (FileNotFoundError, PermissionError):
            # A file that is missing in a cgroup cannot be created: the kernel says EACCES or ENOENT.
            if write.optional:
                return
            if self.unified and write.controller not in _read(f"{directory}/cgroup.controllers").split():
                # A group above has processes of its own, and so may not pass the controller on.
                raise FileNotFoundError(
                    errno.ENOENT, f"the {write.controller} controller is not available to the group", directory
                ) from None
            raise

    def open(self) -> int:
        """A descriptor of the v2 directory, to be born in (CLONE_INTO_CGROUP)."""
        return os.open(self.directories[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_beside(self, pid: int) -> int:
        """As `open`, of the group below this one that the process is in: a container that divides its group among
        groups of its own has no process in it, and the kernel lets none in."""
        inside = _read(f"/proc/{pid}/cgroup").rpartition("0::")[2].strip()
        if not (inside + "/").startswith(self.path + "/"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self.directories[0])
        return os.open(self._trees.roots[""] + inside, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Move the process into the group, in every tree."""
        for directory in self.directories:
            _write(f"{directory}/cgroup.procs", str(pid))

    def join(self) -> None:
        """Move this process, which has one thread, into the group: v1. (With v2 it is born there.)

        By `tasks` and 0, as the kernel then takes no lock that waits for every processor: moving another process, or
        all threads of one, costs some ten milliseconds where that lock has not been taken for a while.
        """
        for directory in self.directories:
            _write(f"{directory}/tasks", "0")

    def exists(self) -> bool:
        return any(os.path.isdir(directory) for directory in self.directories)

    def pids(self) -> list[int]:
        """The processes in the group and in those below it, by their ids in this process's namespace."""
        directory = self.directories[0] if self.unified else (self.directory("devices") or self.directories[0])
        found: set[int] = set()
        for at, _, files in os.walk(directory):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    found.update(int(each) for each in _read(f"{at}/cgroup.procs").split())
        return sorted(found)

    def freeze(self, frozen: bool, timeout: float = 10.0) -> None:
        """Stop or go on; returns when the kernel has done it. TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if self.unified:
            path = self.directories[0]
            _write(f"{path}/cgroup.freeze", "1" if frozen else "0")
            wanted = f"frozen {int(frozen)}"
            while wanted not in _read(f"{path}/cgroup.events"):
                _wait(deadline, path)
            return
        directory = self.directory("freezer")
        if directory is None:
            raise OSError(errno.EOPNOTSUPP, "the freezer cgroup controller is not mounted")
        state = "FROZEN" if frozen else "THAWED"
        _write(f"{directory}/freezer.state", state)
        while _read(f"{directory}/freezer.state").strip() != state:
            _wait(deadline, directory)
            # A process that was being born may have slipped through: said again, the kernel looks again.
            _write(f"{directory}/freezer.state", state)

    def frozen(self) -> bool:
        try:
            if self.unified:
                return "frozen 1" in _read(f"{self.directories[0]}/cgroup.events")
            directory = self.directory("freezer")
            return directory is not None and _read(f"{directory}/freezer.state").strip() != "THAWED"
        except OSError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to every process in the group; SIGKILL reaches those that are being born too."""
        if number == signal.SIGKILL and self.unified:
            with contextlib.suppress(FileNotFoundError):
                _write(f"{self.directories[0]}/cgroup.kill", "1")
                return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL until nobody is left. TimeoutError when a process will not die (it hangs in the kernel)."""
        deadline = time.monotonic() + _KILL_TIMEOUT
        while self.pids():
            if self.frozen():
                self.freeze(False)
            self.signal(signal.SIGKILL)
            _wait(deadline, self.path)

    def delete(self) -> None:
        """Remove the directories, with those below. Idempotent. The group has no live process any more."""
        deadline = time.monotonic() + 2.0
        for directory in self.directories:
            while True:
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        raise
                    for at, _, _ in os.walk(directory, topdown=False):
                        with contextlib.suppress(OSError):
                            os.rmdir(at)
                    time.sleep(0.001)  # The last process's exit is on its way.
                else:
                    break

    def counters(self) -> Counters:
        """The counters now; those whose controller is missing are 0."""
        if self.unified:
            return counters_v2.read(self.directories[0])
        return counters_v1.read({name: root + self.path for name, root in self._trees.roots.items()})

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        directory = self.directory("memory")
        if directory is None:
            return 0
        try:
            text = _read(f"{directory}/{'memory.events' if self.unified else 'memory.oom_control'}")
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def group_of(pid: int) -> Cgroup | None:
    """The group that the process is in, on v1 by its memory controller; None if it is the root."""
    wanted = [""] if hierarchies().unified else ["memory"]
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers.split(",") == wanted:
            return Cgroup(path) if path.strip("/") else None
    return None


def _wait(deadline: float, path: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(errno.ETIMEDOUT, "the processes of the cgroup do not react", path)
    time.sleep(0.001)


def _inherit_cpuset(directory: str) -> None:
    """A cpuset of v1 is born empty, and takes no process before it has CPUs and memory nodes."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not _read(f"{directory}/{file}").strip():
            _write(f"{directory}/{file}", _read(f"{os.path.dirname(directory)}/{file}").strip())


def _delegate(directory: str) -> None:
    """Let the groups below have every controller that this one has. v2."""
    enabled = set(_read(f"{directory}/cgroup.subtree_control").split())
    for controller in _missing(_read(f"{directory}/cgroup.controllers").split(), enabled):
        # One by one: cpu is refused where real-time processes run, and must not take the others along.
        with contextlib.suppress(OSError):
            _write(f"{directory}/cgroup.subtree_control", f"+{controller}")


def _missing(wanted: Iterable[str], present: set[str]) -> list[str]:
    return [each for each in wanted if each not in present]
