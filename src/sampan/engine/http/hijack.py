"""Taking a connection from the HTTP server, to hand it to a container's shim.

The steps, in the order that loses no byte: pause reading, so that nothing more comes through the parser; write the
head of the answer; duplicate the descriptor; abort the transport, which closes its own descriptor without shutting
the connection down. What had been read past the request goes along.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from dataclasses import dataclass

from sampan.engine.http.connection import Connection
from sampan.engine.http.request import Request
from sampan.errors import Unavailable

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"
_WRITE_TIMEOUT = 10.0
_FRAME = struct.Struct(">BxxxL")


@dataclass(frozen=True)
class Hijacked:
    """A client's connection: a descriptor that is the caller's to close, non-blocking, and its first bytes."""

    fd: int
    received: bytes

    def duplicate(self) -> int:
        """One more descriptor of the connection, the caller's to close."""
        return os.dup(self.fd)

    def say(self, text: str, *, framed: bool) -> None:
        """A last word to the client, on its output as Docker's engine says it; lost if it does not read."""
        data = text.encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            os.write(self.fd, (_FRAME.pack(1, len(data)) if framed else b"") + data)

    def close(self) -> None:
        os.close(self.fd)


def stream_type(request: Request, *, tty: bool) -> str:
    """The Content-Type of a stream: API 1.42 and later tell a multiplexed one by its own name."""
    return MULTIPLEXED_STREAM if not tty and request.api_version >= (1, 42) else RAW_STREAM


async def hijack(request: Request, content_type: str = RAW_STREAM, first: bytes = b"") -> Hijacked:
    """Answer the upgrade (101, or 200 for a client that did not ask for one) and take the connection. `first`: what
    goes out before anything that the taker writes.

    Raises Unavailable when the client has gone.
    """
    transport = request.transport
    protocol = request.protocol
    if transport is None or transport.is_closing() or not isinstance(protocol, Connection):
        raise Unavailable("the client has closed the connection")
    assert isinstance(transport, asyncio.Transport)
    if transport.is_reading():
        transport.pause_reading()
    if "upgrade" in request.headers:
        head = (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )  # fmt: skip
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
    transport.write(head.encode() + first)
    deadline = asyncio.get_running_loop().time() + _WRITE_TIMEOUT
    while transport.get_write_buffer_size() and not transport.is_closing():
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.001)
    if transport.is_closing() or transport.get_write_buffer_size():
        transport.abort()
        raise Unavailable("the client does not read")
    fd = os.dup(transport.get_extra_info("socket").fileno())
    received = bytes(protocol.early)
    protocol.early.clear()
    transport.abort()
    return Hijacked(fd, received)
