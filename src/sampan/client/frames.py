"""Docker's frames: standard output and standard error on one connection."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_FRAME = struct.Struct(">BxxxL")


class Demultiplexer:
    """Takes frames apart: an 8 byte header with the stream and the length before each piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The pieces that are complete, with their streams (1 or 2)."""
        self._buffer += data
        while len(self._buffer) >= _FRAME.size:
            stream, length = _FRAME.unpack_from(self._buffer)
            if len(self._buffer) < _FRAME.size + length:
                return
            yield stream, bytes(self._buffer[_FRAME.size : _FRAME.size + length])
            del self._buffer[: _FRAME.size + length]
