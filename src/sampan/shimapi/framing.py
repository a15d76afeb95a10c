"""Envelopes on a unix stream socket: a header, the message as MessagePack, and descriptors beside them.

The header is two little-endian words: the length of the message and the number of its descriptors. Descriptors arrive
in the order in which they were sent, so the count alone tells whose they are. The kernel carries 253 of them with one
call (SCM_MAX_FD): more go with the message's first bytes, a group with each byte.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from sampan.errors import DataCorrupt, InvalidArgument
from sampan.shimapi.messages import Envelope

_HEADER = struct.Struct("<II")
_GROUP = 200
_MAX_DESCRIPTORS = _GROUP * 64
_MAX_MESSAGE = 16 << 20
_CHUNK = 1 << 16

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(envelope: Envelope, descriptors: int = 0) -> bytes:
    """The bytes of an envelope that travels with so many descriptors. Raises InvalidArgument for too much."""
    body = _encoder.encode(envelope)
    if len(body) > _MAX_MESSAGE or descriptors > min(_MAX_DESCRIPTORS, _GROUP * len(body)):
        raise InvalidArgument("the message to the shim is too large")
    return _HEADER.pack(len(body), descriptors) + body


def send(connection: socket.socket, envelope: Envelope, descriptors: Sequence[int] = ()) -> None:
    """Send an envelope over a blocking socket. The descriptors stay the caller's. OSError when the peer is gone."""
    data = memoryview(encode(envelope, len(descriptors)))
    groups = [descriptors[at : at + _GROUP] for at in range(0, len(descriptors), _GROUP)]
    for group in groups:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", group))
        sent = connection.sendmsg([data[:1] if group is not groups[-1] else data], [rights], socket.MSG_NOSIGNAL)
        data = data[sent:]
    while data:
        data = data[connection.send(data, socket.MSG_NOSIGNAL) :]


def receive(connection: socket.socket) -> tuple[Envelope, list[int]] | None:
    """The next envelope on a blocking socket and its descriptors; None at the end of the stream.

    For a peer that sends one and waits: what follows it is lost. Raises OSError, DataCorrupt.
    """
    inbox = Inbox()
    while inbox.read(connection):
        for received in inbox.envelopes():
            return received
    return None


class Inbox:
    """Puts envelopes together from what `read` takes off a socket."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._descriptors: deque[int] = deque()

    def read(self, connection: socket.socket) -> bool:
        """Take what is there; False at the end of the stream. BlockingIOError passes through."""
        data, ancillary, _, _ = connection.recvmsg(
            _CHUNK, socket.CMSG_SPACE(253 * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors.extend(numbers)
        self._data += data
        return bool(data)

    def envelopes(self) -> Iterator[tuple[Envelope, list[int]]]:
        """Those that are complete, each with its descriptors, which are the caller's to close.

        Raises DataCorrupt: the connection is of no more use then.
        """
        while len(self._data) >= _HEADER.size:
            length, count = _HEADER.unpack_from(self._data)
            if length > _MAX_MESSAGE or count > _MAX_DESCRIPTORS:
                raise DataCorrupt("the shim's connection: the message is too large")
            if len(self._data) < _HEADER.size + length:
                return
            if len(self._descriptors) < count:
                raise DataCorrupt("the shim's connection: descriptors are missing")
            body = bytes(self._data[_HEADER.size : _HEADER.size + length])
            del self._data[: _HEADER.size + length]
            descriptors = [self._descriptors.popleft() for _ in range(count)]
            try:
                envelope = _decoder.decode(body)
            except msgspec.DecodeError as error:
                close_all(descriptors)
                raise DataCorrupt(f"the shim's connection: {error}") from error
            yield envelope, descriptors

    def close(self) -> None:
        """Close the descriptors that belong to no envelope."""
        close_all(self._descriptors)
        self._descriptors.clear()


def close_all(descriptors: Sequence[int] | deque[int]) -> None:
    """Close each."""
    for descriptor in descriptors:
        os.close(descriptor)
