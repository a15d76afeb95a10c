"""What the engine and the resolver say to one another: one message a packet of a SOCK_SEQPACKET socket. ::

    engine                          resolver
      │ ◀──────────── Serving ─────── │  whose sandboxes it serves, when the engine connects
      │ ── Serve …, Settle ─────────▶ │  how things stand, and who is still there
      │ ── Serve; sockets ──────────▶ │  a sandbox that comes
      │ ── Serve, Stop ─────────────▶ │  one that changes, and one that goes

The resolver ends when it serves none and no engine is connected.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

import msgspec

_LARGEST = 1 << 20
_MOST_DESCRIPTORS = 8


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """The base of all."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A sandbox on a network: the network's name, its addresses there, and its names, the container's own first."""

    network: str
    addresses: tuple[str, ...]
    names: tuple[str, ...]


class Serving(Message, frozen=True, kw_only=True):
    sandboxes: tuple[str, ...] = ()


class Serve(Message, frozen=True, kw_only=True):
    """A sandbox with its places, that of its way out first, instead of what was known of it.

    `servers`: whom to ask about other names, from within the sandbox's namespace; none: the host's, from the host, if
    `forward` is set. `links`: further names for what has a name on the same network.
    With it come the sandbox's descriptors, if it is not served yet: a UDP socket and a listening TCP socket that are
    bound in its namespace, the namespace, and, where there is one, a socket that its shim holds the other end of.
    """

    sandbox: str
    places: tuple[Place, ...]
    servers: tuple[str, ...] = ()
    forward: bool = True
    links: dict[str, str] = {}


class Stop(Message, frozen=True, kw_only=True):
    sandbox: str


class Settle(Message, frozen=True, kw_only=True):
    """All others are gone."""

    sandboxes: tuple[str, ...]


AnyMessage = Serving | Serve | Stop | Settle

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


def send(connection: socket.socket, message: AnyMessage, descriptors: Sequence[int] = ()) -> None:
    """The descriptors stay the caller's. Raises OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([_encoder.encode(message)], rights, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[AnyMessage, list[int]] | None:
    """The next one, with its descriptors, which are the caller's; None at the end. Raises OSError,
    msgspec.DecodeError."""
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, _, _ = connection.recvmsg(_LARGEST, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if not data:
        return None
    return _decoder.decode(data), list(descriptors)
