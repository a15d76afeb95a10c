"""Reading a container's log: json-file and its rotated predecessors, from an end or a moment, and on and on."""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import os
import re
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote_plus

import msgspec

from sampan.errors import InvalidArgument

_POLL = 0.05
_BLOCK = 1 << 16
_FRAME = struct.Struct(">BxxxL")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?")


class Line(msgspec.Struct, frozen=True):
    """A record of the file."""

    log: str
    stream: str
    time: str
    attrs: dict[str, str] = {}


_decode = msgspec.json.Decoder(Line).decode


@dataclass(frozen=True, kw_only=True)
class Query:
    """`tail`: how many lines from the end; -1: all. `since`, `until`: nanoseconds since the epoch, 0: no bound."""

    stdout: bool = True
    stderr: bool = True
    tail: int = -1
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: bool = False
    framed: bool = True

    def wants(self, line: Line) -> bool:
        if not (self.stdout if line.stream == "stdout" else self.stderr):
            return False
        if not self.since and not self.until:
            return True
        moment = _nanoseconds(line.time)
        return self.since <= moment and (not self.until or moment <= self.until)

    def render(self, line: Line) -> bytes:
        """A line as it goes to the client."""
        text = line.log.encode("utf-8", "replace")
        if self.details:
            pairs = (f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(line.attrs.items()))
            text = f"{','.join(pairs)} ".encode() + text
        if self.timestamps:
            text = f"{_fixed(line.time)} ".encode() + text
        if self.framed:
            return _FRAME.pack(1 if line.stream == "stdout" else 2, len(text)) + text
        return text


def _fixed(moment: str) -> str:
    """With nine digits after the point, as Docker prints it."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"


def _nanoseconds(moment: str) -> int:
    return parse_time(moment)


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


def _files(path: str) -> list[str]:
    """The log and its predecessors, oldest first."""
    result = [path]
    number = 1
    while os.path.exists(f"{path}.{number}"):
        result.insert(0, f"{path}.{number}")
        number += 1
    return result


def _lines(data: bytes) -> Iterator[Line]:
    for record in data.splitlines():
        # A record that a kill of the shim, or a full disk, has cut.
        with contextlib.suppress(msgspec.DecodeError):
            yield _decode(record)


def _tail_offset(file: BinaryIO, count: int) -> int:
    """Where the last `count` complete lines begin."""
    at = file.seek(0, os.SEEK_END)
    found = 0
    while at > 0:
        size = min(_BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size)
        for position in range(len(block) - 1, -1, -1):
            if block[position] == 0x0A:
                found += 1
                if found > count:  # The end of the line before them.
                    return at + position + 1
    return 0


class Log:
    """A container's log, held open: what is rotated or removed meanwhile is read to its end all the same.

    `read` once, and then `follow`; `close` at last."""

    def __init__(self, path: str, query: Query) -> None:
        self._path = path
        self._query = query
        self._file: BinaryIO | None = None
        self._rest = b""

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self) -> list[Line]:
        """What it says now, as far as it is wanted. Blocks."""
        query = self._query
        lines: list[Line] = []
        # Only where the filters leave every line in can the end be found without reading all.
        plain = query.tail > 0 and query.stdout and query.stderr and not query.since and not query.until
        for each in _files(self._path) if query.tail else [self._path]:
            with contextlib.suppress(FileNotFoundError):
                file = self._open(each)
                if query.tail:
                    file.seek(_tail_offset(file, query.tail) if plain else 0)
                    lines += self._more()
                else:
                    file.seek(0, os.SEEK_END)
        return lines[-query.tail :] if query.tail > 0 else lines

    async def follow(self, running: Callable[[], bool]) -> AsyncIterator[list[Line]]:
        """What is added from then on, until the container has ended and everything is read."""
        while True:
            live = running()
            lines = self._more()
            if self._replaced():
                lines += self._more()
                self._open(self._path)
                lines += self._more()
            if lines:
                yield lines
            elif not live:
                return
            if self._query.until and time.time_ns() > self._query.until:
                return
            if not lines:
                await asyncio.sleep(_POLL)

    def _open(self, path: str) -> BinaryIO:
        file = open(path, "rb")  # noqa: SIM115 - closed with the log
        if self._file is not None:
            self._file.close()
        self._file, self._rest = file, b""
        return file

    def _more(self) -> list[Line]:
        """The complete lines from where the file is read to."""
        data = self._rest + (self._file.read() if self._file is not None else b"")
        complete = data.rfind(b"\n") + 1
        self._rest = data[complete:]
        return [line for line in _lines(data[:complete]) if self._query.wants(line)]

    def _replaced(self) -> bool:
        """Whether another file has taken the place of the open one."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return False
        return self._file is None or not os.path.samestat(status, os.fstat(self._file.fileno()))
