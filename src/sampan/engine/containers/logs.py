"""Reading a container's log: the file and its rotated predecessors, from an end or a moment, and on and on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import quote_plus

from isal import igzip

from sampan.engine.containers.log_formats import Format, JsonFormat, Line, LocalFormat

_POLL = 0.05
_BLOCK = 1 << 20
_open_gzip = cast(Callable[[str, str], BinaryIO], cast(Any, igzip).open)
_FRAME = struct.Struct(">BxxxL")


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
        moment = line.moment()
        return self.since <= moment and (not self.until or moment <= self.until)

    @property
    def wants_all(self) -> bool:
        return self.stdout and self.stderr and not self.since and not self.until

    def render(self, line: Line) -> bytes:
        """A line as it goes to the client."""
        text = line.text()
        if self.details:
            pairs = (f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(line.attrs.items()))
            text = f"{','.join(pairs)} ".encode() + text
        if self.timestamps:
            text = f"{line.stamp()} ".encode() + text
        if self.framed:
            return _FRAME.pack(1 if line.stream == "stdout" else 2, len(text)) + text
        return text


class Log:
    """A container's log, held open: what is rotated or removed meanwhile is read to its end all the same.

    `read` to the end, and then `follow`; `close` at last."""

    def __init__(self, path: str, query: Query, form: Format | None = None) -> None:
        self._path = path
        self._query = query
        self._format = form or JsonFormat()
        self._files = contextlib.ExitStack()
        self._last: BinaryIO | None = None
        self._rest = b""

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def read(self) -> Iterator[bytes]:
        """What it says now, as far as it is wanted, in pieces. Blocks."""
        files = self._open_all()
        if self._query.tail >= 0:
            yield self._rendered(self._tail(files))
            return
        for file in files:
            yield from map(self._rendered, self._lines(file))

    async def follow(self, running: Callable[[], bool]) -> AsyncIterator[bytes]:
        """What is added from then on, until the container has ended and everything is read."""
        while True:
            live = running()
            lines = self._more()
            if not lines and (followers := self._followers()):
                # What was written to the file before it was replaced is read to its end.
                lines = self._more()
                for file in followers:
                    self._begin(file)
                    for more in self._lines(file):
                        lines += more
            if lines:
                yield self._rendered(lines)
            elif not live:
                return
            if self._query.until and time.time_ns() > self._query.until:
                return
            await asyncio.sleep(0 if lines else _POLL)

    # --- Files ------------------------------------------------------------------------------------

    def _open_all(self) -> list[BinaryIO]:
        """The log and its predecessors, oldest first. Opened from the newest on: what is rotated meanwhile comes twice
        then, which can be seen, and nothing is left out."""
        found: list[BinaryIO] = []
        seen: set[int] = set()
        for number in range(1 << 16):
            file = self._open(f"{self._path}.{number}" if number else self._path)
            if file is None:
                if number:
                    break
                continue
            inode = os.fstat(file.fileno()).st_ino
            if inode not in seen:
                seen.add(inode)
                found.insert(0, file)
        if found and found[-1].name == self._path:
            self._last = found[-1]
        return found

    def _open(self, path: str) -> BinaryIO | None:
        with contextlib.suppress(FileNotFoundError):
            return self._files.enter_context(open(path, "rb"))
        with contextlib.suppress(FileNotFoundError):
            return self._files.enter_context(_open_gzip(f"{path}.gz", "rb"))
        return None

    def _followers(self) -> list[BinaryIO]:
        """Those that have come behind the last one, oldest first."""
        known = os.fstat(self._last.fileno()).st_ino if self._last is not None else 0
        found: list[BinaryIO] = []
        for number in range(1 << 16):
            try:
                file = open(f"{self._path}.{number}" if number else self._path, "rb")  # noqa: SIM115
            except FileNotFoundError:
                break
            if os.fstat(file.fileno()).st_ino == known:
                file.close()
                break
            found.insert(0, self._files.enter_context(file))
            if self._last is None:
                break
        return found

    # --- Lines ------------------------------------------------------------------------------------

    def _rendered(self, lines: Iterable[Line]) -> bytes:
        return b"".join(map(self._query.render, lines))

    def _tail(self, files: list[BinaryIO]) -> list[Line]:
        """The last lines that are wanted, from the last file back."""
        found: list[Line] = []
        for file in reversed(files):
            wanted = self._query.tail - len(found)
            is_last = file is self._last
            if is_last and not wanted:
                file.seek(0, os.SEEK_END)
            if not wanted:
                break
            if self._query.wants_all and not file.name.endswith(".gz"):
                file.seek(self._format.tail(file, wanted))
            kept: deque[Line] = deque(maxlen=wanted)
            for lines in self._lines(file):
                kept.extend(lines)
            found[:0] = kept
        return found

    def _begin(self, file: BinaryIO) -> None:
        self._last, self._rest = file, b""

    def _lines(self, file: BinaryIO) -> Iterator[list[Line]]:
        """Those of a file, from where it is read to; at its end, what is no whole line waits for the rest."""
        rest = b""
        while block := file.read(_BLOCK):
            rest += block
            lines, end = self._format.decode(rest)
            rest = rest[end:]
            yield [line for line in lines if self._query.wants(line)]
        if file is self._last:
            self._rest = rest

    def _more(self) -> list[Line]:
        """Those that have been added to the last file."""
        if self._last is None:
            return []
        data = self._rest + self._last.read(_BLOCK)
        lines, end = self._format.decode(data)
        self._rest = data[end:]
        return [line for line in lines if self._query.wants(line)]


def opened(path: str, query: Query) -> Log:
    """In the format that its name tells."""
    return Log(path, query, JsonFormat() if path.endswith("-json.log") else LocalFormat())
