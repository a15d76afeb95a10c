"""DNS messages (RFC 1035, RFC 6891), as far as a resolver for containers needs them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from struct import error as struct_error
from typing import NamedTuple

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN, ANY_CLASS = 1, 255
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 4, 5

SHORTEST = 12
"""Bytes of a message's head."""
SMALLEST = 512
"""Bytes of a datagram that everybody takes."""
LARGEST = 65535
_ADVISED = 1232
"""Bytes of a datagram that no network takes apart: what we say that we take. What we send goes over a loopback, where
the asker's word counts."""
_DATAGRAM = 65507
"""The largest that IPv4 carries."""
_TTL = 30
"""Seconds. A container's address may be another one's soon."""
_POINTER_SUFFIX, _POINTER_SUFFIX_6 = ".in-addr.arpa", ".ip6.arpa"

_HEADER = Struct(">HHHHHH")
_PAIR = Struct(">HH")
_RECORD = Struct(">HHIH")
_ANSWER = Struct(">HHHIH")
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0100, 0x0080
_TO_QUESTION = 0xC00C
"""A name that is the one at the question's place."""


class Query(NamedTuple):
    """A question: `name` in lower case without the last dot; `question` as it was written, letters' cases included.
    `size`: what the asker takes of a datagram; `edns`: it speaks of it."""

    number: int
    flags: int
    name: str
    kind: int
    of_class: int
    question: bytes
    size: int
    edns: bool


class Malformed(ValueError):
    """Not a question. `answer`: what to say, or nothing."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("not a DNS question")
        self.answer = answer


def parse(data: bytes) -> Query:
    """The one question of a message. Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _RESPONSE:  # An answer to it would go back and forth for ever.
        raise Malformed
    if flags >> 11 & 15:
        raise Malformed(_failure(number, flags, NOT_IMPLEMENTED))
    try:
        if questions != 1:
            raise ValueError
        name, end = _name(data, _HEADER.size)
        kind, of_class = _PAIR.unpack_from(data, end)
        end += _PAIR.size
        size, edns = _payload_size(data, end, answers + authorities + additional)
    except (ValueError, IndexError, struct_error) as error:
        raise Malformed(_failure(number, flags, FORMAT_ERROR)) from error
    return Query(number, flags, name, kind, of_class, data[_HEADER.size : end], size, edns)


def _name(data: bytes, at: int) -> tuple[str, int]:
    """A name without compression, as a question has it."""
    labels: list[str] = []
    while length := data[at]:
        if length > 63 or at + 1 + length >= len(data):
            raise ValueError
        labels.append(data[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    return ".".join(labels), at + 1


def _skip_name(data: bytes, at: int) -> int:
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _payload_size(data: bytes, at: int, records: int) -> tuple[int, bool]:
    for _ in range(records):
        at = _skip_name(data, at)
        kind, size, _, length = _RECORD.unpack_from(data, at)
        if kind == OPT:
            return max(SMALLEST, size), True
        at += _RECORD.size + length
    return SMALLEST, False


def _failure(number: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(number, _reply_flags(flags) | code, 0, 0, 0, 0)


def _reply_flags(flags: int) -> int:
    return _RESPONSE | _RECURSION_AVAILABLE | (flags & (_RECURSION_DESIRED | 0x7800))


def reply(
    query: Query, records: Sequence[tuple[int, bytes]] = (), code: int = NO_ERROR, *, stream: bool = False
) -> bytes:
    """An answer of records (type, data), each of the question's name. What does not fit into the asker's datagram is
    left out, and the answer says so: it then asks again over TCP."""
    limit = LARGEST if stream else min(query.size, _DATAGRAM)
    tail = b"\0" + _RECORD.pack(OPT, _ADVISED, 0, 0) if query.edns else b""
    room = limit - _HEADER.size - len(query.question) - len(tail)
    body: list[bytes] = []
    truncated = 0
    for kind, data in records:
        record = _ANSWER.pack(_TO_QUESTION, kind, IN, _TTL, len(data)) + data
        if len(record) > room:
            truncated = _TRUNCATED
            break
        room -= len(record)
        body.append(record)
    head = _HEADER.pack(
        query.number, _reply_flags(query.flags) | truncated | code, 1, len(body), 0, 1 if query.edns else 0
    )  # fmt: skip
    return head + query.question + b"".join(body) + tail


def encode_name(name: str) -> bytes:
    """A name on the wire. Labels of more than 63 bytes are cut off: no container has one that anybody could ask for."""
    labels = (label.encode()[:63] for label in name.split(".") if label)
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def pointed_at(name: str) -> str:
    """The address that a reverse name stands for; empty if it is none."""
    if name.endswith(_POINTER_SUFFIX):
        try:
            return str(IPv4Address(".".join(reversed(name.removesuffix(_POINTER_SUFFIX).split(".")))))
        except ValueError:
            return ""
    digits = name.removesuffix(_POINTER_SUFFIX_6).split(".") if name.endswith(_POINTER_SUFFIX_6) else []
    if len(digits) != 32 or any(len(each) != 1 for each in digits):
        return ""
    try:
        return str(IPv6Address(int("".join(reversed(digits)), 16)))
    except ValueError:
        return ""


def failed(data: bytes) -> bool:
    """Whether a server's answer says that it could not answer: another one may."""
    return data[3] & 15 in (SERVER_FAILURE, NOT_IMPLEMENTED, REFUSED)


def renumbered(data: bytes, number: int) -> bytes:
    """The message under another number."""
    return number.to_bytes(2, "big") + data[2:]
