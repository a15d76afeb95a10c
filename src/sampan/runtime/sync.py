"""The conversation between the parent and the process that becomes the container's.

One socket pair, one datagram a message; the child's end is closed by its execve::

    parent                                child
      │ clone ─────────────────────────────▶ │
      │ ── MAPPED ─────────────────────────▶ │ only with a user namespace of its own
      │ ── ORDER (plan; 0, 1 and 2) ───────▶ │ only a newborn; namespaces, mounts
      │ (makes the cgroup meanwhile)         │
      │ ── GROUP (seccomp program, trees) ─▶ │ joins the cgroup; limits, identity
      │ ◀──────────────────────────── HOOKS ─│ only where there are hooks for this point: the mounts are made
      │ (prestart, createRuntime)            │
      │ ── RESUME ─────────────────────────▶ │ createContainer; the change of root
      │ ◀────── LISTENER (its descriptor) ── │ only with a seccomp agent: see `seccomp`
      │ ── LISTENING ──────────────────────▶ │
      │ ◀───────────── READY (pty master) ── │
      │ ── START ──────────────────────────▶ │ startContainer, execve
      │ ◀─────────────────── end of file ─── │   (it runs)

At any point the child may send FAILED with an error instead, and exit. It ends when the parent does. Only a child that
was born before its container was known gets an ORDER (`newborn`); the others have inherited theirs. With a user
namespace, the GROUP comes before the mounts: its root may not move a process. An exec's process waits for no GROUP and
no START, and says READY only to hand over its terminal. A midwife (see `birth`) says BORN, with a pid and its pidfd; a
shim's maker (see `shim.maker`) says MADE.

A container that one process creates and another starts has a listening socket in its state directory besides::

    create                      child                              start
      │ ◀───────────── READY ───│                                    │
      │ ── HOLD ───────────────▶│ accept                             │
      └ ends                    │ ◀───────────────────────── START ──│ connect
                                │ ── ACCEPTED ──────────────────────▶│
                                │ startContainer, execve             │
                                │ ──────────────────── end of file ─▶│

Who connects too late (a second start) is in the queue of a socket that closes, and reads no ACCEPTED.
"""

from __future__ import annotations

import array
import os
import socket

import msgspec

from sampan.errors import Internal, SampanError, from_kind, kind_of

ORDER = b"o"
GROUP = b"g"
MAPPED = b"m"
BORN = b"b"
HOOKS = b"k"
RESUME = b"c"
LISTENER = b"l"
LISTENING = b"L"
READY = b"r"
START = b"s"
HOLD = b"h"
ACCEPTED = b"a"
MADE = b"M"
_FAILED = b"e"
_SIZE = 65536
MAX_DESCRIPTORS = 250
"""That go along with a message: the kernel takes 253."""
MAX_ORDER = 60000
"""Bytes of an order that fit into a datagram with room to spare."""


class _Failed(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    message: str


def pair() -> tuple[socket.socket, socket.socket]:
    """The parent's and the child's end; both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def listen(directory: int, name: str) -> socket.socket:
    """A socket that waits for a `start`, in the directory that the descriptor is open on: a path may be too long."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    umask = os.umask(0o177)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{name}")
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def connect(directory: int, name: str) -> socket.socket:
    """To `listen`'s socket. FileNotFoundError, ConnectionRefusedError: nobody waits there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{name}")
    except BaseException:
        connection.close()
        raise
    return connection


def send(connection: socket.socket, message: bytes, *descriptors: int) -> None:
    """One message, and descriptors that go along. OSError (or SIGPIPE, unless that is ignored) when nobody is there.

    What goes without is written: of all ways to send, a system call filter is the least likely to forbid that.
    """
    if descriptors:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        connection.sendmsg([message], [rights], socket.MSG_NOSIGNAL)
    else:
        os.write(connection.fileno(), message)


def send_failure(connection: socket.socket, error: BaseException) -> None:
    """Tell the parent, as far as it still listens."""
    text = _text(error)
    body = msgspec.msgpack.encode(_Failed(kind_of(error), text[:4096]))
    try:
        send(connection, _FAILED + body)
    except OSError:
        return


def _text(error: BaseException) -> str:
    """One line, for a person."""
    if isinstance(error, SampanError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror.lower()
    return str(error) or type(error).__name__


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came along. Empty: the other side closed its end.

    Raises the error that the other side sent.
    """
    space = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
    try:
        message, ancillary, _, _ = connection.recvmsg(_SIZE, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # Told once, where the other side ended without reading all: before what it had sent, which is still there.
        message, ancillary, _, _ = connection.recvmsg(_SIZE, space, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += array.array("i", data[: len(data) & ~3])
    if message[:1] == _FAILED:
        for descriptor in descriptors:
            os.close(descriptor)
        failed = msgspec.msgpack.decode(message[1:], type=_Failed)
        raise from_kind(failed.kind, failed.message)
    return message, descriptors


def expect(connection: socket.socket, wanted: bytes) -> tuple[bytes, list[int]]:
    """Receive one message, which must be a `wanted`; returns what follows the word, and the descriptors.

    Raises Internal when the peer is gone.
    """
    message, descriptors = receive(connection)
    if message[:1] != wanted:
        raise Internal("the process died while its container was being set up" if not message else "protocol error")
    return message[1:], descriptors


def await_word(connection: socket.socket, wanted: bytes) -> None:
    """In a child that has its filter: one message, which is the word alone. Raises Internal when the parent is gone."""
    if os.read(connection.fileno(), _SIZE) != wanted:
        raise Internal("the parent is gone")
