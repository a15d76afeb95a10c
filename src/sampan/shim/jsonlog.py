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
        # All lines at once: encoded as one text, and taken apart where newlines are.
        text = _encode(data.decode("utf-8", "replace"))[1:-3]
        between = self._end(stream, now, newline=True) + b'{"log":"'
        if b"\\" in data:
            # Then a backslash before an n may be the text's own. No raw zero is ever in JSON.
            text = text.replace(b"\\\\", b"\0")
            text = between.join(text.split(b"\\n")).replace(b"\0", b"\\\\")
        else:
            text = between.join(text.split(b"\\n"))
        self._append(b'{"log":"' + text + between[:-8])

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
