"""A container: create, start, exec, signal, freeze, limit, count, delete. runtime-spec runtime.md, in process.

The caller has one thread, is the parent of the processes and reaps them. What `create` makes it takes back, in reverse,
when a step fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal as signals
import socket
import time
from collections.abc import Iterator

import msgspec

from sampan.errors import Conflict, Internal, InvalidArgument, NotFound, SampanError
from sampan.linux import process, seccomp
from sampan.linux.cgroup import Cgroup, Counters
from sampan.oci.runtime import Capabilities, LinuxResources, Process, Seccomp, Spec
from sampan.runtime import birth, identity, init, state, sync
from sampan.runtime.newborn import Newborn
from sampan.runtime.plan import Plan, checked_process, plan

_SPEC = msgspec.json.Decoder(Spec)


class Stdio(msgspec.Struct, frozen=True):
    """The descriptors that become 0, 1 and 2; None: /dev/null. They stay the caller's to close."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


class ExecProcess(msgspec.Struct, frozen=True):
    """One more process. `pidfd`, and `master` if it has a terminal, are the caller's to close."""

    pid: int
    pidfd: int
    master: int | None = None


@contextlib.contextmanager
def _opened(stdio: Stdio) -> Iterator[tuple[int, int, int]]:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        first, second, third = (
            null if each is None else each for each in (stdio.stdin, stdio.stdout, stdio.stderr)
        )  # fmt: skip
        yield first, second, third
    finally:
        os.close(null)


def load_spec(bundle: str) -> Spec:
    """The bundle's config.json. Raises InvalidArgument."""
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            return _SPEC.decode(file.read())
    except OSError as error:
        raise InvalidArgument(f"{bundle}/config.json: {(error.strerror or '').lower()}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{bundle}/config.json: {error}") from error


class Container:
    """`pid`: in this process's namespace. `master`: the terminal's descriptor, the caller's to close. `pidfd`: -1 if
    the process had ended before this object was made by `load`."""

    def __init__(self, record: state.Record, state_root: str, pidfd: int = -1) -> None:
        self.id = record.id
        self.bundle = record.bundle
        self.pid = record.pid
        self.pidfd = pidfd
        self.master: int | None = None
        self._record = record
        self._state_root = state_root
        self._cgroup = Cgroup(record.cgroup)
        self._sync: socket.socket | None = None
        self._seccomp: Seccomp | None = None
        self._capabilities: Capabilities | None = None
        self._namespaces: frozenset[str] = frozenset()

    # --- Birth ------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        container_id: str,
        bundle: str,
        state_root: str,
        stdio: Stdio,
        *,
        spec: Spec | None = None,
        window: tuple[int, int] | None = None,
        newborn: Newborn | None = None,
        systemd: bool = False,
    ) -> Container:
        """Make everything, up to the execve of the program, which `start` does. `window`: width and height.
        `systemd`: the cgroup is a scope of systemd's, named by cgroupsPath as `slice:prefix:name`.

        `newborn` becomes its process if it can, and is used up in any case.

        Raises InvalidArgument, Unsupported, Conflict (the id is in use), CommandNotFound, CommandNotExecutable,
        Internal; then nothing is left.
        """
        unit = ""
        with contextlib.ExitStack() as held, contextlib.ExitStack() as undo:
            if newborn is not None:
                undo.callback(newborn.dismiss)
            if spec is None:
                spec = load_spec(bundle)
            what = plan(spec, container_id, bundle)
            state.reserve(state_root, container_id)
            undo.callback(state.remove, state_root, container_id)
            if systemd:
                what, unit = _in_scope(held, what, spec, container_id)
            group = _group(what.cgroup)
            with _opened(stdio) as streams:
                if newborn is not None and newborn.order(what, streams, window):
                    # It mounts while this process makes the cgroup.
                    pid, pidfd, parent = newborn.pid, newborn.pidfd, newborn.connection
                    undo.callback(_end, pid, pidfd)
                    _make_group(group, what.resources, undo, made=bool(unit))
                else:
                    if newborn is not None:
                        newborn.dismiss()
                    _make_group(group, what.resources, undo, made=bool(unit))
                    pid, pidfd, parent = _fork(what, group, streams, window)
                    undo.callback(parent.close)
                    undo.callback(os.close, pidfd)
                    undo.callback(_end, pid, pidfd)
            program = _filter(what.seccomp, state_root)
            with contextlib.suppress(BrokenPipeError):  # It has failed; what it says of it is read next.
                if what.maps is not None:
                    identity.write_maps(pid, what.maps)
                    identity.set_oom_score(pid, what.process.oom_score_adj)
                    sync.send(parent, sync.MAPPED)
                sync.send(parent, sync.GROUP + program)
            record = state.Record(
                id=container_id, bundle=bundle, cgroup=what.cgroup, pid=pid, start_time=state.start_time(pid),
                created=time.time_ns(), unit=unit,
            )  # fmt: skip
            container = cls(record, state_root, pidfd)
            state.save(state_root, record)
            _, masters = sync.expect(parent, sync.READY)
            container.master = masters[0] if masters else None
            container._sync = parent
            container._seccomp = what.seccomp
            container._capabilities = what.process.capabilities
            container._namespaces = _kinds(spec)
            undo.pop_all()
            return container

    def start(self) -> None:
        """Execute the program. Raises CommandNotFound and its siblings; then the process has ended, and is reaped by
        the caller as any other. Conflict when it was started before."""
        if self._sync is None:
            raise Conflict(f"container {self.id} has been started already")
        connection, self._sync = self._sync, None
        with connection:
            try:
                sync.send(connection, sync.START)
                message, _ = sync.receive(connection)
            except OSError as error:
                raise Internal(f"container {self.id}: its process has died") from error
            if message:
                raise Internal(f"container {self.id}: protocol error")

    @classmethod
    def load(cls, container_id: str, state_root: str) -> Container:
        """A container that was made before, by this process or another. Raises NotFound."""
        record = state.load(state_root, container_id)
        pidfd = -1
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(record.pid)
            if state.start_time(record.pid) != record.start_time:
                os.close(pidfd)
                pidfd = -1
        container = cls(record, state_root, pidfd)
        with contextlib.suppress(InvalidArgument):
            spec = load_spec(record.bundle)
            container._seccomp = spec.linux.seccomp if spec.linux else None
            container._capabilities = spec.process.capabilities if spec.process else None
            container._namespaces = _kinds(spec)
        return container

    # --- Life -------------------------------------------------------------------------------------

    def exec(self, wanted: Process, stdio: Stdio, window: tuple[int, int] | None = None) -> ExecProcess:
        """Run one more process, at once. Without capabilities of its own it has the container's.

        Raises as `create` does, and Conflict when the container's process has ended.
        """
        if wanted.capabilities is None and self._capabilities is not None:
            wanted = msgspec.structs.replace(wanted, capabilities=self._capabilities)
        wanted = checked_process(wanted)
        program = _filter(self._seccomp, self._state_root)
        flags = self._seccomp.flags if self._seccomp else ()
        if self.pidfd < 0:
            raise Conflict(f"container {self.id} is not running")
        parent, child = sync.pair()
        with contextlib.ExitStack() as undo:
            undo.callback(parent.close)
            with child, _opened(stdio) as streams:
                pid, pidfd = self._clone_inside()
                if pid == 0:
                    init.run_exec(
                        wanted, self.pidfd, self._cgroup, program, flags, streams, window, child,
                        user_namespace="user" in self._namespaces, time_namespace="time" in self._namespaces,
                    )  # fmt: skip
            with contextlib.ExitStack() as failed:
                failed.callback(os.close, pidfd)
                failed.callback(_end, pid, pidfd)
                master = None
                if wanted.terminal:
                    master = sync.expect(parent, sync.READY)[1][0]
                    failed.callback(os.close, master)
                message, _ = sync.receive(parent)
                if message:
                    raise Internal("exec: protocol error")
                failed.pop_all()
            return ExecProcess(pid, pidfd, master)

    def _clone_inside(self) -> tuple[int, int]:
        """A child in the container's pid namespace: a matter of birth, so the parent turns there for the moment."""
        if not self._cgroup.unified:
            return self._born_inside(None)
        try:
            return self._born_inside(self._cgroup.open())
        except Internal as error:
            # A container that divided its group has no processes in the group itself any more, nor may have.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EBUSY:
                raise
        return self._born_inside(self._cgroup.open_beside(self.pid))

    def _born_inside(self, group: int | None) -> tuple[int, int]:
        try:
            return birth.clone_inside(self.pidfd, "user" in self._namespaces, group)
        except Conflict as error:
            raise Conflict(f"container {self.id} is not running") from error
        finally:
            if group is not None:
                os.close(group)

    def kill(self, signal: int, all: bool = False) -> None:  # noqa: A002 - the runtime specification's word
        """Send a signal to the first process, or to all. Raises NotFound when there is no process left."""
        try:
            if all:
                self._cgroup.signal(signal)
                return
            if self.pidfd < 0:
                raise ProcessLookupError
            process.send_signal(self.pidfd, signal)
        except ProcessLookupError:
            raise NotFound(f"container {self.id} is not running") from None
        except OSError as error:
            raise InvalidArgument(f"signal {signal}: {(error.strerror or '').lower()}") from error
        if signal == signals.SIGKILL and self._cgroup.frozen():
            # v1's frozen processes die only when they are thawed.
            self.resume()

    def pause(self) -> None:
        """Freeze every process."""
        self._freeze(True)

    def resume(self) -> None:
        """Thaw them."""
        self._freeze(False)

    def _freeze(self, frozen: bool) -> None:
        try:
            self._cgroup.freeze(frozen)
        except OSError as error:
            raise _cgroup_error(error) from error

    @property
    def paused(self) -> bool:
        return self._cgroup.frozen()

    def update(self, resources: LinuxResources) -> None:
        """Change the limits; what is not given stays. Raises InvalidArgument for what the kernel refuses."""
        try:
            if self._record.unit:
                from sampan.runtime import scope

                scope.update(self._record.unit, resources)
            self._cgroup.apply(resources)
        except (OSError, ValueError) as error:
            raise _cgroup_error(error) from error

    def stats(self) -> Counters:
        """The cgroup's counters."""
        return self._cgroup.counters()

    def pids(self) -> list[int]:
        """All processes, by their ids in this process's namespace."""
        return self._cgroup.pids()

    def oom_count(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        return self._cgroup.oom_kills()

    # --- Death ------------------------------------------------------------------------------------

    def reset(self) -> None:
        """After the first process's end: kill what it left behind in the group, which a shared pid namespace allows."""
        try:
            self._cgroup.kill()
        except OSError as error:
            raise _cgroup_error(error) from error

    def delete(self, force: bool = False) -> None:
        """Remove the cgroup and the state. Idempotent. Raises Conflict while a process lives, unless `force`."""
        if self._cgroup.exists() and self._cgroup.pids():
            if not force:
                raise Conflict(f"cannot delete container {self.id} that is not stopped")
            self.reset()
        try:
            self._cgroup.delete()
        except OSError as error:
            raise _cgroup_error(error) from error
        state.remove(self._state_root, self.id)
        if self._sync is not None:
            self._sync.close()
            self._sync = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _filter(profile: Seccomp | None, state_root: str) -> bytes:
    """The profile's program; empty if there is none."""
    if profile is None:
        return b""
    try:
        return seccomp.program(profile, f"{state_root}/.seccomp")
    except (ValueError, OSError) as error:
        raise InvalidArgument(f"{error.strerror or error}" if isinstance(error, OSError) else str(error)) from error


def _group(path: str) -> Cgroup:
    try:
        return Cgroup(path)
    except ValueError as error:
        raise _cgroup_error(error) from error


def _make_group(group: Cgroup, resources: LinuxResources, undo: contextlib.ExitStack, made: bool) -> None:
    """Make it, unless it is `made` already, and limit it."""
    try:
        if not made:
            group.create()
        undo.callback(_remove_group, group)
        group.apply(resources)
    except (OSError, ValueError) as error:
        raise _cgroup_error(error) from error


def _fork(
    what: Plan, group: Cgroup, stdio: tuple[int, int, int], window: tuple[int, int] | None
) -> tuple[int, int, socket.socket]:
    """The child's pid and pidfd, and the parent's end of the conversation."""
    parent, child = sync.pair()
    try:
        with child:
            pid, pidfd = _clone(what, group)
            if pid == 0:
                init.run(what, stdio, window, child)
    except BaseException:
        parent.close()
        raise
    return pid, pidfd, parent


def _in_scope(held: contextlib.ExitStack, what: Plan, spec: Spec, container_id: str) -> tuple[Plan, str]:
    """The plan with the scope's path, and the unit's name; the scope is held until the stack is closed."""
    from sampan.runtime import scope

    assert spec.linux is not None
    try:
        wanted = scope.scope(spec.linux.cgroups_path, container_id)
        held.enter_context(scope.started(wanted, what.resources))
    except (OSError, ValueError) as error:
        raise _cgroup_error(error) from error
    return msgspec.structs.replace(what, cgroup=wanted.path), wanted.unit


def _clone(what: Plan, group: Cgroup) -> tuple[int, int]:
    born_in = group.open() if group.unified else None
    try:
        return birth.clone(what.clone_flags, what.joins, born_in)
    finally:
        if born_in is not None:
            os.close(born_in)


def _kinds(spec: Spec) -> frozenset[str]:
    return frozenset(each.type for each in spec.linux.namespaces) if spec.linux else frozenset()


def _end(pid: int, pidfd: int) -> None:
    """Kill and reap a child that did not become what it should."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(pidfd, signals.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _remove_group(group: Cgroup) -> None:
    with contextlib.suppress(OSError):
        group.kill()
        group.delete()


def _cgroup_error(error: Exception) -> SampanError:
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        note = "".join(f" ({each})" for each in getattr(error, "__notes__", ()))
        return InvalidArgument(f"cgroup: {place}{(error.strerror or str(error)).lower()}{note}")
    return InvalidArgument(f"cgroup: {error}")
