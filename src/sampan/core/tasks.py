"""The engine's side of spawner and shims: asyncio here, and one process each over there.

::

    engine ──▶ spawner          exec of a sealed copy of the interpreter; a socket pair
       │          │ fork
       └───────▶ shim           the control connection that came with the Spawn, or shim.sock after a restart

Calls are answered in any order; events come on the same connection. When the connection ends, every call that waits
fails with Unavailable, and `on_lost` is called once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

import sampan
from sampan.errors import DataCorrupt, Internal, Unavailable, from_kind
from sampan.faults import inherited
from sampan.linux.process import TITLE_ROOM
from sampan.linux.sealed import sealed_copy
from sampan.oci.runtime import LinuxResources
from sampan.shimapi import framing
from sampan.shimapi import messages as msg

R = TypeVar("R")
OnEvent = Callable[[msg.Event], None]
OnLost = Callable[[], None]


class _Channel:
    """A connection with numbered calls. Writes go out at once: the peers always read, and messages are small."""

    def __init__(self, connection: socket.socket, on_event: OnEvent | None, on_lost: OnLost) -> None:
        connection.setblocking(True)
        self._socket = connection
        self._inbox = framing.Inbox()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[msg.Reply, list[int]]]] = {}
        self._on_event = on_event
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._readable)

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def next_number(self) -> int:
        return next(self._numbers)

    def expect(self, number: int) -> asyncio.Future[tuple[msg.Reply, list[int]]]:
        """The answer to call `number`, to come."""
        future: asyncio.Future[tuple[msg.Reply, list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        return future

    def send(self, envelope: msg.Envelope, descriptors: Sequence[int] = ()) -> None:
        """Raises Unavailable when the peer is gone."""
        try:
            framing.send(self._socket, envelope, descriptors)
        except OSError as error:
            self.lose()
            raise Unavailable(f"the shim does not answer: {(error.strerror or '').lower()}") from error

    async def call(self, body: msg.ShimRequest | msg.SpawnerRequest, descriptors: Sequence[int] = ()) -> msg.Reply:
        reply, received = await self.call_with_descriptors(body, descriptors)
        framing.close_all(received)
        return reply

    async def call_with_descriptors(
        self, body: msg.ShimRequest | msg.SpawnerRequest, descriptors: Sequence[int] = ()
    ) -> tuple[msg.Reply, list[int]]:
        """The reply and its descriptors. Raises what the other side answered, or Unavailable."""
        number = self.next_number()
        future = self.expect(number)
        try:
            self.send(msg.Envelope(number, body), descriptors)
            return await future
        finally:
            self._waiting.pop(number, None)

    def _readable(self) -> None:
        try:
            more = self._inbox.read(self._socket)
            for envelope, descriptors in self._inbox.envelopes():
                self._deliver(envelope, descriptors)
        except (OSError, DataCorrupt):
            more = False
        if not more:
            self.lose()

    def _deliver(self, envelope: msg.Envelope, descriptors: list[int]) -> None:
        if envelope.number == 0:
            framing.close_all(descriptors)
            if self._on_event is not None:
                self._on_event(envelope.body)  # type: ignore[arg-type]
            return
        future = self._waiting.pop(envelope.number, None)
        if future is None or future.done():
            framing.close_all(descriptors)
        elif isinstance(envelope.body, msg.Failure):
            future.set_exception(from_kind(envelope.body.kind, envelope.body.message))
        else:
            future.set_result((envelope.body, descriptors))  # type: ignore[arg-type]

    def lose(self) -> None:
        """The peer has gone."""
        if not self.is_open:
            return
        self.close()
        self._on_lost()

    def close(self) -> None:
        """Drop the connection; `on_lost` is not called."""
        if not self.is_open:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._inbox.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the shim has gone"))
        self._waiting.clear()


class Task:
    """A shim, and through it the container's process. `pid` is 0 while there is none."""

    def __init__(self, channel: _Channel, state: msg.TaskState) -> None:
        self._channel = channel
        self.initial = state
        self.pid = state.pid
        self.started_at = state.started_at

    @classmethod
    async def connect(cls, run_dir: str, on_event: OnEvent, on_lost: OnLost) -> Task:
        """The shim that lives in `run_dir`. Raises Unavailable when none does."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(f"{run_dir}/shim.sock")
        except OSError as error:
            connection.close()
            raise Unavailable(f"no shim in {run_dir}: {(error.strerror or '').lower()}") from error
        channel = _Channel(connection, on_event, on_lost)
        try:
            state = _as(await channel.call(msg.Connect()), msg.TaskState)
        except BaseException:
            channel.close()
            raise
        return cls(channel, state)

    @property
    def is_open(self) -> bool:
        return self._channel.is_open

    async def start(self) -> msg.Started:
        started = _as(await self._channel.call(msg.Start()), msg.Started)
        self.started_at = started.started_at
        return started

    async def exec(self, request: msg.Exec, attachments: Sequence[int] = ()) -> msg.ExecStarted:
        """Run one more process. The descriptors are closed here, whatever comes of it."""
        try:
            return _as(await self._channel.call(request, attachments), msg.ExecStarted)
        finally:
            framing.close_all(attachments)

    async def attach(self, attachment: msg.Attachment, descriptor: int, exec_id: str | None = None) -> None:
        """Hand over a client's connection, which is closed here, whatever comes of it."""
        try:
            await self._done(msg.Attach(attachment=attachment, exec_id=exec_id), [descriptor])
        finally:
            os.close(descriptor)

    async def resize(self, window: msg.WindowSize, exec_id: str | None = None) -> None:
        await self._done(msg.Resize(window=window, exec_id=exec_id))

    async def close_io(self, exec_id: str | None = None) -> None:
        await self._done(msg.CloseIO(exec_id=exec_id))

    async def kill(self, signal: int, *, all: bool = False, stop: bool = False, exec_id: str | None = None) -> None:  # noqa: A002
        await self._done(msg.Kill(signal=signal, all=all, stop=stop, exec_id=exec_id))

    async def pause(self) -> None:
        await self._done(msg.Pause())

    async def resume(self) -> None:
        await self._done(msg.Resume())

    async def update(self, resources: LinuxResources | None = None, restart: msg.RestartPolicy | None = None) -> None:
        await self._done(msg.Update(resources=resources, restart=restart))

    async def hold(self, descriptors: Sequence[int], released: Sequence[tuple[str, str, int]]) -> None:
        """Have the shim keep these open (they stay the caller's too), and let go of what is bound to those places."""
        await self._done(msg.Hold(released=tuple(released)), descriptors)

    async def stats(self) -> msg.StatsTaken:
        return _as(await self._channel.call(msg.Stats()), msg.StatsTaken)

    async def pids(self) -> tuple[int, ...]:
        return _as(await self._channel.call(msg.Pids()), msg.PidList).pids

    async def state(self) -> msg.TaskState:
        return _as(await self._channel.call(msg.State()), msg.TaskState)

    async def wait(self) -> msg.Exited:
        """The end of the container, for good."""
        return _as(await self._channel.call(msg.Wait()), msg.Exited)

    async def wait_exec(self, exec_id: str) -> msg.ExecExited:
        return _as(await self._channel.call(msg.Wait(exec_id=exec_id)), msg.ExecExited)

    async def delete_exec(self, exec_id: str) -> None:
        await self._done(msg.Delete(exec_id=exec_id))

    async def shutdown(self, now: bool = False) -> None:
        """End the shim. `on_lost` is not called for it."""
        try:
            await self._done(msg.Shutdown(now=now))
        finally:
            self.close()

    def close(self) -> None:
        """Drop the connection; the shim lives on."""
        self._channel.close()

    async def _done(self, body: msg.ShimRequest, descriptors: Sequence[int] = ()) -> None:
        _as(await self._channel.call(body, descriptors), msg.Done)


class Spawner:
    """The process that shims are forked from; started again when it has died."""

    def __init__(self, log: int | None) -> None:
        self._log = log
        self._channel: _Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self.pid = 0

    @classmethod
    async def start(cls, *, log: int | None = None) -> Spawner:
        """`log`: a descriptor for what the spawner and the shims say in an emergency; None: this process's stderr."""
        spawner = cls(log)
        await spawner._alive()
        return spawner

    async def _alive(self) -> _Channel:
        async with self._starting:
            if self._channel is None or not self._channel.is_open:
                self._channel = await self._exec()
            return self._channel

    async def _exec(self) -> _Channel:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        sealed = sealed_copy(sys.executable)
        code = (
            f"import sys; sys.path[:0] = {_import_path()!r}; "
            "from sampan.linux.lean import leave_out; leave_out(); "
            f"from sampan.shim.spawner import main; main({theirs.fileno()})"
        )
        try:
            # A session of its own: what ends the engine from a terminal (SIGINT, SIGHUP) is not for the spawner.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", code, TITLE_ROOM, executable=f"/proc/self/fd/{sealed}",
                pass_fds=(theirs.fileno(), sealed), stdin=asyncio.subprocess.DEVNULL, stdout=self._log,
                stderr=self._log, start_new_session=True, cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8", **inherited()},
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise Internal(f"start the spawner: {(error.strerror or str(error)).lower()}") from error
        finally:
            theirs.close()
            os.close(sealed)
        self.pid = self._process.pid
        return _Channel(ours, None, lambda: None)

    async def spawn(
        self,
        spawn: msg.Spawn,
        *,
        attachments: Sequence[int] = (),
        held: Sequence[int] = (),
        on_event: OnEvent,
        on_lost: OnLost,
    ) -> Task:
        """Fork a shim; returns when the container is created, or started if `spawn.start`.

        The descriptors are closed here, whatever comes of it. Raises what the shim answers, Unavailable when it died.
        """
        try:
            channel = await self._alive()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            control = _Channel(ours, on_event, on_lost)
            number = control.next_number()
            future = control.expect(number)
            try:
                with theirs:
                    channel.send(msg.Envelope(number, spawn), [theirs.fileno(), *attachments, *held])
                reply, _ = await future
            except BaseException:
                control.close()
                future.cancel()
                raise
        finally:
            framing.close_all([*attachments, *held])
        started_at = reply.started_at if isinstance(reply, msg.Started) else 0
        pid = reply.pid if isinstance(reply, msg.Started | msg.Created) else 0
        status = msg.TaskStatus.RUNNING if spawn.start else msg.TaskStatus.CREATED
        return Task(control, msg.TaskState(id=spawn.create.id, status=status, pid=pid, started_at=started_at))

    async def open_netns(self, path: str) -> int:
        """Make a network namespace, pinned at `path`; returns a netlink socket inside it, the caller's to close."""
        return await self._netlink(msg.OpenNetns(path=path))

    async def enter_netns(self, path: str) -> int:
        """A netlink socket inside the namespace that is pinned at `path`."""
        return await self._netlink(msg.EnterNetns(path=path))

    async def open_names(self, path: str) -> list[int]:
        """What the resolver listens by inside that namespace: UDP, TCP, and a netfilter socket; the caller's."""
        channel = await self._alive()
        _, descriptors = await channel.call_with_descriptors(msg.OpenNames(path=path))
        if len(descriptors) != 3:
            framing.close_all(descriptors)
            raise Internal(f"network namespace {path}: no sockets came back")
        return descriptors

    async def start_names(self, listener: int) -> None:
        """Have the resolver serve whoever connects to the listening socket, which stays the caller's."""
        channel = await self._alive()
        _as(await channel.call(msg.StartNames(), [listener]), msg.Done)

    async def clean_up(self, request: msg.CleanUp) -> None:
        """Have a runtime forget a container whose shim has died. Raises what the runtime says."""
        channel = await self._alive()
        _as(await channel.call(request), msg.Done)

    async def _netlink(self, request: msg.OpenNetns | msg.EnterNetns) -> int:
        channel = await self._alive()
        _, descriptors = await channel.call_with_descriptors(request)
        if len(descriptors) != 1:
            framing.close_all(descriptors)
            raise Internal(f"network namespace {request.path}: no socket came back")
        return descriptors[0]

    async def close(self) -> None:
        """End the spawner; the shims live on."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 5)


def _as(reply: msg.Reply, kind: type[R]) -> R:
    if not isinstance(reply, kind):
        raise Internal(f"the shim answered {type(reply).__name__} instead of {kind.__name__}")
    return reply


def _import_path() -> list[str]:
    """Where this program and its libraries are: the isolated interpreter looks into no site directory by itself."""
    places = (os.path.dirname(os.path.dirname(module.__file__)) for module in (sampan, msgspec) if module.__file__)
    return list(dict.fromkeys(places))
