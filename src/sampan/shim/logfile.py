"""The container's log: Docker's json-file format, written by the shim so that no line waits for the engine.

One JSON object a line: `{"log":"text\\n","stream":"stdout","time":"2024-01-02T03:04:05.123456789Z"}`. A line of more
than 16 KiB is cut into records of which only the last ends in a newline, as Docker does.
"""

from __future__ import annotations

import contextlib
import os
import time

import msgspec

from sampan.shimapi.messages import LogConfig

MAX_RECORD = 16 * 1024

_encode = msgspec.json.Encoder().encode


class LogFile:
    """A log that is appended to. A full disk loses lines, and nothing else: the container goes on."""

    def __init__(self, config: LogConfig) -> None:
        """`driver` other than json-file: everything is dropped. Raises OSError when the file can't be opened."""
        self._config = config
        self._partial: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._descriptor = -1
        self._size = 0
        attributes = config.attributes
        self._attributes = b'"attrs":%s,' % _encode(attributes) if attributes else b""
        self._second = -1
        self._second_text = ""
        if config.driver == "json-file":
            self._open()

    def _open(self) -> None:
        self._descriptor = os.open(
            self._config.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
        )
        self._size = os.fstat(self._descriptor).st_size

    def write(self, stream: int, data: bytes) -> None:
        """Add what the process wrote to `stream` (1 or 2); what has no newline yet waits for it."""
        if self._descriptor < 0:
            return
        rest = self._partial[stream]
        rest += data
        records: list[bytes] = []
        now = self._now()
        begin = 0
        while begin < len(rest):
            newline = rest.find(b"\n", begin, begin + MAX_RECORD)
            end = newline + 1 if newline >= 0 else begin + MAX_RECORD
            if end > len(rest):
                break
            records.append(self._record(stream, bytes(rest[begin:end]), now))
            begin = end
        del rest[:begin]
        if records:
            self._append(records)

    def flush(self) -> None:
        """Write what has no newline and will get none: the process has ended."""
        now = self._now()
        for stream, rest in self._partial.items():
            if rest and self._descriptor >= 0:
                self._append([self._record(stream, bytes(rest), now)])
            rest.clear()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _now(self) -> str:
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{fraction:09d}Z"

    def _record(self, stream: int, text: bytes, now: str) -> bytes:
        name = b"stdout" if stream == 1 else b"stderr"
        return b'{"log":%s,"stream":"%s",%s"time":"%s"}\n' % (
            _encode(text.decode("utf-8", "replace")), name, self._attributes, now.encode(),
        )  # fmt: skip

    def _append(self, records: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            if self._config.max_size <= 0:
                os.write(self._descriptor, b"".join(records))
                return
            for record in records:
                if self._size and self._size + len(record) > self._config.max_size:
                    self._rotate()
                self._size += os.write(self._descriptor, record)

    def _rotate(self) -> None:
        path, files = self._config.path, max(self._config.max_file, 1)
        os.close(self._descriptor)
        self._descriptor = -1
        with contextlib.suppress(OSError):
            for number in range(files - 1, 0, -1):
                older = path if number == 1 else f"{path}.{number - 1}"
                with contextlib.suppress(FileNotFoundError):
                    os.rename(older, f"{path}.{number}")
            if files == 1:
                os.unlink(path)
        self._open()
