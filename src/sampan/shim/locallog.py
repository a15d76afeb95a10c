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
_SHORT = 128
"""From here on a length takes two bytes."""
_length = struct.Struct(">I").pack
_LENGTHS = [bytes([size]) for size in range(_SHORT)]


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
        records: list[bytes] = []
        for line in data[:-1].split(b"\n"):
            size = len(line)
            if not size:
                body = head
            elif size < _SHORT:
                body = head + b"\x1a" + _LENGTHS[size] + line
            else:
                body = head + b"\x1a" + _varint(size) + line
            length = _length(len(body))
            records.append(length + body + length)
        self._append(records)

    def piece(self, stream: int, text: bytes, now: int, piece: Piece) -> None:
        part = (b"\x08\x01" if piece.last else b"") + b"\x12" + _varint(len(piece.id)) + piece.id.encode()
        part += b"\x18" + _varint(piece.ordinal)
        line = b"\x1a" + _varint(len(text)) + text if text else b""
        body = _SOURCES[stream] + b"\x10" + _varint(now) + line + b"\x20\x01\x2a" + _varint(len(part)) + part
        length = _length(len(body))
        self._append([length + body + length])

    def _append(self, records: list[bytes]) -> None:
        self._file.append(b"".join(records), lambda: list(itertools.accumulate(map(len, records))))

    def close(self) -> None:
        self._file.close()
