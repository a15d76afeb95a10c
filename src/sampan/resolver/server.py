"""The resolver's process: one loop for datagrams and the engine, and a thread for each TCP connection, which are rare.

It has no privilege: its sockets were opened by others, and it reads what anybody in a container may send. Nothing is
imported once it has given its privileges up, as it may not be able to read the interpreter's files any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from sampan.linux import process
from sampan.resolver import control, message, upstream
from sampan.resolver.message import Malformed, Query
from sampan.resolver.opener import Opener
from sampan.resolver.upstream import HostServers, ask_by_stream, connect, read_message
from sampan.resolver.zone import Zone, answer

_NOBODY = 65534
_PATIENCE = 2.0
"""Seconds for one server to answer."""
_MOST_PENDING = 256
"""Questions of one sandbox that wait for others; what comes beyond is not answered, and asked again."""
_MOST_STREAMS = 16
_STREAM_TIMEOUT = 10.0
_BURST = 64
"""Datagrams of one sandbox that are looked at before the others' turn."""
_DATAGRAM = 65535
_SOCKETS = 3
"""Descriptors that come with a sandbox: datagrams, streams, its namespace; after them, what its shim holds."""
_FIRST_WORD = 30.0
"""Seconds that the engine which has had this process made may take to connect."""


class _Sandbox:
    """`life`: readable when its shim is gone."""

    def __init__(self, serve: control.Serve, descriptors: list[int], open_inside: Callable[..., socket.socket]) -> None:
        self.serve = serve
        self.datagrams, self.streams = (socket.socket(fileno=each) for each in descriptors[:2])
        self.namespace = descriptors[2]
        self.life = socket.socket(fileno=descriptors[_SOCKETS]) if len(descriptors) > _SOCKETS else None
        self.over = False
        self.pending = 0
        self.open_streams = 0
        self.lock = threading.RLock()
        self._open_inside = open_inside

    def opened(self, family: int, kind: int) -> socket.socket:
        """A socket to ask others by."""
        if not self.serve.servers:
            return upstream.on_host(family, kind)
        with self.lock:
            if self.namespace < 0:
                raise OSError(errno.ESHUTDOWN, "the sandbox is gone")
            return self._open_inside(self.namespace, family, kind)

    def leave(self) -> None:
        """Its number may be another's afterwards, so nobody may be using it."""
        with self.lock:
            os.close(self.namespace)
            self.namespace = -1


class _Pending:
    """A question that others were asked: `left` are those who were not yet; `failure` is what one of them said."""

    def __init__(
        self, sandbox: _Sandbox, client: tuple[str, int], data: bytes, query: Query, left: list[upstream.Server]
    ) -> None:
        self.sandbox, self.client, self.data, self.query, self.left = sandbox, client, data, query, left
        self.failure = b""
        self.number = 0
        self.deadline = 0.0
        self.asking: socket.socket | None = None


class Server:
    """Serves sandboxes, until there are none and no engine is connected."""

    def __init__(self, listener: socket.socket, opener: Opener, servers: HostServers | None = None) -> None:
        """`listener`: where the engine connects."""
        self._listener = listener
        self._opener = opener
        self._servers = servers or HostServers()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._zone = Zone()
        self._sandboxes: dict[str, _Sandbox] = {}
        self._pending: dict[int, _Pending] = {}
        self._engine: socket.socket | None = None
        self._watch(listener, self._connected)

    def run(self) -> None:
        """Until the end."""
        begun = time.monotonic()
        waited_for = True
        while self._engine is not None or self._sandboxes or (waited_for and time.monotonic() < begun + _FIRST_WORD):
            ready = [descriptor for descriptor, _ in self._epoll.poll(self._wait())]
            # The engine first: who asks may just have been announced.
            if self._engine is not None and self._engine.fileno() in ready:
                self._heard(self._engine)
            for descriptor in ready:
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    self._safely(handler)
            self._safely(self._expire)
            waited_for = waited_for and self._engine is None

    def _safely(self, handler: Callable[[], None]) -> None:
        """A fault in one answer must not take the names from everybody."""
        try:
            handler()
        except Exception:
            sys.excepthook(*sys.exc_info())

    def _wait(self) -> float:
        if self._pending:
            return max(0.0, min(each.deadline for each in self._pending.values()) - time.monotonic())
        return -1 if self._sandboxes or self._engine is not None else 1.0

    def _watch(self, watched: socket.socket, handler: Callable[[], None]) -> None:
        watched.setblocking(False)
        self._handlers[watched.fileno()] = handler
        self._epoll.register(watched, select.EPOLLIN)

    def _close(self, watched: socket.socket) -> None:
        if self._handlers.pop(watched.fileno(), None) is not None:
            self._epoll.unregister(watched)
        watched.close()

    # --- The engine -------------------------------------------------------------------------------

    def _connected(self) -> None:
        try:
            connection = self._listener.accept()[0]
        except OSError:
            return
        if self._engine is not None:  # Its former self is gone, or will be.
            self._close(self._engine)
        self._engine = connection
        self._watch(connection, partial(self._heard, connection))
        with contextlib.suppress(OSError):
            control.send(connection, control.Serving(sandboxes=tuple(self._sandboxes)))

    def _heard(self, engine: socket.socket) -> None:
        while self._engine is engine:
            try:
                received = control.receive(engine)
            except BlockingIOError:
                return
            except (OSError, msgspec.DecodeError):
                received = None
            if received is None:
                self._close(engine)
                self._engine = None
                for name in [name for name, each in self._sandboxes.items() if each.over]:
                    self._stop(name)
                return
            self._obey(*received)

    def _obey(self, said: control.AnyMessage, descriptors: list[int]) -> None:
        match said:
            case control.Serve():
                self._serve(said, descriptors)
            case control.Stop():
                self._stop(said.sandbox)
            case control.Settle():
                for name in set(self._sandboxes) - set(said.sandboxes):
                    self._stop(name)

    def _serve(self, said: control.Serve, descriptors: list[int]) -> None:
        known = self._sandboxes.get(said.sandbox)
        if len(descriptors) >= _SOCKETS:
            if known is not None:
                self._stop(said.sandbox)
            made = self._sandboxes[said.sandbox] = _Sandbox(said, descriptors, self._opener.open)
            self._watch(made.datagrams, lambda: self._datagrams(made))
            self._watch(made.streams, lambda: self._stream(made))
            if made.life is not None:
                self._watch(made.life, lambda: self._over(made))
        elif known is not None:
            known.serve = said
        else:  # It was stopped meanwhile.
            return
        self._zone.put(said.sandbox, said.places)

    def _over(self, sandbox: _Sandbox) -> None:
        """Its shim has ended. The engine says what becomes of the sandbox; while there is none, it is stopped."""
        if sandbox.life is None:
            return
        try:
            if sandbox.life.recv(1):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(sandbox.life)
        sandbox.life, sandbox.over = None, True
        if self._engine is None:
            self._stop(sandbox.serve.sandbox)

    def _stop(self, name: str) -> None:
        self._zone.remove(name)
        sandbox = self._sandboxes.pop(name, None)
        if sandbox is None:
            return
        for each in [each for each in self._pending.values() if each.sandbox is sandbox]:
            self._settle(each)
        for watched in (sandbox.datagrams, sandbox.streams, sandbox.life):
            if watched is not None:
                self._close(watched)
        sandbox.leave()

    # --- Datagrams --------------------------------------------------------------------------------

    def _datagrams(self, sandbox: _Sandbox) -> None:
        for number in range(_BURST):
            try:
                data, client = sandbox.datagrams.recvfrom(_DATAGRAM)
            except OSError:  # Nothing more; or word that an earlier answer found nobody.
                return
            if number and self._engine is not None:
                # It may have come since the last look, and what the engine said before it must be known to its answer.
                self._heard(self._engine)
                if sandbox.datagrams.fileno() < 0:
                    return
            self._asked(sandbox, data, client)

    def _asked(self, sandbox: _Sandbox, data: bytes, client: tuple[str, int]) -> None:
        try:
            query = message.parse(data)
        except Malformed as error:
            if error.answer:
                _say(sandbox, error.answer, client)
            return
        known = answer(self._zone, sandbox.serve, query)
        if known is not None:
            _say(sandbox, known, client)
        elif sandbox.pending < _MOST_PENDING:
            self._ask(_Pending(sandbox, client, data, query, self._others(sandbox)))

    def _others(self, sandbox: _Sandbox) -> list[upstream.Server]:
        serve = sandbox.serve
        if serve.servers:
            return [upstream.Server(each) for each in serve.servers]
        return list(self._servers.current()) if serve.forward else []

    def _ask(self, waiting: _Pending) -> None:
        """The next of those who are left; when none is, say so."""
        while waiting.left:
            server = waiting.left.pop(0)
            waiting.number = int.from_bytes(os.urandom(2), "big")
            asking: socket.socket | None = None
            try:
                asking = connect(server, socket.SOCK_DGRAM, waiting.sandbox.opened)
                asking.send(message.renumbered(waiting.data, waiting.number))
            except OSError:
                if asking is not None:
                    asking.close()
                continue
            waiting.asking, waiting.deadline = asking, time.monotonic() + _PATIENCE
            waiting.sandbox.pending += 1
            self._pending[asking.fileno()] = waiting
            self._watch(asking, lambda: self._answered(waiting))
            return
        said = waiting.failure or message.reply(waiting.query, code=message.SERVER_FAILURE)
        _say(waiting.sandbox, said, waiting.client)

    def _answered(self, waiting: _Pending) -> None:
        assert waiting.asking is not None
        try:
            data = waiting.asking.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:  # Nobody is there.
            self._settle(waiting)
            self._ask(waiting)
            return
        if len(data) < message.SHORTEST or int.from_bytes(data[:2], "big") != waiting.number or not data[2] & 0x80:
            return
        self._settle(waiting)
        said = message.renumbered(data, waiting.query.number)
        if message.failed(data) and waiting.left:
            waiting.failure = said
            self._ask(waiting)
        else:
            _say(waiting.sandbox, said, waiting.client)

    def _settle(self, waiting: _Pending) -> None:
        if waiting.asking is not None:
            del self._pending[waiting.asking.fileno()]
            waiting.sandbox.pending -= 1
            self._close(waiting.asking)
            waiting.asking = None

    def _expire(self) -> None:
        if self._pending:
            now = time.monotonic()
            for waiting in [each for each in self._pending.values() if each.deadline <= now]:
                self._settle(waiting)
                self._ask(waiting)

    # --- Streams ----------------------------------------------------------------------------------

    def _stream(self, sandbox: _Sandbox) -> None:
        try:
            connection = sandbox.streams.accept()[0]
        except OSError:
            return
        with sandbox.lock:
            if sandbox.open_streams >= _MOST_STREAMS:
                connection.close()
                return
            sandbox.open_streams += 1
        threading.Thread(target=self._converse, args=(sandbox, connection), daemon=True).start()

    def _converse(self, sandbox: _Sandbox, connection: socket.socket) -> None:
        """In a thread: question by question, until the other side has no more."""
        try:
            with connection:
                connection.settimeout(_STREAM_TIMEOUT)
                while True:
                    said = self._answer_by_stream(sandbox, read_message(connection))
                    if said:
                        connection.sendall(len(said).to_bytes(2, "big") + said)
        except OSError:
            return
        finally:
            with sandbox.lock:
                sandbox.open_streams -= 1

    def _answer_by_stream(self, sandbox: _Sandbox, data: bytes) -> bytes:
        try:
            query = message.parse(data)
        except Malformed as error:
            return error.answer
        known = answer(self._zone, sandbox.serve, query, stream=True)
        if known is not None:
            return known
        others = ask_by_stream(self._others(sandbox), data, sandbox.opened, _PATIENCE)
        return others or message.reply(query, code=message.SERVER_FAILURE, stream=True)


def _say(sandbox: _Sandbox, data: bytes, client: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # It has not waited, its namespace is going, or the queue is full.
        sandbox.datagrams.sendto(data, client)


def main(listener: socket.socket) -> None:
    """Serve the engine that connects to the listening socket, and the one that comes after it."""
    process.set_name("sampan-names")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        # The engine's terminal or supervisor must not end it: containers rely on it.
        signal.signal(number, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opener = Opener()
    _drop_privileges()
    Server(listener, opener).run()


def _drop_privileges() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
