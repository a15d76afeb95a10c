"""The engine's connections to the shim: any number, the first of which came with the container's creation."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

from sampan.errors import DataCorrupt, SampanError, kind_of
from sampan.shim.loop import HANGUP, READ, WRITE, Loop
from sampan.shimapi import framing
from sampan.shimapi.messages import Envelope, Event, Failure, Reply, ShimRequest

_MAX_UNREAD = 4 << 20

Handler = Callable[["Connection", int, ShimRequest, list[int]], Reply | None]
"""Answers a request; None: later, by `Connection.answer`. The descriptors are the handler's."""


class Connection:
    """One engine. What it does not read is kept up to a limit; then it is taken for dead."""

    def __init__(self, loop: Loop, connection: socket.socket, handler: Handler, on_close: Callable[[], None]) -> None:
        self.subscribed = False
        self._loop = loop
        self._socket = connection
        self._handler = handler
        self._on_close = on_close
        self._inbox = framing.Inbox()
        self._output = bytearray()
        connection.setblocking(False)
        loop.watch(connection.fileno(), READ, self._ready)

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._flush()
            if events & (READ | HANGUP) and self.is_open:
                if not self._inbox.read(self._socket):
                    self.close()
                    return
                for envelope, descriptors in self._inbox.envelopes():
                    self._handle(envelope, descriptors)
        except BlockingIOError:
            return
        except (OSError, DataCorrupt):
            self.close()

    def _handle(self, envelope: Envelope, descriptors: list[int]) -> None:
        try:
            reply = self._handler(self, envelope.number, envelope.body, descriptors)  # type: ignore[arg-type]
        except (SampanError, OSError) as error:
            framing.close_all(descriptors)
            self.fail(envelope.number, error)
            return
        if reply is not None:
            self.answer(envelope.number, reply)

    def fail(self, number: int, error: BaseException) -> None:
        message = error.message if isinstance(error, SampanError) else str(error)
        self.answer(number, Failure(kind=kind_of(error), message=message))

    def answer(self, number: int, body: Reply | Event) -> None:
        """Send an envelope; number 0 for an event."""
        if not self.is_open:
            return
        self._output += framing.encode(Envelope(number, body))
        if len(self._output) > _MAX_UNREAD:
            self.close()
            return
        try:
            self._flush()
        except OSError:
            self.close()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._output:
                sent = self._socket.send(self._output, socket.MSG_NOSIGNAL)
                del self._output[:sent]
        self._loop.watch(self._socket.fileno(), READ | WRITE if self._output else READ, self._ready)

    def close(self) -> None:
        if not self.is_open:
            return
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._inbox.close()
        self._on_close()


def listen(path: str) -> socket.socket:
    """The shim's socket, for root alone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    umask = os.umask(0o177)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener
