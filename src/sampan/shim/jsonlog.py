"""Docker's json-file format: one JSON object a line.

`{"log":"text\\n","stream":"stdout","time":"2024-01-02T03:04:05.123456789Z"}`
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from sampan.shim.logfile import LogFile
from sampan.shimapi.messages import LogConfig

if TYPE_CHECKING:
    from sampan.shim.log import Piece

_encode = msgspec.json.Encoder().encode
_ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\x1b", b"\\u001b"))
"""What is printed and can't stand in JSON, the backslash first."""
_OTHERS = bytes(set(range(32)) - set(b"\n\t\r\x1b"))
_NAMES = {1: b"stdout", 2: b"stderr"}


class JsonLog:
    def __init__(self, config: LogConfig) -> None:
        """Raises OSError when the file can't be opened."""
        self._file = LogFile(config.path, config.max_size, config.max_file, compress=config.compress)
        attributes = config.attributes
        self._attributes = b'"attrs":%s,' % _encode(attributes) if attributes else b""
        self._second = -1
        self._second_text = ""
        if self._file.size and self._file.read(self._file.size - 1, 1) != b"\n":
            self._file.append(b"\n", lambda: [1])  # A record that a kill has cut is one by itself.

    def lines(self, stream: int, data: bytes, now: int) -> None:
        # All lines at once: escaped as one text, and taken apart where newlines are.
        between = self._end(stream, now, newline=True) + b'{"log":"'
        lines = _escaped(data[:-1]).replace(b"\n", between)
        self._append(b'{"log":"' + lines + between[:-8])

    def piece(self, stream: int, text: bytes, now: int, piece: Piece) -> None:
        start = _encode(text.decode("utf-8", "replace"))[:-1]
        self._append(b'{"log":' + start + self._end(stream, now, newline=piece.last))

    def _append(self, records: bytes) -> None:
        self._file.append(records, lambda: [at + 1 for at, byte in enumerate(records) if byte == 0x0A])

    def close(self) -> None:
        self._file.close()

    def _end(self, stream: int, now: int, *, newline: bool) -> bytes:
        """What stands behind a line's text."""
        moment = self._moment(now).encode()
        return b'%s","stream":"%s",%s"time":"%s"}\n' % (
            b"\\n" if newline else b"", _NAMES[stream], self._attributes, moment,
        )  # fmt: skip

    def _moment(self, now: int) -> str:
        second, fraction = divmod(now, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{fraction:09d}Z"


def _escaped(data: bytes) -> bytes:
    """As the inside of a JSON string, but for newlines. What is no UTF-8 becomes U+FFFD."""
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()
    # Byte by byte in C, and not at all where there is nothing to escape: several times faster than an encoder.
    for character, escape in _ESCAPES:
        if character in data:
            data = data.replace(character, escape)
    if len(data.translate(None, _OTHERS)) < len(data):
        for number in _OTHERS:
            data = data.replace(bytes((number,)), b"\\u%04x" % number)
    return data
