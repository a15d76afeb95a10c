"""The conversation between the parent and the process that becomes the container's.

One socket pair, one datagram a message; the child's end is closed by its execve::

    parent                                child
      │ clone ─────────────────────────────▶ │ cgroup, namespaces, mounts, limits, identity
      │ ── MAPPED ─────────────────────────▶ │ only with a user namespace of its own
      │ ◀───────────── READY (pty master) ── │
      │ ── START ──────────────────────────▶ │ execve
      │ ◀─────────────────── end of file ─── │   (it runs)

At any point the child may send FAILED with an error instead, and exit. An exec's process waits for no
START, and says READY only to hand over its terminal. A midwife (see `birth`) says BORN, with a pid and its pidfd.
"""

from __future__ import annotations

import array
import os
import socket

import msgspec

from sampan.errors import Internal, SampanError, from_kind, kind_of

MAPPED = b"m"
BORN = b"b"
READY = b"r"
START = b"s"
_FAILED = b"e"
_SIZE = 65536


class _Failed(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    message: str


def pair() -> tuple[socket.socket, socket.socket]:
    """The parent's and the child's end; both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(connection: socket.socket, message: bytes, descriptor: int | None = None) -> None:
    """One message, with a descriptor if there is one. OSError when the other side is gone."""
    ancillary = []
    if descriptor is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    connection.sendmsg([message], ancillary, socket.MSG_NOSIGNAL)


def send_failure(connection: socket.socket, error: BaseException) -> None:
    """Tell the parent, as far as it still listens."""
    text = error.message if isinstance(error, SampanError) else (str(error) or type(error).__name__)
    body = msgspec.msgpack.encode(_Failed(kind_of(error), text[:4096]))
    try:
        send(connection, _FAILED + body)
    except OSError:
        return


def receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """One message and the descriptor that came along. Empty: the other side closed its end.

    Raises the error that the other side sent.
    """
    message, ancillary, _, _ = connection.recvmsg(_SIZE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    descriptor = None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(data) >= 4:
            descriptor = array.array("i", data[:4])[0]
    if message[:1] == _FAILED:
        if descriptor is not None:
            os.close(descriptor)
        failed = msgspec.msgpack.decode(message[1:], type=_Failed)
        raise from_kind(failed.kind, failed.message)
    return message, descriptor


def expect(connection: socket.socket, wanted: bytes) -> int | None:
    """Receive one message, which must be `wanted`; returns its descriptor. Raises Internal when the peer is gone."""
    message, descriptor = receive(connection)
    if message != wanted:
        raise Internal("the process died while its container was being set up" if not message else "protocol error")
    return descriptor
