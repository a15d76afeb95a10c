"""Netlink attributes: `struct nlattr`, a length and a type of 16 bits each, then the value, padded to four bytes."""

from __future__ import annotations

from struct import Struct

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEAD = Struct("=HH")
_U8 = Struct("=HHB3x")
_U16 = Struct("=HHH2x")
_U32 = Struct("=HHI")
_BE32 = Struct(">I")
_BE64 = Struct(">Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

head = _HEAD.pack
unpack_head = _HEAD.unpack_from


def attribute(kind: int, value: bytes) -> bytes:
    """The value with its header, padded."""
    size = len(value)
    return head(size + 4, kind) + value + _PADDING[size & 3]


def text(kind: int, value: str) -> bytes:
    """A string with its terminating zero byte."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return _U8.pack(5, kind, value)


def u16(kind: int, value: int) -> bytes:
    """In the machine's byte order."""
    return _U16.pack(6, kind, value)


def u32(kind: int, value: int) -> bytes:
    """In the machine's byte order."""
    return _U32.pack(8, kind, value)


def be16(kind: int, value: int) -> bytes:
    """In network byte order."""
    return head(6, kind) + value.to_bytes(2, "big") + b"\0\0"


def be32(kind: int, value: int) -> bytes:
    """In network byte order, as nfnetlink wants its numbers."""
    return head(8, kind) + _BE32.pack(value & 0xFFFFFFFF)


def be64(kind: int, value: int) -> bytes:
    """In network byte order."""
    return head(12, kind) + _BE64.pack(value)


def nested(kind: int, *parts: bytes) -> bytes:
    """Attributes inside an attribute. The flag is what strictly validating families ask for."""
    body = b"".join(parts)
    return head(len(body) + 4, kind | NLA_F_NESTED) + body


def parse(data: bytes | memoryview, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` on, by type without its flags; of a type that repeats, the last.

    Raises ValueError when a length makes no sense.
    """
    return dict(sequence(data, offset))


def sequence(data: bytes | memoryview, offset: int = 0) -> list[tuple[int, bytes]]:
    """The same, in order and with repetitions: what a list of elements needs."""
    found: list[tuple[int, bytes]] = []
    end = len(data)
    while offset + 4 <= end:
        size, kind = unpack_head(data, offset)
        if size < 4 or offset + size > end:
            raise ValueError(f"netlink attribute {kind & NLA_TYPE_MASK} has length {size} of {end - offset}")
        found.append((kind & NLA_TYPE_MASK, bytes(data[offset + 4 : offset + size])))
        offset += (size + 3) & ~3
    return found
