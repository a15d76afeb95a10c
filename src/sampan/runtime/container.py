"""A container: create, start, exec, signal, freeze, limit, count, delete. runtime-spec runtime.md, in process.

The caller has one thread, is the parent of the processes and reaps them. What `create` makes it takes back, in reverse,
when a step fails.
"""

from __future__ import annotations

import contextlib
import os
import signal as signals
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Conflict, Internal, InvalidArgument, NotFound, SampanError
from sampan.linux import process
from sampan.linux.cgroup import Cgroup
from sampan.linux.namespaces import CLONE_PARENT
from sampan.oci.decoding import decode
from sampan.oci.runtime import Hooks, LinuxResources, Process, Spec
from sampan.runtime import birth, group, hooks, identity, idmap, init, log, seccomp, state, sync
from sampan.runtime.hooks import Status
from sampan.runtime.plan import Options, Plan, plan, with_default_devices
from sampan.runtime.process import Confinement, checked_process, confinement, inherited, warn_of

if TYPE_CHECKING:  # The command has none, and need not load it.
    from sampan.linux.cgroup.counters import Counters
    from sampan.runtime.newborn import Newborn


_DEATH = 10.0
"""Seconds that a killed process has to end."""


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

    def end(self) -> None:
        """Kill and reap it."""
        _end(self.pid, self.pidfd)
        os.close(self.pidfd)


@contextlib.contextmanager
def opened(stdio: Stdio) -> Iterator[tuple[int, int, int]]:
    """The three descriptors."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        first, second, third = (
            null if each is None else each for each in (stdio.stdin, stdio.stdout, stdio.stderr)
        )  # fmt: skip
        yield first, second, third
    finally:
        os.close(null)


def read_config(bundle: str) -> bytes:
    """The bundle's config.json. Raises InvalidArgument."""
    try:
        with open(f"{bundle}/{state.CONFIG}", "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidArgument(f"{bundle}/config.json: {(error.strerror or '').lower()}") from error


def decode_config(content: bytes, bundle: str) -> Spec:
    """Raises InvalidArgument."""
    try:
        return decode(content, Spec)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{bundle}/config.json: {error}") from error


def load_spec(bundle: str, state_directory: str = "") -> Spec:
    """The configuration: as it was kept in the state directory, or else as it is in the bundle now."""
    kept = state_directory if os.path.exists(f"{state_directory}/{state.CONFIG}") else bundle
    return decode_config(read_config(kept), kept)


class Container:
    """`pid`: in this process's namespace. `master`: the terminal's descriptor, the caller's to close. `pidfd`: -1 if
    the process had ended before this object was made by `load`."""

    def __init__(self, record: state.Record, state_root: str, pidfd: int = -1) -> None:
        self.id = record.id
        self.bundle = record.bundle
        self.pid = record.pid
        self.pidfd = pidfd
        self.master: int | None = None
        self.record = record
        self._state_root = state_root
        self._cgroup = Cgroup(record.cgroup, record.cgroup_places)
        self._sync: socket.socket | None = None
        self._configure(None)

    def _configure(self, spec: Spec | None) -> None:
        """What of the configuration counts after the creation."""
        linux = spec.linux if spec else None
        self._confinement = confinement(linux) if linux else Confinement()
        self.process = spec.process if spec else None
        self.annotations = spec.annotations if spec else {}
        self._namespaces = frozenset(each.type for each in linux.namespaces) if linux else frozenset()
        self._hooks = (spec.hooks if spec else None) or Hooks()

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
        content: bytes = b"",
        window: tuple[int, int] | None = None,
        newborn: Newborn | None = None,
        options: Options = Options(),  # noqa: B008 - immutable
    ) -> Container:
        """Make everything, up to the execve of the program, which `start` does. `window`: width and height.
        `content`: the configuration as it is kept for other processes; empty: they will find it in the bundle.

        `newborn` becomes its process if it can, and is used up in any case.

        Raises InvalidArgument, Unsupported, Conflict (the id is in use), CommandNotFound, CommandNotExecutable,
        Internal; then nothing is left.
        """
        with contextlib.ExitStack() as held, contextlib.ExitStack() as undo:
            if newborn is not None:
                undo.callback(newborn.dismiss)
            spec = spec or load_spec(bundle)
            what = plan(spec, container_id, bundle, options)
            warn_of(what.process)
            directory = held.enter_context(state.reserved(state_root, container_id))
            undo.callback(state.remove, state_root, container_id)
            if what.unit:
                what = group.located(what)
            cgroup = group.named(what)
            record = state.Record(
                id=container_id, bundle=bundle, rootfs=what.root, cgroup=cgroup.path, cgroup_places=cgroup.places,
                created=time.time_ns(), unit=what.unit, rootless=options.rootless,
            )  # fmt: skip
            # From here on a `delete --force` knows what to look for, whenever this process is killed.
            state.save(state_root, record)
            if content:
                state.keep_config(state_root, container_id, content)
            if what.unit:
                group.start_scope(held, what)
            listener = None
            if options.detached:
                listener = held.enter_context(sync.listen(directory, state.START))
            if what.hooks is not None:
                undo.callback(hooks.run_all, "poststop", what.hooks.poststop, what.subject.state("stopped", 0))
            with opened(stdio) as streams:
                if newborn is not None and newborn.order(group.placed(what, cgroup), streams, window):
                    # It mounts while this process makes the cgroup.
                    pid, pidfd, parent = newborn.pid, newborn.pidfd, newborn.connection
                    undo.callback(_end, pid, pidfd)
                    group.make(cgroup, what, undo)
                else:
                    if newborn is not None:
                        newborn.dismiss()
                    what = group.make(cgroup, what, undo)
                    pid, pidfd, parent = _fork(what, cgroup, streams, window, listener)
                    undo.callback(parent.close)
                    undo.callback(os.close, pidfd)
                    undo.callback(_end, pid, pidfd)
            program = seccomp.compiled(what.confinement.seccomp, state_root)
            with contextlib.suppress(BrokenPipeError):  # It has failed; what it says of it is read next.
                if what.user_namespace:
                    identity.set_oom_score(pid, what.process.oom_score_adj)
                if what.maps is not None:
                    identity.write_maps(pid, what.maps)
                    sync.send(parent, sync.MAPPED)
                with idmap.opened(what, pid) as trees:
                    sync.send(parent, sync.GROUP + program, *trees)
            record = msgspec.structs.replace(
                record, pid=pid, start_time=state.start_time(pid), cgroup_places=cgroup.places
            )
            state.save(state_root, record)
            log.debug(f"container {container_id}: process {pid} in cgroup {cgroup.path}, {len(what.mounts)} mounts")
            if what.hooks is not None and hooks.at_creation(what.hooks):
                sync.expect(parent, sync.HOOKS)
                shown = what.subject.state("creating", pid)
                hooks.run("prestart", what.hooks.prestart, shown)
                hooks.run("createRuntime", what.hooks.create_runtime, shown)
                with contextlib.suppress(BrokenPipeError):
                    sync.send(parent, sync.RESUME)
            seccomp.pass_on(parent, pidfd, what.confinement.seccomp, pid, what.subject.described("creating", pid))
            with group.blamed(cgroup):
                _, masters = sync.expect(parent, sync.READY)
            container = cls(record, state_root, pidfd)
            container._configure(spec)
            container.master = masters[0] if masters else None
            container._sync = parent
            undo.pop_all()
            return container

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What `handed_over` takes, of a container that is created and waits for its start."""
        assert self._sync is not None
        own = (self.pidfd, self._sync.fileno())
        return own if self.master is None else (*own, self.master)

    @classmethod
    def handed_over(
        cls, record: state.Record, state_root: str, pidfd: int, connection: int, master: int | None = None
    ) -> Container:
        """A container that another process has created. The descriptors are this object's."""
        container = cls(record, state_root, pidfd)
        container.master = master
        container._sync = socket.socket(fileno=connection)
        return container

    def release(self) -> None:
        """Leave a container that was created `detached` to the process that will start it."""
        connection, self._sync = self._sync, None
        assert connection is not None
        with connection:
            sync.send(connection, sync.HOLD)

    def start(self) -> None:
        """Execute the program. Raises CommandNotFound and its siblings; then the process has ended, and is reaped by
        the caller as any other. Conflict when it was started before, or has ended."""
        connection, self._sync = self._sync, None
        if connection is None:
            connection = self._accepted()
        else:
            with contextlib.suppress(BrokenPipeError):
                sync.send(connection, sync.START)
        with connection:
            try:
                message, _ = sync.receive(connection)
            except OSError as error:
                raise Internal(f"container {self.id}: its process has died") from error
            if message:
                raise Internal(f"container {self.id}: protocol error")
        state.forget_socket(self._state_root, self.id)
        if self._hooks.poststart:
            self._poststart()

    def _accepted(self) -> socket.socket:
        """A connection to the process that `release` has left, which takes one START only."""
        connection = None
        try:
            connection = state.connect(self._state_root, self.id)
            sync.send(connection, sync.START)
            if sync.receive(connection)[0] == sync.ACCEPTED:
                return connection
        except OSError:
            pass
        if connection is not None:
            connection.close()
        if self.alive:
            if self.paused:
                raise Conflict("cannot start a container in the paused state")
            raise Conflict("cannot start an already running container")
        raise Conflict("cannot start a container that has stopped")

    def _poststart(self) -> None:
        try:
            hooks.run("poststart", self._hooks.poststart, self._subject.state("running", self.pid))
        except SampanError:
            with contextlib.suppress(SampanError):
                self.kill(signals.SIGKILL)
            raise

    @property
    def _subject(self) -> hooks.Subject:
        return hooks.Subject(self.id, self.bundle, self.annotations)

    @classmethod
    def load(cls, container_id: str, state_root: str) -> Container:
        """A container that was made before, by this process or another. Raises NotFound."""
        record = state.load(state_root, container_id)
        pidfd = -1
        if record.pid:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(record.pid)
                if state.start_time(record.pid) != record.start_time:
                    os.close(pidfd)
                    pidfd = -1
        container = cls(record, state_root, pidfd)
        with contextlib.suppress(InvalidArgument):
            container._configure(load_spec(record.bundle, f"{state_root}/{container_id}"))
        return container

    @property
    def alive(self) -> bool:
        """Whether the first process lives; one that waits to be reaped does not."""
        return self.pidfd >= 0 and state.start_time(self.pid) == self.record.start_time

    @property
    def status(self) -> Status:
        """runtime-spec runtime.md, "State"; and `paused`."""
        if not self.record.pid:
            return "stopped" if state.settled(self._state_root, self.id) else "creating"
        if not self.alive:
            return "stopped"
        if self.paused:
            return "paused"
        waiting = self._sync is not None or state.waits(self._state_root, self.id)
        return "created" if waiting else "running"

    # --- Life -------------------------------------------------------------------------------------

    def exec(
        self, wanted: Process, stdio: Stdio, window: tuple[int, int] | None = None, preserved: int = 0
    ) -> ExecProcess:
        """Run one more process, at once. What it does not say of its confinement is as the first one's (`inherited`).

        Raises as `create` does, and Conflict when the container's process has ended.
        """
        if self.process is None:
            with contextlib.suppress(InvalidArgument):
                self._configure(load_spec(self.bundle, f"{self._state_root}/{self.id}"))
        if self.process is None:  # Nothing may run beside it that is less confined.
            raise Internal(f"container {self.id}: its configuration is lost")
        wanted = checked_process(inherited(wanted, self.process))
        warn_of(wanted)
        program = seccomp.compiled(self._confinement.seccomp, self._state_root)
        if self.pidfd < 0:
            raise Conflict(f"container {self.id} is not running")
        parent, child = sync.pair()
        with contextlib.ExitStack() as undo:
            undo.callback(parent.close)
            with child, opened(stdio) as streams:
                pid, pidfd, numbers = self._born_inside(wanted, streams, preserved, child)
                if pid == 0:
                    init.run_exec(
                        wanted, numbers, self._namespaces, program, self._confinement, window, attached=self._attaches
                    )
            with contextlib.ExitStack() as failed:
                failed.callback(os.close, pidfd)
                failed.callback(_end, pid, pidfd)
                if self._attaches:
                    group.attach(self.record.unit, pid, self.record.rootless)
                    with contextlib.suppress(BrokenPipeError):
                        sync.send(parent, sync.GROUP)
                master = None
                if wanted.terminal:
                    master = sync.expect(parent, sync.READY)[1][0]
                    failed.callback(os.close, master)
                shown = self._subject.described("running", self.pid)
                seccomp.pass_on(parent, pidfd, self._confinement.seccomp, pid, shown)
                message, _ = sync.receive(parent)
                if message:
                    raise Internal("exec: protocol error")
                failed.pop_all()
            return ExecProcess(pid, pidfd, master)

    @property
    def _attaches(self) -> bool:
        """Whether only systemd may put a process into the group."""
        return bool(self.record.unit) and not self._cgroup.reachable()

    def _born_inside(
        self, wanted: Process, streams: tuple[int, int, int], preserved: int, connection: socket.socket
    ) -> tuple[int, int, list[int]]:
        """Fork into the container: the pid and its pidfd in the parent; 0 in the child, and the numbers of what it has
        besides its streams: its end of the connection, the container's process (a pidfd), its ways into the cgroup.
        """
        with contextlib.ExitStack() as opened:
            doors, groups = self._ways_in(opened)
            own = [connection.fileno(), self.pidfd, *doors]
            numbers: list[int] = []

            def prepare(midwifes: list[int]) -> list[int]:
                moved = init.enter(self.pidfd, self._namespaces, wanted, streams, preserved, [*own, *midwifes])
                numbers.extend(moved[: len(own)])
                return moved[len(own) :]

            try:
                pid, pidfd = birth.clone_inside(prepare, groups)
            except Conflict as error:
                raise Conflict(f"container {self.id} is not running") from error
            if pid == 0:
                connection.detach()
                opened.pop_all()
            return pid, pidfd, numbers

    def _ways_in(self, opened: contextlib.ExitStack) -> tuple[list[int], list[int]]:
        """Of the cgroup: descriptors to join by (v1), and to be born in (v2)."""
        try:
            born_in = group.birthplace(self._cgroup, self.record.unit)
            if born_in is None:
                doors = [] if self._cgroup.unified else self._cgroup.doors()
                for door in doors:
                    opened.callback(os.close, door)
                return doors, []
            groups = [born_in]
            opened.callback(os.close, born_in)
            with contextlib.suppress(OSError):
                groups.append(self._cgroup.open_beside(self.pid))
                opened.callback(os.close, groups[1])
        except OSError as error:
            raise Internal(f"cgroup: {error.filename}: {(error.strerror or '').lower()}") from error
        return [], groups

    def kill(self, signal: int, all: bool = False) -> None:  # noqa: A002 - the runtime specification's word
        """Send a signal to the first process, or to all. Raises NotFound when there is no process left."""
        try:
            if all and not self._cgroup.missing:
                self._cgroup.signal(signal)
                return
            if self.pidfd < 0:
                raise ProcessLookupError
            process.send_signal(self.pidfd, signal)
        except ProcessLookupError:
            # containerd's shim looks for the first three words.
            raise NotFound(f"container not running: {self.id}") from None
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
            raise group.refused(error) from error

    @property
    def paused(self) -> bool:
        return self._cgroup.frozen()

    def update(self, resources: LinuxResources) -> None:
        """Change the limits; what is not given stays. Raises InvalidArgument for what the kernel refuses; then the
        limits are as before."""
        if resources.devices:
            resources = with_default_devices(resources)
        group.update(self._cgroup, resources, self.record.unit, self.record.rootless)

    def stats(self) -> Counters:
        """The cgroup's counters."""
        return self._cgroup.counters()

    def pids(self) -> list[int]:
        """All processes, by their ids in this process's namespace; without a cgroup the first is all that is known."""
        if self._cgroup.missing:
            return [self.pid] if self.alive else []
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
            raise group.refused(error) from error

    def delete(self, force: bool = False) -> None:
        """Remove the cgroup and the state, and run the poststop hooks. Idempotent. A created container's process is
        killed. Raises Conflict while a started one lives, or while the container is being made, unless `force`."""
        if not force:
            status = self.status
            if status not in ("created", "stopped"):
                raise Conflict(f"cannot delete container {self.id} that is not stopped: {status}")
        alive = self.alive
        if alive:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.pidfd, signals.SIGKILL)
        group.remove(self._cgroup, self.record.unit, self.record.rootless)
        if alive and not process.ended(self.pidfd, _DEATH):
            raise Internal(f"container {self.id}: its process {self.pid} does not die")
        state.remove(self._state_root, self.id)
        if self._sync is not None:
            self._sync.close()
            self._sync = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        hooks.run_all("poststop", self._hooks.poststop, self._subject.state("stopped", 0))


def _fork(
    what: Plan,
    cgroup: Cgroup,
    stdio: tuple[int, int, int],
    window: tuple[int, int] | None,
    listener: socket.socket | None,
) -> tuple[int, int, socket.socket]:
    """The child's pid and pidfd, and the parent's end of the conversation."""
    parent, child = sync.pair()
    try:
        with child:
            pid, pidfd = _clone(what, cgroup)
            if pid == 0:
                parent.close()  # Or else the child would never see it close, when this process is killed.
                init.run(what, stdio, window, child, listener=listener)
    except BaseException:
        parent.close()
        raise
    return pid, pidfd, parent


def _clone(what: Plan, cgroup: Cgroup) -> tuple[int, int]:
    born_in = group.birthplace(cgroup, what.unit)
    flags = what.clone_flags | (CLONE_PARENT if what.options.sibling else 0)
    try:
        pid, pidfd = birth.clone(flags, what.joins, born_in)
    finally:
        if born_in is not None:
            os.close(born_in)
    if pid and what.unit and born_in is None:
        try:
            group.attach(what.unit, pid, what.options.rootless)
        except BaseException:
            _end(pid, pidfd)
            os.close(pidfd)
            raise
    return pid, pidfd


def _end(pid: int, pidfd: int) -> None:
    """Kill and reap a child that did not become what it should."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(pidfd, signals.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
