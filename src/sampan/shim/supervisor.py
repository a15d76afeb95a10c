"""The shim: one process that keeps one container, whether or not there is an engine.

It owns the container's streams, writes its log, starts it again as the restart policy says, and keeps its exit status:
in memory for those who wait, and in `exit_path` for an engine that was away. It ends when it is told to, or by itself
once the container has ended for good and no engine is connected.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError, Unavailable
from sampan.faults import stage
from sampan.linux import process
from sampan.shim import connections
from sampan.shim.connections import Connection
from sampan.shim.log import Log
from sampan.shim.loop import READ, Loop, Timer
from sampan.shim.maker import Maker, fork_maker
from sampan.shim.restart import Backoff, restarts
from sampan.shim.streams import Streams
from sampan.shim.task import ExecTask, Task, delete_quietly
from sampan.shimapi import framing
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.shim.health import Checker
    from sampan.shim.runtimes import RunningContainer

_LINGER = 10.0
"""Seconds that clients have, at the end, to take their output."""


class Supervisor:
    def __init__(self, create: msg.Create, control: socket.socket, held: list[int], maker: Maker | None) -> None:
        """`held`: descriptors that are merely kept open. `maker`: makes the container, the first time."""
        self._create = create
        self._held = held
        self._maker = maker
        self._policy = create.restart
        self._loop = Loop(self._reap)
        self._log = self._open_log()
        self._window = create.window
        self._task: Task | None = None
        self._execs: dict[str, ExecTask] = {}
        self._last_streams: Streams | None = None
        self._exited: msg.Exited | None = None
        self._status = msg.TaskStatus.CREATED
        self._started_at = 0
        self._restart_count = 0
        self._backoff = Backoff()
        self._checker: Checker | None = None
        self._health: msg.Health | None = None
        self._unhealthy_restart = False
        self._restart_timer: Timer | None = None
        self._stopping = False
        self._shutting_down = False
        self._waiting: list[tuple[Connection, int, str | None]] = []
        self._listener = connections.listen(f"{create.run_dir}/shim.sock")
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._connections: list[Connection] = []
        self._control = self._connect(control)
        self._control.subscribed = True

    def start(self, number: int, start: bool, attachments: list[tuple[int, msg.Attachment]]) -> bool:
        """Create (and start) the container, and answer the Spawn. False: there is nothing to supervise."""
        try:
            stage("shim.asked")
            self._make_task(attachments)
            stage("shim.created")
            assert self._task is not None
            pid = self._task.pid
            if start:
                self._start_task()
                stage("shim.started")
        except (SampanError, OSError) as error:
            self._clean_up()
            self._control.fail(number, error)
            return False
        if start:
            self._control.answer(number, msg.Started(pid=pid, started_at=self._started_at))
        else:
            self._control.answer(number, msg.Created(pid=pid))
        stage("shim.answered")
        return True

    def run(self) -> None:
        """Supervise until the end."""
        self._loop.run()
        self._clean_up()

    # --- The task ---------------------------------------------------------------------------------

    def _make_task(self, attachments: list[tuple[int, msg.Attachment]]) -> None:
        maker, self._maker = self._maker, None
        self._task = Task(
            self._loop, self._create, self._log, attachments, self._window, self._task_ended, self._detached, maker
        )
        self._status = msg.TaskStatus.CREATED

    def _start_task(self) -> None:
        assert self._task is not None
        try:
            self._task.start()
        except SampanError:
            task, self._task = self._task, None
            with contextlib.suppress(ChildProcessError):
                os.waitpid(task.pid, 0)
            task.streams.drain()
            task.streams.finish()
            delete_quietly(task.container)
            raise
        self._started_at = self._task.started_at
        self._status = msg.TaskStatus.RUNNING
        if self._create.health is not None:
            # Here and not above: those that have no use for it do without its memory.
            from sampan.shim.health import Checker

            self._checker = Checker(
                self._loop, self._create.health, self._task.container, self._health, self._probed
            )  # fmt: skip
            self._health = self._checker.health

    def _probed(self, health: msg.Health, changed: bool) -> None:
        self._health = health
        self._tell(msg.Probed(health=health, changed=changed))
        check = self._create.health
        if not changed or health.status != "unhealthy" or check is None or self._task is None:
            return
        container = self._task.container
        with contextlib.suppress(SampanError):
            match check.action:
                case "kill":
                    container.kill(signal.SIGKILL)
                case "restart":
                    self._unhealthy_restart = True
                    container.kill(signal.SIGKILL)
                case "stop":
                    self._stopping = True
                    container.kill(check.stop_signal)
                    self._loop.later(check.stop_timeout, lambda: self._kill_if_same(container))

    def _kill_if_same(self, container: RunningContainer) -> None:
        if self._task is not None and self._task.container is container:
            with contextlib.suppress(SampanError):
                container.kill(signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._checker is not None and self._checker.reaped(pid, status):
                continue
            if self._task is not None and pid == self._task.pid:
                # Whoever is left in the cgroup shares a pid namespace with others; it goes with the first process.
                with contextlib.suppress(SampanError):
                    self._task.container.reset()
                self._task.reaped(status)
            for each in list(self._execs.values()):
                if each.pid == pid and each.exited is None:
                    each.reaped(status)

    def _task_ended(self, exit_status: int) -> None:
        task = self._task
        assert task is not None
        self._log.flush()
        oom_killed = task.container.oom_count() > 0
        if oom_killed:
            self._tell(msg.OutOfMemory())
        again = not self._stopping and (
            self._unhealthy_restart or restarts(self._policy, exit_status, self._restart_count)
        )
        self._unhealthy_restart = False
        if self._checker is not None:
            self._health = self._checker.end()
            self._checker = None
        self._finish_execs()
        self._task = None
        self._record(
            msg.Exited(
                id=self._create.id, pid=task.pid, exit_status=exit_status, exited_at=time.time_ns(),
                started_at=self._started_at, oom_killed=oom_killed, will_restart=again,
                restart_count=self._restart_count, stopped_by_user=self._stopping, health=self._health,
            )
        )  # fmt: skip
        task.streams.finish()
        self._last_streams = task.streams
        # Those who wait have been told: the group is removed while they do their part.
        delete_quietly(task.container)
        if again:
            self._status = msg.TaskStatus.RESTARTING
            delay = self._backoff.after((time.time_ns() - self._started_at) / 1e9)
            self._restart_timer = self._loop.later(delay, self._restart)
        else:
            self._ended()

    def _open_log(self) -> Log:
        try:
            return Log(self._create.log, self._loop, self._log_takes_more)
        except (SampanError, OSError) as error:
            message = error.message if isinstance(error, SampanError) else str(error)
            raise Unavailable(f"{msg.NO_LOG}: {message}") from error

    def _log_takes_more(self) -> None:
        if self._task is not None:
            self._task.streams.resume()

    def _restart(self) -> None:
        self._restart_timer = None
        self._restart_count += 1
        stage("shim.restarting")
        assert self._exited is not None
        try:
            self._make_task([])
            self._start_task()
        except (SampanError, OSError) as error:
            message = error.message if isinstance(error, SampanError) else str(error)
            again = restarts(self._policy, 127, self._restart_count)
            self._record(
                msgspec.structs.replace(
                    self._exited, exit_status=127, exited_at=time.time_ns(), error=message, will_restart=again,
                    restart_count=self._restart_count,
                )
            )  # fmt: skip
            if again:
                self._restart_timer = self._loop.later(self._backoff.after(0), self._restart)
            else:
                self._ended()
            return
        assert self._task is not None
        self._tell(
            msg.Started(pid=self._task.pid, started_at=self._started_at, restart_count=self._restart_count)
        )  # fmt: skip

    def _record(self, exited: msg.Exited) -> None:
        """The exit is on permanent storage before anyone is told."""
        stage("shim.ended")
        self._exited = exited
        path = self._create.exit_path
        with contextlib.suppress(OSError):  # A full disk: those who are connected hear of it all the same.
            with open(path + ".new", "wb") as file:
                file.write(msgspec.json.encode(exited))
            os.rename(path + ".new", path)
        stage("shim.recorded")
        self._tell(exited)
        stage("shim.told")

    def _ended(self) -> None:
        """It has ended for good."""
        self._status = msg.TaskStatus.STOPPED
        assert self._exited is not None
        for connection, number, exec_id in self._waiting:
            if exec_id is None:
                connection.answer(number, self._exited)
        self._waiting = [each for each in self._waiting if each[2] is not None]
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        if self._status == msg.TaskStatus.STOPPED and not self._connections:
            self._shut_down()

    def _tell(self, event: msg.Event) -> None:
        for connection in list(self._connections):
            if connection.subscribed:
                connection.answer(0, event)

    def _detached(self) -> None:
        self._tell(msg.Detached())

    # --- Connections ------------------------------------------------------------------------------

    def _connect(self, accepted: socket.socket) -> Connection:
        connection = Connection(self._loop, accepted, self._handle, self._forget_closed)
        self._connections.append(connection)
        return connection

    def _accept(self, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            accepted, _ = self._listener.accept()
            self._connect(accepted)

    def _forget_closed(self) -> None:
        self._connections = [each for each in self._connections if each.is_open]
        self._waiting = [each for each in self._waiting if each[0].is_open]
        self._end_if_alone()

    def _handle(
        self, connection: Connection, number: int, request: msg.ShimRequest, descriptors: list[int]
    ) -> msg.Reply | None:
        match request:
            case msg.Connect():
                connection.subscribed = True
                return self._state()
            case msg.State():
                return self._state()
            case msg.Start():
                return self._start()
            case msg.Exec():
                return self._exec(request, descriptors)
            case msg.Attach():
                return self._attach(request, descriptors)
            case msg.Wait():
                return self._wait(connection, number, request)
            case msg.Kill():
                self._kill(request)
            case msg.Resize():
                self._resize(request)
            case msg.CloseIO():
                self._running(request.exec_id).streams.end_input()
            case msg.Pause():
                self._live().container.pause()
                self._status = msg.TaskStatus.PAUSED
                if self._checker is not None:
                    self._checker.pause()
            case msg.Resume():
                self._live().container.resume()
                if self._checker is not None and self._status == msg.TaskStatus.PAUSED:
                    self._checker.resume()
                self._status = msg.TaskStatus.RUNNING
            case msg.Update():
                if request.restart is not None:
                    self._policy = request.restart
                if request.resources is not None:
                    self._live().container.update(request.resources)
            case msg.Hold():
                # Here and not above: hardly a container's ports are changed.
                from sampan.shim.reservations import release

                self._held += descriptors
                release(self._held, request.released)
            case msg.Stats():
                return _stats(self._live())
            case msg.Pids():
                return msg.PidList(pids=tuple(self._live().container.pids()))
            case msg.Delete():
                self._delete(request)
            case msg.Shutdown():
                self._shutdown(request)
            case _:
                raise InvalidArgument(f"the shim does not answer {type(request).__name__}")
        return msg.Done()

    def _state(self) -> msg.TaskState:
        return msg.TaskState(
            id=self._create.id, status=self._status, pid=self._task.pid if self._task else 0, shim_pid=os.getpid(),
            terminal=self._create.terminal, started_at=self._started_at, restart_count=self._restart_count,
            exited=self._exited, execs=tuple(self._execs), health=self._health,
        )  # fmt: skip

    def _live(self) -> Task:
        if self._task is None:
            raise Conflict(f"container {self._create.id} is not running")
        return self._task

    def _running(self, exec_id: str | None) -> Task | ExecTask:
        if exec_id is None:
            return self._live()
        if exec_id not in self._execs:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self._execs[exec_id]

    def _start(self) -> msg.Reply:
        if self._live() and self._status != msg.TaskStatus.CREATED:
            raise Conflict(f"container {self._create.id} has been started already")
        self._start_task()
        return msg.Started(pid=self._live().pid, started_at=self._started_at)

    def _exec(self, request: msg.Exec, descriptors: list[int]) -> msg.Reply:
        task = self._live()
        if request.exec_id in self._execs:
            raise Conflict(f"exec {request.exec_id} already exists")
        if len(descriptors) != len(request.attachments):
            raise InvalidArgument("exec: descriptors and attachments do not match")
        if self._status == msg.TaskStatus.PAUSED:
            raise Conflict(f"container {self._create.id} is paused, unpause the container before exec")
        attachments = list(zip(descriptors, request.attachments, strict=True))
        running = ExecTask(self._loop, task.container, request, attachments, self._exec_ended, self._detached)
        self._execs[request.exec_id] = running
        stage("shim.exec")
        return msg.ExecStarted(exec_id=request.exec_id, pid=running.pid)

    def _exec_ended(self, exited: msg.ExecExited) -> None:
        for connection, number, exec_id in self._waiting:
            if exec_id == exited.exec_id:
                connection.answer(number, exited)
        self._waiting = [each for each in self._waiting if each[2] != exited.exec_id]
        self._tell(exited)

    def _finish_execs(self) -> None:
        """The first process has gone and taken these along; what they said at last is read now."""
        self._reap()
        for each in self._execs.values():
            if each.exited is None:
                each.streams.drain()

    def _attach(self, request: msg.Attach, descriptors: list[int]) -> msg.Reply:
        if len(descriptors) != 1:
            raise InvalidArgument("attach: one descriptor is needed")
        stage("shim.attach")
        self._running(request.exec_id).streams.attach(descriptors[0], request.attachment)
        return msg.Done()

    def _wait(self, connection: Connection, number: int, request: msg.Wait) -> msg.Reply | None:
        if request.exec_id is None:
            if self._status == msg.TaskStatus.STOPPED:
                return self._exited
        else:
            running = self._execs.get(request.exec_id)
            if running is None:
                raise NotFound(f"No such exec instance: {request.exec_id}")
            if running.exited is not None:
                return running.exited
        self._waiting.append((connection, number, request.exec_id))
        return None

    def _kill(self, request: msg.Kill) -> None:
        if request.stop:
            self._stopping = True
        if request.exec_id is not None:
            running = self._execs.get(request.exec_id)
            if running is None or running.exited is not None:
                raise NotFound(f"exec {request.exec_id} is not running")
            os.kill(running.pid, request.signal)
            return
        if self._restart_timer is not None and request.stop:
            # It is between two lives: there is nobody to signal, and no next one any more.
            self._restart_timer.cancel()
            self._restart_timer = None
            assert self._exited is not None
            self._record(msgspec.structs.replace(self._exited, will_restart=False, stopped_by_user=True))
            self._ended()
            return
        self._live().container.kill(request.signal, request.all)
        if request.signal == signal.SIGKILL and self._status == msg.TaskStatus.PAUSED:
            self._status = msg.TaskStatus.RUNNING

    def _resize(self, request: msg.Resize) -> None:
        if request.exec_id is None:
            self._window = request.window
        if not self._running(request.exec_id).streams.resize(request.window):
            raise InvalidArgument("cannot resize: the process has no terminal")

    def _delete(self, request: msg.Delete) -> None:
        if request.exec_id is None:
            if self._task is not None:
                raise Conflict(f"container {self._create.id} is running")
            return
        running = self._execs.get(request.exec_id)
        if running is not None and running.exited is None:
            raise Conflict(f"exec {request.exec_id} is running")
        self._execs.pop(request.exec_id, None)

    # --- The end ----------------------------------------------------------------------------------

    def _shutdown(self, request: msg.Shutdown) -> None:
        if self._task is not None or self._restart_timer is not None:
            if not request.now:
                raise Conflict(f"container {self._create.id} is running")
            if self._restart_timer is not None:
                self._restart_timer.cancel()
            if self._task is not None:
                delete_quietly(self._task.container)
        self._shut_down()

    def _shut_down(self) -> None:
        """End the loop when the clients have everything, or after a while."""
        if self._shutting_down:
            return
        self._shutting_down = True
        self._deadline = time.monotonic() + _LINGER
        self._end_when_flushed()

    def _end_when_flushed(self) -> None:
        waiting = any(each.streams.clients for each in self._execs.values())
        waiting = waiting or bool(self._last_streams and self._last_streams.clients) or self._log.pending
        if waiting and time.monotonic() < self._deadline:
            self._loop.later(0.005, self._end_when_flushed)
        else:
            self._loop.running = False

    def _clean_up(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._create.run_dir}/shim.sock")
        self._log.close()


def _stats(task: Task) -> msg.StatsTaken:
    counters = task.container.stats()
    shown = set(msg.StatsTaken.__struct_fields__) & set(counters.__struct_fields__) - {"blkio"}
    values = {name: getattr(counters, name) for name in shown}
    blkio = tuple(
        msg.BlockIO(
            major=each.major, minor=each.minor, operation=each.operation, bytes=each.bytes, count=each.count
        )
        for each in counters.blkio
    )  # fmt: skip
    return msg.StatsTaken(read_at=time.time_ns(), blkio=blkio, **values)


def main(spawner: socket.socket, ahead: bool) -> None:
    """The shim's life, in the process that the spawner has just forked: wait for the Spawn, and supervise.

    `ahead`: there is time until it comes. `spawner` is closed when the container has started.
    """
    os.setsid()
    process.set_name("sampan-shim")
    process.become_subreaper()
    maker = fork_maker() if ahead else None
    with spawner:
        received = framing.receive(spawner)
        if received is None and maker is not None:  # The spawner ends, and nobody else may reap them.
            maker.dismiss()
            _reap_all()
        supervisor = _started(*received, maker) if received else None
    if supervisor is not None:
        supervisor.run()


def _reap_all() -> None:
    """Wait for all children, who are about to end."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _started(envelope: msg.Envelope, descriptors: list[int], maker: Maker | None) -> Supervisor | None:
    """The supervisor of the container that the Spawn tells of; None if that could not be started."""
    spawn = envelope.body
    assert isinstance(spawn, msg.Spawn)
    create = spawn.create
    control = socket.socket(fileno=descriptors[0])
    try:
        attached = 1 + len(create.attachments)
        if len(descriptors) != attached + create.held:
            raise InvalidArgument("spawn: descriptors do not match")
        supervisor = Supervisor(create, control, descriptors[attached:], maker)
    except (SampanError, OSError) as error:
        message = error.message if isinstance(error, SampanError) else str(error)
        failure = msg.Failure(kind="Internal", message=message)
        framing.send(control, msg.Envelope(envelope.number, failure))
        return None
    attachments = list(zip(descriptors[1:attached], create.attachments, strict=True))
    return supervisor if supervisor.start(envelope.number, spawn.start, attachments) else None
