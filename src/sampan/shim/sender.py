"""A connection to a log service of the machine's, by datagrams or by a stream.

What the service does not take yet waits here, up to a limit: then the container is held up, or, where that was asked
for, what comes is dropped. A connection that breaks is made again, and what was not sent whole is sent again. ::

    connecting ──▶ (shaking hands: TLS) ──▶ ready ──▶ broken, for a while ──▶ connecting …
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sampan.shim.loop import HANGUP, READ, WRITE, Loop, Timer

if TYPE_CHECKING:
    import ssl

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
_PATIENCE = 10.0
"""Seconds for the first connection, which the container's start waits for."""
_PIECE = 1 << 16
_IN_KERNEL = 1 << 17


class Place(msgspec.Struct, frozen=True):
    """A socket's address, as the socket module has it. `context`: TLS, for the name."""

    family: int
    kind: int
    address: str | tuple[object, ...]
    context: ssl.SSLContext | None = None
    name: str = ""

    @property
    def is_stream(self) -> bool:
        return self.kind == socket.SOCK_STREAM

    def socket(self) -> socket.socket:
        made = socket.socket(self.family, self.kind | socket.SOCK_CLOEXEC)
        if self.is_stream:  # What the kernel has taken is lost when the connection breaks.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _IN_KERNEL)
        if self.context is None:
            return made
        return self.context.wrap_socket(made, server_hostname=self.name, do_handshake_on_connect=False)


class Sender:
    """`full`: nothing should be given to it until `on_room` is called."""

    def __init__(self, loop: Loop, place: Place, limit: int, *, lossy: bool, on_room: Callable[[], None]) -> None:
        """Connects, and waits for that. Raises OSError."""
        self._loop = loop
        self._place = place
        self._limit = limit
        self._lossy = lossy
        self._on_room = on_room
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._sent = 0
        """Bytes of the first message that a stream has taken."""
        self._failures = 0
        self._retry: Timer | None = None
        self._socket: socket.socket | None = place.socket()
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.connect(place.address)
            if place.context is not None:
                self._socket.do_handshake()  # type: ignore[attr-defined]
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._next: Callable[[], None] | None = None
        """The step that stands between here and sending; None: none does."""
        self._watch()

    @property
    def full(self) -> bool:
        return not self._lossy and self._waiting > self._limit

    @property
    def pending(self) -> bool:
        return self._waiting > 0

    def give(self, message: bytes) -> None:
        """Send a message, or keep it, or drop it. To be followed by `flush`."""
        if self._lossy and self._waiting + len(message) > self._limit:
            return
        self._queue.append(message)
        self._waiting += len(message)

    def flush(self) -> None:
        """Send what can be sent now."""
        if self._socket is None or self._next is not None:
            return
        was_full = self.full
        try:
            self._send_streamed() if self._place.is_stream else self._send_datagrams()
        except OSError as error:
            if not _again(error):
                self._break()
                return
        self._watch()
        if was_full and not self.full:
            self._on_room()

    def _send_streamed(self) -> None:
        assert self._socket is not None
        while self._queue:
            taken: list[bytes] = [self._queue[0][self._sent :]]
            size = len(taken[0])
            for message in self._queue:
                if size >= _PIECE:
                    break
                if message is not self._queue[0]:
                    taken.append(message)
                    size += len(message)
            self._forget_sent(self._socket.send(b"".join(taken)))

    def _forget_sent(self, size: int) -> None:
        size += self._sent
        while self._queue and size >= len(self._queue[0]):
            size -= len(self._queue[0])
            self._waiting -= len(self._queue.popleft())
        self._sent = size

    def _send_datagrams(self) -> None:
        assert self._socket is not None
        while self._queue:
            try:
                self._socket.send(self._queue[0], socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno == errno.ECONNREFUSED and self._place.family != socket.AF_UNIX:
                    continue  # Nobody took an earlier one, which is how UDP is; this one has not been sent.
                if error.errno != errno.EMSGSIZE:
                    raise
            self._waiting -= len(self._queue.popleft())

    # --- The connection ---------------------------------------------------------------------------

    def _watch(self) -> None:
        assert self._socket is not None
        # A stream's end is told by its being readable: what is sent after it would be lost.
        events = READ if self._place.is_stream else 0
        if self._queue:
            events |= WRITE
        self._loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if self._next is not None:
            self._step()
            return
        if self._place.is_stream and events & (READ | HANGUP) and not self._still_there():
            self._break()
            return
        if events & WRITE or self._place.context is not None:
            self.flush()
        elif events & HANGUP and self._place.family == socket.AF_UNIX:
            self._break()
        elif events & HANGUP and self._socket is not None:
            # Nobody took a datagram. The next one may find somebody.
            self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _still_there(self) -> bool:
        """Reads what a service may say, which is nothing, or the end."""
        assert self._socket is not None
        try:
            return bool(self._socket.recv(_PIECE))
        except OSError as error:
            return _again(error)

    def _break(self) -> None:
        """Close, and try again later: the first message is sent from its start then."""
        self._drop_socket()
        self._sent = 0
        wait = min(_FIRST_WAIT * 2**self._failures, _LONGEST_WAIT)
        self._failures = min(self._failures + 1, 16)
        self._retry = self._loop.later(wait, self._connect)

    def _connect(self) -> None:
        self._retry = None
        try:
            self._socket = self._place.socket()
            self._socket.setblocking(False)
            code = self._socket.connect_ex(self._place.address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError:
            self._break()
            return
        self._next = self._connected
        self._loop.watch(self._socket.fileno(), WRITE, self._ready)

    def _step(self) -> None:
        assert self._socket is not None and self._next is not None
        try:
            self._next()
        except OSError as error:
            if not _again(error):
                self._break()
            else:
                self._loop.watch(self._socket.fileno(), _wanted(error), self._ready)

    def _connected(self) -> None:
        assert self._socket is not None
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if self._place.context is not None:
            self._next = self._shake_hands
            self._shake_hands()
        else:
            self._stand()

    def _shake_hands(self) -> None:
        self._socket.do_handshake()  # type: ignore[union-attr]
        self._stand()

    def _stand(self) -> None:
        self._next = None
        self._failures = 0
        self.flush()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        self._next = None

    def close(self) -> None:
        """What waits is lost."""
        if self._retry is not None:
            self._retry.cancel()
        with contextlib.suppress(OSError):
            self._drop_socket()


def _again(error: OSError) -> bool:
    """Whether it is only not ready."""
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _wanted(error: OSError) -> int:
    return READ if type(error).__name__ == "SSLWantReadError" else WRITE
