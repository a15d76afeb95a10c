"""A netlink socket: requests with acknowledgement, several in one system call, and dumps.

The kernel handles what is written to a netlink socket before `sendmsg` returns, so every answer is in the receive
queue by then, and the rest of a dump is produced by the reading itself. Reading therefore never waits: an empty queue
means that the kernel has nothing more to say. (Not so for multicast groups, which `subscribe` is for.)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from struct import Struct
from types import TracebackType
from typing import NamedTuple, Self

from sampan.linux.netlink import attributes

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_NONREC = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLM_F_DUMP_INTR = 0x10
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_NLMSGERR_ATTR_MSG = 1
_SO_SNDBUFFORCE = 32
_SIOCGSKNS = 0x894C

_HEADER = Struct("=IHHII")
_ERROR = Struct("=i")
# A dump's datagrams are as large as the reader's last buffer allows, 32 KiB at most; acknowledgements are small.
_RECEIVE = 65536
_DUMP_ATTEMPTS = 8


class Request(NamedTuple):
    """A message to send: its type, the flags beside NLM_F_REQUEST, and what follows the netlink header.

    `call` names it in errors; the failure of an `optional` one is ignored.
    """

    type: int
    flags: int
    body: bytes
    call: str = "netlink"
    optional: bool = False


class Netlink:
    """One socket of one netlink protocol; not for use by two threads at a time."""

    def __init__(self, fd: int, protocol: int = NETLINK_ROUTE) -> None:
        """Takes over an existing descriptor, which may live in another network namespace. `close` closes it."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=fd)
        self._sequence = 0
        self._send_buffer = 0
        self._prepare()

    @classmethod
    def open(cls, protocol: int = NETLINK_ROUTE) -> Self:
        """A new socket in the network namespace of the calling thread."""
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol).detach(), protocol)

    def _prepare(self) -> None:
        # Each is younger than netlink (4.3, 4.12, 4.20); without them only the explanation of an error is lost,
        # and dumps are filtered here anyway.
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                return

    def fileno(self) -> int:
        return self._socket.fileno()

    def namespace(self) -> int:
        """A descriptor of the network namespace that the socket lives in (ioctl SIOCGSKNS, Linux 4.9)."""
        import fcntl

        return fcntl.ioctl(self._socket.fileno(), _SIOCGSKNS)

    def subscribe(self, group: int) -> None:
        """Receive the messages of a multicast group (RTNLGRP_*, NFNLGRP_*) from now on."""
        # A socket without an address counts as the kernel's own, which a broadcast leaves out as its sender.
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def detach(self) -> int:
        """Give the descriptor back, open."""
        return self._socket.detach()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, *requests: Request) -> None:
        """Send all in one system call, in order; the kernel goes on past one that fails, and the first failure is
        raised when all are done. Only the last asks for an acknowledgement: failures come without asking."""
        if not requests:
            return
        first, packed = self._pack(requests, acknowledge=True)
        self._send(packed)
        last = (first + len(requests) - 1) & 0xFFFFFFFF
        self._collect(first, last, requests)

    def batch(self, packed: bytes, first: int, last: int, calls: Sequence[Request]) -> None:
        """Send messages that are packed already (see `sequence_numbers`) and wait for the acknowledgement of `last`."""
        self._send(packed)
        self._collect(first, last, calls)

    def sequence_numbers(self, count: int) -> int:
        """Reserve that many consecutive numbers and return the first."""
        first = self._sequence + 1
        if first + count >= 0xFFFFFFFF:
            first = 1
        self._sequence = first + count - 1
        return first

    def _pack(self, requests: Sequence[Request], *, acknowledge: bool) -> tuple[int, bytes]:
        first = number = self.sequence_numbers(len(requests))
        parts: list[bytes] = []
        remaining = len(requests)
        for kind, flags, body, _, _ in requests:
            remaining -= 1
            if acknowledge and not remaining:
                flags |= NLM_F_ACK
            parts += (_HEADER.pack(len(body) + 16, kind, flags | NLM_F_REQUEST, number, 0), body)
            number += 1
        return first, b"".join(parts)

    def _send(self, packed: bytes) -> None:
        # A datagram larger than the send buffer is refused (EMSGSIZE); the buffer's account includes overhead.
        if len(packed) > 65536 and 2 * len(packed) > self._send_buffer:
            self._send_buffer = 2 * len(packed)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, self._send_buffer)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self._socket.send(packed)

    def _collect(self, first: int, last: int, requests: Sequence[Request]) -> None:
        failure: OSError | None = None
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if failure is not None:
                    raise failure from None
                raise OSError(71, "netlink: the kernel gave no acknowledgement") from None
            for kind, flags, number, start, end in _messages(data):
                # Whatever is older than this exchange was left by one that failed halfway.
                if kind != _NLMSG_ERROR or number < first or number > last:
                    continue
                (code,) = _ERROR.unpack_from(data, start)
                if code and failure is None:
                    request = requests[number - first]
                    if not request.optional:
                        failure = _error(code, flags, data, start, end, request.call)
                if number == last:
                    if failure is not None:
                        raise failure
                    return

    def dump(self, request: Request) -> list[tuple[int, bytes]]:
        """The type and body of every message that answers; asked again when the kernel says that the list changed
        while it was read."""
        for _ in range(_DUMP_ATTEMPTS):
            found, consistent = self._dump_once(request)
            if consistent:
                break
        return found

    def _dump_once(self, request: Request) -> tuple[list[tuple[int, bytes]], bool]:
        number, packed = self._pack((request._replace(flags=request.flags | NLM_F_DUMP),), acknowledge=False)
        self._send(packed)
        found: list[tuple[int, bytes]] = []
        consistent = True
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise OSError(71, f"{request.call}: the kernel ended the dump early") from None
            for kind, flags, sequence, start, end in _messages(data):
                if sequence != number:
                    continue
                if flags & _NLM_F_DUMP_INTR and kind != _NLMSG_ERROR:
                    consistent = False
                if kind == _NLMSG_DONE:
                    code = _ERROR.unpack_from(data, start)[0] if end - start >= 4 else 0
                    if code:
                        raise OSError(-code, f"{request.call}: {os.strerror(-code)}")
                    return found, consistent
                if kind == _NLMSG_ERROR:
                    raise _error(_ERROR.unpack_from(data, start)[0], flags, data, start, end, request.call)
                found.append((kind, data[start:end]))

    def get(self, request: Request) -> tuple[int, bytes]:
        """The one message that answers; OSError (ENOENT, ENODEV) when there is none."""
        first, packed = self._pack((request,), acknowledge=True)
        self._send(packed)
        answer: tuple[int, bytes] | None = None
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise OSError(71, f"{request.call}: the kernel gave no acknowledgement") from None
            for kind, flags, number, start, end in _messages(data):
                if number != first:
                    continue
                if kind != _NLMSG_ERROR:
                    answer = (kind, data[start:end])
                    continue
                (code,) = _ERROR.unpack_from(data, start)
                if code or answer is None:
                    raise _error(code or -2, flags, data, start, end, request.call)
                return answer

    def events(self) -> list[tuple[int, bytes]]:
        """What the subscribed groups have sent so far. ENOBUFS is raised when the queue overflowed: events are lost."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found += [(kind, data[start:end]) for kind, _, _, start, end in _messages(data)]


def pack_message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """One message with its header, for `Netlink.batch`."""
    return _HEADER.pack(len(body) + 16, kind, flags | NLM_F_REQUEST, number, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, flags, sequence number, start and end of the body) of every message of a datagram."""
    offset = 0
    end = len(data)
    while offset + 16 <= end:
        size, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
        if size < 16 or offset + size > end:
            raise OSError(71, f"netlink: message of {size} bytes in {end - offset}")
        yield kind, flags, number, offset + 16, offset + size
        offset += (size + 3) & ~3


def _error(code: int, flags: int, data: bytes, start: int, end: int, call: str) -> OSError:
    """`struct nlmsgerr`: the error, the header of the message concerned (with its body unless capped), then
    attributes with the explanation."""
    explanation = ""
    if flags & _NLM_F_ACK_TLVS:
        offset = start + 4 + 16
        if not flags & _NLM_F_CAPPED:
            (size,) = Struct("=I").unpack_from(data, start + 4)
            offset = start + 4 + ((size + 3) & ~3)
        found = attributes.parse(data[offset:end])
        explanation = found.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    message = os.strerror(-code)
    return OSError(-code, f"{call}: {message} ({explanation})" if explanation else f"{call}: {message}")
