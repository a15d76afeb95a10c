"""The formats of a container's log: Docker's json-file, and the records of its driver `local` (shim/locallog.py)."""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import time
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import msgspec

from sampan.errors import InvalidArgument

_BLOCK = 1 << 16
_AROUND = 8
"""Bytes of a record's two lengths."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?")


def parse_time(text: str) -> int:
    """A moment as Docker's clients send it: seconds with a fraction, or RFC 3339. Raises InvalidArgument."""
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        return int(whole) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'invalid value for "since": parsing time "{text}"')
    clock = match[2] or "00:00:00"
    clock += ":00" if len(clock) == 5 else ""
    try:
        seconds = calendar.timegm(time.strptime(f"{match[1]}T{clock}", "%Y-%m-%dT%H:%M:%S"))
    except ValueError as error:
        raise InvalidArgument(f'invalid value for "since": {error}') from None
    zone = match[4] or "Z"
    if zone != "Z":
        sign = -1 if zone[0] == "+" else 1
        seconds += sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    return seconds * 1_000_000_000 + int(((match[3] or "") + "0" * 9)[:9])


class Line(Protocol):
    """What was printed at once, or a piece of it."""

    @property
    def stream(self) -> str: ...

    @property
    def attrs(self) -> dict[str, str]: ...

    def text(self) -> bytes:
        """With its newline, if it has one."""

    def moment(self) -> int:
        """Nanoseconds since the epoch."""

    def stamp(self) -> str:
        """The moment, with nine digits behind the point."""


class Format(Protocol):
    def decode(self, data: bytes) -> tuple[Sequence[Line], int]:
        """The whole records at the beginning, and how long they are. What is broken is left out."""

    def tail(self, file: BinaryIO, count: int) -> int:
        """Where the last `count` records begin, or a place before that."""


class JsonLine(msgspec.Struct, frozen=True):
    """A record of json-file."""

    log: str
    stream: str
    time: str
    attrs: dict[str, str] = {}

    def text(self) -> bytes:
        return self.log.encode("utf-8", "replace")

    def moment(self) -> int:
        return parse_time(self.time)

    def stamp(self) -> str:
        whole, _, fraction = self.time.rstrip("Z").partition(".")
        return f"{whole}.{fraction:0<9}Z"


_decode = msgspec.json.Decoder(JsonLine).decode


class JsonFormat:
    def decode(self, data: bytes) -> tuple[Sequence[Line], int]:
        complete = data.rfind(b"\n") + 1
        lines: list[Line] = []
        for record in data[:complete].split(b"\n"):
            # A record that a kill of the shim, or a full disk, has cut; and what stands behind the last one.
            with contextlib.suppress(msgspec.DecodeError):
                lines.append(_decode(record))
        return lines, complete

    def tail(self, file: BinaryIO, count: int) -> int:
        at = file.seek(0, os.SEEK_END)
        found = 0
        while at > 0:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            block = file.read(size)
            position = len(block)
            while (position := block.rfind(b"\n", 0, position)) >= 0:
                found += 1
                if found > count:  # The end of the line before them.
                    return at + position + 1
        return 0


class LocalLine(msgspec.Struct, frozen=True):
    """A record of local. `whole`: its newline follows."""

    stream: str
    time: int
    line: bytes
    whole: bool
    attrs: dict[str, str] = {}

    def text(self) -> bytes:
        return self.line + b"\n" if self.whole else self.line

    def moment(self) -> int:
        return self.time

    def stamp(self) -> str:
        second, fraction = divmod(self.time, 1_000_000_000)
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{fraction:09d}Z"


class LocalFormat:
    def decode(self, data: bytes) -> tuple[Sequence[Line], int]:
        lines: list[Line] = []
        at = 0
        while len(data) - at >= _AROUND:
            end = at + _AROUND + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            with contextlib.suppress(ValueError, IndexError):
                lines.append(_entry(data[at + 4 : end - 4]))
            at = end
        return lines, at

    def tail(self, file: BinaryIO, count: int) -> int:
        at = file.seek(0, os.SEEK_END)
        for _ in range(count):
            if at < _AROUND:
                return 0
            file.seek(at - 4)
            length = file.read(4)
            begin = at - _AROUND - int.from_bytes(length, "big")
            if begin < 0:
                return 0
            file.seek(begin)
            if file.read(4) != length:  # Being written just now: read all.
                return 0
            at = begin
        return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and what is behind it. Raises IndexError."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _fields(data: bytes) -> dict[int, int | bytes]:
    """A message of numbers and of what has a length. Raises ValueError, IndexError."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value, at = _varint(data, at)
        if key & 7 == 0:
            found[key >> 3] = value
        elif key & 7 == 2:
            found[key >> 3] = data[at : at + value]
            at += value
        else:
            raise ValueError("a kind of field that Docker's records do not have")
    return found


def _entry(data: bytes) -> LocalLine:
    fields = _fields(data)
    source, moment, line, part = fields.get(1, b""), fields.get(2, 0), fields.get(3, b""), fields.get(5, b"")
    if not isinstance(source, bytes) or not isinstance(moment, int) or not isinstance(line, bytes):
        raise ValueError("not a record of Docker's")
    last = bool(_fields(part).get(1)) if isinstance(part, bytes) else False
    return LocalLine(source.decode("utf-8", "replace"), moment, line, whole=not fields.get(4) or last)
