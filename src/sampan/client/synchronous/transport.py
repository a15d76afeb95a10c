"""HTTP/1.1 with an engine on sockets: requests, answers, and connections that become streams. Threads may share it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator

from sampan.client.client import has_ended
from sampan.client.http import Host, send
from sampan.client.http import Response as Answer
from sampan.errors import Unavailable

_CHUNK = 1 << 16
_KEPT = 8
"""Connections that wait for the next call."""

Body = bytes | Iterable[bytes] | None


class Connection:
    """A stream in both directions, each of which ends by itself."""

    def __init__(self, connected: socket.socket, first: bytes) -> None:
        self.socket = connected
        self._first = first

    def receive(self) -> bytes:
        """Empty at the end."""
        if self._first:
            data, self._first = self._first, b""
            return data
        try:
            return self.socket.recv(_CHUNK)
        except ConnectionError:
            return b""

    def send(self, data: bytes) -> None:
        """Raises Unavailable when nobody reads."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Unavailable(f"the engine's connection broke: {(error.strerror or '').lower()}") from error

    def end_output(self) -> None:
        """No more comes from here."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class Response:
    """An answer whose body is read as it is wanted. After the whole of it, the connection is the next call's."""

    def __init__(self, transport: Transport, connected: socket.socket, answer: Answer) -> None:
        self._transport = transport
        self._socket = connected
        self._answer = answer
        self._ended = answer.head.length == 0
        self.status = answer.status
        self.headers = answer.headers

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece, as it comes."""
        yield from self._answer.chunks()
        self._ended = self._answer.head.chunked or self._answer.head.length is not None

    def read(self) -> bytes:
        """The whole body, or what is left of it."""
        try:
            return b"".join(self.chunks())
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back, or up where not all was read."""
        if self._ended and self._answer.head.keeps:
            self._transport.give_back(self._socket)
        else:
            self._socket.close()

    def take(self) -> Connection:
        """The connection of an upgraded answer."""
        return Connection(*self._answer.take())


class Transport:
    """Where the engine is, and the connections to it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._idle: list[socket.socket] = []

    def request(self, method: str, target: str, headers: dict[str, str], body: Body) -> Response:
        """Raises Unavailable."""
        connected = self._connection()
        try:
            send(connected, method, target, headers, body)
            answer = Answer(connected, bodiless=method == "HEAD")
        except BaseException:
            connected.close()
            raise
        return Response(self, connected, answer)

    def _connection(self) -> socket.socket:
        while True:
            try:
                connected = self._idle.pop()
            except IndexError:
                return self.host.connect()
            if not has_ended(connected):
                return connected
            connected.close()

    def give_back(self, connected: socket.socket) -> None:
        """It is free for another call."""
        if len(self._idle) < _KEPT:
            self._idle.append(connected)
        else:
            connected.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
