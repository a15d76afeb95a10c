"""As much of D-Bus's encoding as asking systemd takes. D-Bus specification, "Message Protocol" and "Type System".

Nothing here is imported before a container asks for the systemd driver.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence

import msgspec

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
HEADER = 16
_NUMBERS = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "b": "I", "x": "q", "t": "Q", "d": "d"}
_LONG = ("x", "t", "d")

Property = tuple[str, str, object]
"""Name, signature (a number's, `s`, or an array of one of these) and value."""


class Encoder:
    """A message's body, growing."""

    def __init__(self) -> None:
        self.data = bytearray()

    def pad(self, to: int) -> None:
        self.data.extend(bytes(-len(self.data) % to))

    def string(self, *texts: str) -> Encoder:
        for text in texts:
            encoded = text.encode()
            self.pad(4)
            self.data.extend(struct.pack("<I", len(encoded)) + encoded + b"\0")
        return self

    def signature(self, text: str) -> None:
        self.data.extend(bytes([len(text)]) + text.encode() + b"\0")

    def value(self, signature: str, value: object) -> Encoder:
        """Raises ValueError for a value that is not of the type."""
        match signature, value:
            case (("s" | "o"), str()):
                self.string(value)
            case "g", str():
                self.signature(value)
            case _ if signature in _NUMBERS and isinstance(value, int | float):
                self.pad(8 if signature in _LONG else struct.calcsize(_NUMBERS[signature]))
                try:
                    self.data.extend(struct.pack("<" + _NUMBERS[signature], value))
                except struct.error as error:
                    raise ValueError(f"{value!r} is no {signature!r}: {error}") from error
            case _ if signature.startswith("a") and isinstance(value, bytes | tuple | list):
                self._array(signature[1:], value)
            case _:
                raise ValueError(f"cannot encode {value!r} as {signature!r}")
        return self

    def _array(self, signature: str, values: Sequence[object]) -> None:
        """The length is that of the elements, without the padding before the first."""
        self.pad(4)
        at = len(self.data)
        self.data.extend(bytes(4))
        self.pad(8 if signature in _LONG else 1)
        start = len(self.data)
        for value in values:
            self.value(signature, value)
        struct.pack_into("<I", self.data, at, len(self.data) - start)

    def variant(self, signature: str, value: object) -> None:
        self.signature(signature)
        self.value(signature, value)

    def properties(self, properties: Iterable[Property]) -> Encoder:
        """a(sv)."""
        self.pad(4)
        at = len(self.data)
        self.data.extend(bytes(4))
        self.pad(8)
        start = len(self.data)
        for name, signature, value in properties:
            self.pad(8)
            self.string(name)
            self.variant(signature, value)
        struct.pack_into("<I", self.data, at, len(self.data) - start)
        return self

    def no_structures(self) -> Encoder:
        """An empty array of structures, padded as they would be."""
        self.pad(4)
        self.data.extend(bytes(4))
        self.pad(8)
        return self


def encode_call(
    serial: int, destination: str, path: str, interface: str, member: str, signature: str = "", body: bytes = b""
) -> bytes:
    """A method call, little-endian. Without a destination: to the one at the other end."""
    fields: list[tuple[int, str, str]] = [(_PATH, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", member)]
    if destination:
        fields.append((_DESTINATION, "s", destination))
    if signature:
        fields.append((_SIGNATURE, "g", signature))
    message = Encoder()
    message.data.extend(struct.pack("<cBBBIII", b"l", CALL, 0, 1, len(body), serial, 0))
    for code, kind, value in fields:
        message.pad(8)
        message.data.append(code)
        message.variant(kind, value)
    struct.pack_into("<I", message.data, 12, len(message.data) - HEADER)
    message.pad(8)
    return bytes(message.data) + body


class Message(msgspec.Struct, frozen=True):
    """A message that came: what its header says, and its body's values in order, up to the first that is not a number,
    a string, or a variant of one."""

    kind: int
    reply_serial: int
    member: str
    error: str
    values: tuple[str | int | float, ...]


class _Reader:
    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order, self.at = data, order, 0

    def align(self, to: int) -> None:
        self.at += -self.at % to

    def number(self, kind: str = "u") -> int | float:
        form = self.order + _NUMBERS[kind]
        size = struct.calcsize(form)
        self.align(size)
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return float(value) if kind == "d" else int(value)

    def string(self, length: int) -> str:
        if self.at + length >= len(self.data):
            raise struct.error("a string is longer than its message")
        text = self.data[self.at : self.at + length].decode("utf-8", "replace")
        self.at += length + 1
        return text

    def value(self, kind: str) -> str | int | float:
        if kind in ("s", "o"):
            return self.string(int(self.number()))
        if kind == "g":
            self.at += 1
            return self.string(self.data[self.at - 1])
        if kind == "v":
            return self.value(str(self.value("g")))
        if kind in _NUMBERS:
            return self.number(kind)
        raise struct.error(f"unexpected type {kind!r}")


def decode(data: bytes) -> Message:
    """Raises OSError (EBADMSG) for what is no message."""
    try:
        order = {0x6C: "<", 0x42: ">"}[data[0]]
        reader = _Reader(data, order)
        reader.at = 12
        end = HEADER + int(reader.number())
        fields: dict[int, str | int | float] = {}
        while reader.at < end:
            reader.align(8)
            code = data[reader.at]
            reader.at += 1
            fields[code] = reader.value("v")
        reader.align(8)
        values: list[str | int | float] = []
        for kind in str(fields.get(_SIGNATURE, "")):
            if kind not in _NUMBERS and kind not in "sogv":
                break
            values.append(reader.value(kind))
    except (KeyError, IndexError, struct.error, RecursionError) as error:
        raise OSError(errno.EBADMSG, f"a malformed message from the bus: {error}") from error
    return Message(
        data[1], int(fields.get(_REPLY_SERIAL, 0)), str(fields.get(_MEMBER, "")), str(fields.get(_ERROR_NAME, "")),
        tuple(values),
    )  # fmt: skip
