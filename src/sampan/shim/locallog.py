"""Docker's format of the driver `local`: records of protocol buffers, each between its length and its length.

Big-endian lengths of four bytes before and after a record let it be read from both ends. A record is Docker's
`LogEntry`: source (1), time in nanoseconds (2), line without its newline (3), whether it is a piece of a line (4), and
which (5: last (1), id (2), ordinal (3)). What is 0 or empty is left out, as proto3 does.
"""

from __future__ import annotations

import itertools
import os
import struct
from typing import TYPE_CHECKING

from sampan.shim.logfile import LogFile
from sampan.shimapi.messages import LogConfig

if TYPE_CHECKING:
    from sampan.shim.log import Piece

_SOURCES = {1: b"\x0a\x06stdout", 2: b"\x0a\x06stderr"}
_USUAL = 512
_length = struct.Struct(">I").pack


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


class LocalLog:
    def __init__(self, config: LogConfig) -> None:
        """Raises OSError when the file can't be opened."""
        os.makedirs(os.path.dirname(config.path), mode=0o710, exist_ok=True)
        self._file = LogFile(config.path, config.max_size, config.max_file, compress=config.compress)
        self._lengths: dict[int, tuple[bytes, bytes]] = {}
        """By a line's: that of its record, and the field's head."""
        self._head_size = 0
        self._mend()

    def _mend(self) -> None:
        """Cut a record of which a kill has left a part: nothing behind it could be read."""
        size = self._file.size
        if not size or self._record_before(size):
            return
        at = 0
        while (end := self._record_behind(at)) and end <= size:
            at = end
        self._file.truncate(at)

    def _record_before(self, end: int) -> bool:
        length = int.from_bytes(self._file.read(max(0, end - 4), 4), "big")
        begin = end - length - 8
        return begin >= 0 and int.from_bytes(self._file.read(begin, 4), "big") == length

    def _record_behind(self, begin: int) -> int:
        """Where it ends; 0: there is none."""
        head = self._file.read(begin, 4)
        end = begin + int.from_bytes(head, "big") + 8
        return end if len(head) == 4 and self._file.read(end - 4, 4) == head else 0

    def lines(self, stream: int, data: bytes, now: int) -> None:
        head = _SOURCES[stream] + b"\x10" + _varint(now)
        if len(head) != self._head_size:  # A clock that was set: moments near 1970 are shorter.
            self._lengths.clear()
            self._head_size = len(head)
        around: dict[int, tuple[bytes, bytes]] = {}
        parts: list[bytes] = []
        for line in data[:-1].split(b"\n"):
            # What stands before and behind a line, by its length: most lines share theirs with others.
            try:
                before, after = around[len(line)]
            except KeyError:
                before, after = around[len(line)] = self._around(head, len(line))
            parts += before, line, after
        self._append(parts)

    def _around(self, head: bytes, size: int) -> tuple[bytes, bytes]:
        found = self._lengths.get(size)
        if found is None:
            start = b"\x1a" + _varint(size) if size else b""
            found = _length(len(head) + len(start) + size), start
            if size < _USUAL:
                self._lengths[size] = found
        return found[0] + head + found[1], found[0]

    def piece(self, stream: int, text: bytes, now: int, piece: Piece) -> None:
        part = (b"\x08\x01" if piece.last else b"") + b"\x12" + _varint(len(piece.id)) + piece.id.encode()
        part += b"\x18" + _varint(piece.ordinal)
        line = b"\x1a" + _varint(len(text)) + text if text else b""
        body = _SOURCES[stream] + b"\x10" + _varint(now) + line + b"\x20\x01\x2a" + _varint(len(part)) + part
        length = _length(len(body))
        self._append([length, body, length])

    def _append(self, parts: list[bytes]) -> None:
        """Three parts a record."""
        self._file.append(b"".join(parts), lambda: list(itertools.accumulate(map(len, parts)))[2::3])

    def close(self) -> None:
        self._file.close()
