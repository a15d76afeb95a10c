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
    framed: bool = True

    def wants(self, line: Line) -> bool:
        return (self.stdout if line.stream == "stdout" else self.stderr) and (
            not self.since or _nanoseconds(line.time) >= self.since
        )

    def render(self, line: Line) -> bytes:
        """A line as it goes to the client."""
        text = line.log.encode("utf-8", "replace")
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


def _tail_offset(path: str, count: int) -> int:
    """Where the last `count` lines begin."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        found = 0
        at = end
        while at > 0:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            block = file.read(size)
            for position in range(len(block) - 1, -1, -1):
                if block[position] == 0x0A and at + position != end - 1:
                    found += 1
                    if found == count:
                        return at + position + 1
    return 0


def read(path: str, query: Query) -> tuple[list[Line], int]:
    """What the log says now, as far as it is wanted, and where its present file ends. Blocks."""
    if query.tail == 0:
        return [], os.path.getsize(path) if os.path.exists(path) else 0
    lines: list[Line] = []
    end = 0
    for each in _files(path):
        try:
            # Only where the filters leave every line in can the end be found without reading all.
            plain = query.tail > 0 and query.stdout and query.stderr and not query.since and not query.until
            offset = _tail_offset(each, query.tail) if plain else 0
            with open(each, "rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            continue
        complete = data.rfind(b"\n") + 1
        end = offset + complete
        lines += [line for line in _lines(data[:complete]) if query.wants(line)]
    if query.until:
        lines = [line for line in lines if _nanoseconds(line.time) <= query.until]
    return (lines[-query.tail :] if query.tail > 0 else lines), end


async def follow(path: str, query: Query, offset: int, running: Callable[[], bool]) -> AsyncIterator[list[Line]]:
    """What is added from `offset` on, until the container has ended and everything is read."""
    inode = 0
    rest = b""
    while True:
        live = running()
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if inode and status.st_ino != inode:
                    # It was rotated: what the old file got at last comes first.
                    with contextlib.suppress(FileNotFoundError), open(f"{path}.1", "rb") as old:
                        if os.fstat(old.fileno()).st_ino == inode:
                            old.seek(offset)
                            rest += old.read()
                    offset = 0
                inode = status.st_ino
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            data = b""
        offset += len(data)
        rest += data
        complete = rest.rfind(b"\n") + 1
        if complete:
            lines = [line for line in _lines(rest[:complete]) if query.wants(line)]
            rest = rest[complete:]
            if query.until:
                lines = [line for line in lines if _nanoseconds(line.time) <= query.until]
            if lines:
                yield lines
        if query.until and time.time_ns() > query.until:
            return
        if not data:
            if not live:
                return
            await asyncio.sleep(_POLL)
