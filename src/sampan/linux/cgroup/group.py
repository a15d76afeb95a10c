"""A control group in whichever hierarchies this machine has: made, limited, counted, frozen, killed and removed.

Cgroup v1 has a tree for each controller (or for a pair, as cpu and cpuacct), v2 one tree for all. `hierarchies` finds
what is mounted, and everything else walks over the places that the group has there: in one tree, in ten, or in none,
where an ordinary user may make no group and nothing is to be limited.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sampan.linux import bpf
from sampan.linux.cgroup import devices, members
from sampan.linux.cgroup.files import is_permission, read, write
from sampan.linux.cgroup.hierarchies import groups_of, hierarchies
from sampan.linux.cgroup.limits import apply, completed
from sampan.oci.runtime import LinuxResources

if TYPE_CHECKING:
    from sampan.linux.cgroup.counters import Counters

_KILL_TIMEOUT = 10.0
_DELETE_TIMEOUT = 2.0
_ALL_SIGNALLED = 5.0
"""Seconds that a group has to stop, so that no process escapes a signal by forking."""


class Cgroup:
    """The group at `path` (absolute, below the roots of the hierarchies), or one whose place differs from tree to tree.

    `places`: the group by the tree's mount point; without it, `path` in all of them. Empty: there is no group.
    """

    def __init__(self, path: str, places: Mapping[str, str] | None = None) -> None:
        """ValueError for a path that is the root itself."""
        self.path = _cleaned(path)
        self._trees = hierarchies()
        same = dict.fromkeys(self._trees.roots.values(), self.path)
        self._places = same if places is None else dict(places)
        self._made: list[str] = []

    @classmethod
    def named(cls, cgroups_path: str, container_id: str) -> Cgroup:
        """From config.json's cgroupsPath: absolute, or relative to this process's own group; "" is the container's id.

        With v2 relative to the group above that: this process's own has processes, and so no limited groups below it.
        The places are runc's. Raises ValueError.
        """
        if cgroups_path.startswith("/"):
            return cls(cgroups_path)
        trees = hierarchies()
        path = _cleaned(cgroups_path or container_id)
        places = {
            root: _cleaned((os.path.dirname(own) if trees.unified else own) + path)
            for root, own in groups_of(trees).items()
        }
        if len(set(places.values())) == 1:
            return cls(next(iter(places.values())))
        return cls(path, places)

    @property
    def places(self) -> dict[str, str] | None:
        """To find the group again by; None: `path` says it all."""
        same = dict.fromkeys(self._trees.roots.values(), self.path)
        return None if self._places == same else dict(self._places)

    @property
    def missing(self) -> bool:
        """There is no group, in any tree, and can't be one."""
        return not self._places

    @property
    def directories(self) -> list[str]:
        """One on v2; on v1 one for each tree."""
        return [root + path for root, path in self._places.items()]

    @property
    def unified(self) -> bool:
        return self._trees.unified

    def directory(self, controller: str) -> str | None:
        """None if the tree is not mounted, or has no place for this group."""
        root = self._trees.root(controller)
        return root + self._places[root] if root in self._places else None

    # --- Birth ------------------------------------------------------------------------------------

    def create(self, *, lenient: bool = False) -> None:
        """Make the directories, those above them too. FileExistsError when the group is there and has processes.

        `lenient`: where this process lacks the permission, the group has no place in that tree. When one can't be made
        otherwise, those that were are removed again.
        """
        try:
            for root, path in list(self._places.items()):
                try:
                    self._make(root, path)
                except OSError as error:
                    if not (lenient and is_permission(error)):
                        raise
                    del self._places[root]
            if lenient and self.unified and not self.missing and not self.reachable():
                self._unmake()
                self._places = {}
            if self.frozen():  # With one above; whoever joins it would hang.
                raise OSError(errno.EBUSY, "cgroup is frozen", self.directory("freezer"))
        except BaseException:
            self._unmake()
            raise

    def _make(self, root: str, path: str) -> None:
        directory = root + path
        if not self._mkdir(root, path) and (pids := members.processes(directory)):
            raise FileExistsError(errno.EEXIST, f"cgroup is not empty: processes in it: {_some(pids)}", directory)
        if self.unified:
            self._take_controllers(root, path)

    def _mkdir(self, root: str, path: str) -> bool:
        """False if it was there already."""
        for _ in range(_RETRIES):
            try:
                os.mkdir(root + path, 0o755)
            except FileExistsError:
                return False
            except FileNotFoundError:
                # Again where somebody removes the one above at this moment, because it has become empty.
                self._make_above(root, path)
            else:
                self._made.append(root + path)
                return True
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), root + path)

    def _make_above(self, root: str, path: str) -> None:
        at = root
        for part in path.split("/")[1:-1]:
            if self.unified:
                _delegate(at)
            at += "/" + part
            with contextlib.suppress(FileExistsError):
                os.mkdir(at, 0o755)
                self._made.append(at)
        if self.unified:
            _delegate(at)

    def _take_controllers(self, root: str, path: str) -> None:
        """Groups above that were there already may not have passed on what the root has."""
        directory = root + path
        if "invalid" in read(f"{directory}/cgroup.type"):
            raise OSError(errno.EOPNOTSUPP, "a cgroup above is threaded", directory)
        if read(f"{directory}/cgroup.controllers").split() != read(f"{root}/cgroup.controllers").split():
            at = root
            for part in path.split("/")[1:-1]:
                _delegate(at)
                at += "/" + part
            _delegate(at)

    def _unmake(self) -> None:
        while self._made:
            with contextlib.suppress(OSError):
                os.rmdir(self._made.pop())

    def undo(self) -> None:
        """Take back what `create` made, with the processes that are in it by now. Raises nothing."""
        with contextlib.suppress(OSError):
            self.kill()
            self.delete()
        self._unmake()

    def completed(self, resources: LinuxResources) -> LinuxResources:
        """The limits with what the group has now, where one can't be said without the other. Raises OSError."""
        return completed(self, resources)

    def apply(self, resources: LinuxResources, *, lenient: bool = False, update: bool = False) -> None:
        """Write the limits. OSError names the file and the value that was refused, ValueError what this version lacks.

        `lenient`: device rules may fail for want of permission. `update`: when a limit is refused, those that were
        written before it get their old values back.
        """
        apply(self, resources, update=update)
        if resources.devices and not (lenient and self.missing):
            try:
                self._apply_devices(resources)
            except OSError as error:
                if not (lenient and is_permission(error)):
                    raise

    def _apply_devices(self, resources: LinuxResources) -> None:
        directory = self.directory("devices")
        if directory is None:
            raise self.no_place("devices")
        if not self.unified:
            for each in devices.writes(resources.devices, read(f"{directory}/devices.list")):
                write(f"{directory}/{each.file}", each.value)
            return
        program = devices.program(resources.devices)
        group = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bpf.attach_device_program(group, program)
        except OSError as error:
            error.filename = error.filename or directory
            error.add_note("device rules")
            raise
        finally:
            os.close(group)

    def no_place(self, controller: str) -> OSError:
        """Why the group can't be limited by the controller."""
        if self._trees.root(controller) is None:
            return FileNotFoundError(errno.ENOENT, f"the {controller} cgroup controller is not mounted")
        return PermissionError(
            errno.EACCES, f"cannot set a {controller} limit: the cgroup could not be made", self.path
        )

    # --- Membership -------------------------------------------------------------------------------

    def open(self) -> int | None:
        """A descriptor of the v2 directory, to be born in (CLONE_INTO_CGROUP); None where that is not possible."""
        if not self.unified or self.missing:
            return None
        return os.open(self.directories[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def reachable(self) -> bool:
        """Whether this process may put processes of its own into the group. v2: cgroups(7), "delegation containment"
        asks for the right to do so in the group above both."""
        if not self.unified or self.missing or os.geteuid() == 0:
            return True
        root, path = next(iter(self._places.items()))
        above = os.path.commonpath((groups_of(self._trees)[root], path))
        return os.access(f"{root}{above}/cgroup.procs", os.W_OK)

    def shown(self, root: str) -> str:
        """The directory that the container is shown of the tree mounted at `root`: where it has no place of its own
        there, that of this process's."""
        if root in self._places:
            return root + self._places[root]
        return root + groups_of(self._trees)[root]

    def open_beside(self, pid: int) -> int:
        """As `open`, of the group below this one that the process is in: a container that divides its group among
        groups of its own has no process in it, and the kernel lets none in."""
        inside = read(f"/proc/{pid}/cgroup").rpartition("0::")[2].strip()
        if not (inside + "/").startswith(self.path + "/"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self.directories[0])
        return os.open(self._trees.roots[""] + inside, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Move the process into the group, in every tree."""
        for directory in self.directories:
            write(f"{directory}/cgroup.procs", str(pid))

    def join(self) -> None:
        """Move this process, which has one thread, into the group: v1. (With v2 it is born there.)"""
        self.join_by(self.doors())

    def doors(self) -> list[int]:
        """Descriptors for `join_by`, one for each tree."""
        opened: list[int] = []
        unified = self._trees.roots.get("")
        try:
            for root, path in self._places.items():
                name = "cgroup.procs" if root == unified else "tasks"
                opened.append(os.open(f"{root}{path}/{name}", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return opened

    @staticmethod
    def join_by(doors: Sequence[int]) -> None:
        """Move this process by what `doors` has opened, which is closed: the host's files need not be in reach.

        By `tasks` and 0, as the kernel then takes no lock that waits for every processor: moving another process, or
        all threads of one, costs some ten milliseconds where that lock has not been taken for a while.
        """
        for descriptor in doors:
            try:
                os.write(descriptor, b"0")
            finally:
                os.close(descriptor)

    def exists(self) -> bool:
        return any(os.path.isdir(directory) for directory in self.directories)

    def pids(self) -> list[int]:
        """The processes in the group and in those below it, by their ids in this process's namespace."""
        directory = self._guarding()
        return sorted(members.processes(directory)) if directory is not None else []

    def _guarding(self) -> str | None:
        """Where to look for the processes: no tree of v1 has others than the rest."""
        if self.missing:
            return None
        return self.directory("devices") or self.directories[0]

    # --- Freezing ---------------------------------------------------------------------------------

    def freeze(self, frozen: bool, timeout: float = 10.0) -> None:
        """Stop or go on; returns when the kernel has done it. TimeoutError after `timeout` seconds, and then what could
        not be stopped altogether goes on."""
        directory = self.directory("freezer")
        if directory is None:
            number = errno.EOPNOTSUPP
            raise OSError(number, "the container has no cgroup" if self.missing else "the freezer is not mounted")
        try:
            (_freeze_v2 if self.unified else _freeze_v1)(directory, frozen, time.monotonic() + timeout)
        except TimeoutError:
            if frozen:
                with contextlib.suppress(OSError):
                    _set_frozen(directory, False, unified=self.unified)
            raise

    def frozen(self) -> bool:
        directory = self.directory("freezer")
        return directory is not None and self._is_frozen(directory)

    def _is_frozen(self, directory: str) -> bool:
        try:
            if self.unified:
                return "frozen 1" in read(f"{directory}/cgroup.events")
            return read(f"{directory}/freezer.state").strip() != "THAWED"
        except OSError:
            return False

    # --- Death ------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send a signal to every process in the group, those that are being born too."""
        if number == signal.SIGKILL and self._kill_at_once():
            return
        directory = self.directory("freezer")
        deadline = time.monotonic() + _ALL_SIGNALLED
        # This process would stop itself, if it were in the group.
        stop = directory is not None and not self.frozen() and os.getpid() not in self.pids()
        signalled: set[int] = set()
        try:
            still = not stop
            while True:
                if stop and not still and directory is not None:
                    try:
                        still = _freezes(directory, unified=self.unified)
                    except OSError as error:
                        # Removed by somebody else meanwhile: nobody is in it.
                        still = error.errno in (errno.ENOENT, errno.ENODEV)
                born = set(self.pids()) - signalled
                for pid in born:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                signalled |= born
                # When all stand still, and have been looked at since, nobody can have been missed.
                if (still and not born) or time.monotonic() > deadline:
                    break
                if not born:
                    time.sleep(0.001)
        finally:
            if stop or number == signal.SIGKILL:  # v1's frozen processes die only when they are thawed.
                with contextlib.suppress(OSError):
                    self.freeze(False)

    def _kill_at_once(self) -> bool:
        """By v2's cgroup.kill (Linux 5.14), which nobody escapes. False where there is none."""
        root = self._trees.roots.get("")
        if root is None or root not in self._places:
            return False
        try:
            write(f"{root}{self._places[root]}/cgroup.kill", "1")
        except OSError as error:
            return error.errno == errno.ENODEV
        return True

    def kill(self) -> None:
        """SIGKILL until nobody is left. TimeoutError when a process will not die (it hangs in the kernel)."""
        deadline = time.monotonic() + _KILL_TIMEOUT
        while pids := self.pids():
            self.signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"processes that do not die: {_some(pids)}", self.path)
            time.sleep(0.001)

    def delete(self) -> None:
        """Remove the directories, with those below. Idempotent. The group has no live process any more; OSError (EBUSY)
        with those that are in it, if it has."""
        deadline = time.monotonic() + _DELETE_TIMEOUT
        busy: OSError | None = None
        for directory in self.directories:
            while True:
                try:
                    members.remove(directory)
                except OSError as error:
                    if error.errno == errno.EBUSY and time.monotonic() < deadline:
                        time.sleep(0.001)  # The last process's exit is on its way.
                        continue
                    busy = OSError(error.errno, f"{error.strerror}{_inside(directory)}", directory)
                break
        if busy is not None:
            raise busy

    # --- Counting ---------------------------------------------------------------------------------

    def counters(self) -> Counters:
        """The counters now; those whose controller is missing are 0."""
        # Imported by those who count: they are every shim's memory otherwise.
        from sampan.linux.cgroup import counters_v1, counters_v2
        from sampan.linux.cgroup.counters import Counters

        if self.missing:
            return Counters(unified=self.unified, memory_stat={})
        if self.unified:
            return counters_v2.read(self.directories[0])
        roots = self._trees.roots.items()
        return counters_v1.read({name: root + self._places[root] for name, root in roots if root in self._places})

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        directory = self.directory("memory")
        if directory is None:
            return 0
        try:
            text = read(f"{directory}/{'memory.events' if self.unified else 'memory.oom_control'}")
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def group_of(pid: int) -> Cgroup | None:
    """The group that the process is in; None if it is the root. It has no place in a tree where it is the root."""
    places = {root: path for root, path in groups_of(hierarchies(), pid).items() if path != "/"}
    return Cgroup(next(iter(places.values())), places) if places else None


def _cleaned(path: str) -> str:
    """Absolute, and nowhere up. ValueError for the root."""
    cleaned = os.path.normpath("/" + path.lstrip("/"))
    if cleaned == "/":
        raise ValueError(f"invalid cgroup path {path!r}")
    return cleaned


def _some(pids: Iterable[int]) -> str:
    first, *more = sorted(pids)
    return f"{first} and {len(more)} more" if more else str(first)


def _inside(directory: str) -> str:
    pids = members.processes(directory)
    return f": processes in it: {_some(pids)}" if pids else ""


def _delegate(directory: str) -> None:
    """Let the groups below have every controller that this one has. v2.

    A group with processes has none to give. The kernel would give the threaded ones, and make it a group of threads.
    """
    enabled = set(read(f"{directory}/cgroup.subtree_control").split())
    missing = [each for each in read(f"{directory}/cgroup.controllers").split() if each not in enabled]
    if not missing or (os.path.exists(f"{directory}/cgroup.type") and read(f"{directory}/cgroup.procs").strip()):
        return
    for controller in missing:
        # One by one: cpu is refused where real-time processes run, and must not take the others along.
        with contextlib.suppress(OSError):
            write(f"{directory}/cgroup.subtree_control", f"+{controller}")


def _set_frozen(directory: str, frozen: bool, *, unified: bool) -> None:
    if unified:
        write(f"{directory}/cgroup.freeze", "1" if frozen else "0")
    else:
        write(f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED")


def _freezes(directory: str, *, unified: bool) -> bool:
    """Have the group stop, without waiting: whether it has."""
    _set_frozen(directory, True, unified=unified)
    if unified:
        return "frozen 1" in read(f"{directory}/cgroup.events")
    return read(f"{directory}/freezer.state").strip() == "FROZEN"


def _freeze_v2(directory: str, frozen: bool, deadline: float) -> None:
    _set_frozen(directory, frozen, unified=True)
    wanted = f"frozen {int(frozen)}"
    while wanted not in read(f"{directory}/cgroup.events"):
        _wait(deadline, directory)


_RETRIES = 50


def _freeze_v1(directory: str, frozen: bool, deadline: float) -> None:
    state = "FROZEN" if frozen else "THAWED"
    tries = 0
    _set_frozen(directory, frozen, unified=False)
    while read(f"{directory}/freezer.state").strip() != state:
        _wait(deadline, directory)
        tries += 1
        if frozen and tries % _RETRIES == 0:
            # Where processes go on being born, stopping them anew gets further than waiting.
            _set_frozen(directory, False, unified=False)
            time.sleep(0.01)
        # A process that was being born may have slipped through: said again, the kernel looks again.
        _set_frozen(directory, frozen, unified=False)


def _wait(deadline: float, path: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(errno.ETIMEDOUT, "the processes of the cgroup do not react", path)
    time.sleep(0.001)
