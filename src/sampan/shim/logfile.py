"""A log file that is rotated, and whose predecessors may be compressed.

`path` is written to; `path.1` is the one before, `path.2` the one before that. With `compress` those become
`path.N.gz`, made by a child of the shim beside the writing: what is compressed is there in one form or the other at any
instant.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from sampan.linux import process

_TEMPORARY = ".tmp"
_BLOCK = 1 << 20


class LogFile:
    """Appended to, record by record. A full disk loses records, and nothing else: the container goes on."""

    def __init__(self, path: str, max_size: int, max_file: int, *, compress: bool) -> None:
        """`max_size` 0: never rotated. Raises OSError when the file can't be opened."""
        self._path = path
        self._max_size = max_size
        self._max_file = max(max_file, 1)
        self._compress = compress and max_file > 1
        self._descriptor = -1
        self._compressor: tuple[int, int] | None = None
        self.size = 0
        self._open()
        if self._compress and os.path.exists(f"{path}.1"):
            self._compress_last()  # The shim before us had no time for it.

    def _open(self) -> None:
        self._descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
        )
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """What is there already."""
        return os.pread(self._descriptor, size, offset)

    def truncate(self, size: int) -> None:
        """Cut what a kill or a full disk has left of a record."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def append(self, data: bytes, ends: Callable[[], list[int]]) -> None:
        """Whole records, rotated between two of them. `ends`: where each one ends, asked for when that matters."""
        with contextlib.suppress(OSError):
            if not self._max_size or self.size + len(data) <= self._max_size:
                self._write(data)
                return
            offsets = ends()
            begin = 0
            while begin < len(data):
                fitting = bisect.bisect_right(offsets, begin + self._max_size - self.size)
                end = offsets[fitting - 1] if fitting else 0
                if end <= begin and self.size:
                    self._rotate()
                    continue
                if end <= begin:  # Longer than a file may be: it gets one for itself.
                    end = offsets[bisect.bisect_right(offsets, begin)]
                self._write(data[begin:end])
                begin = end

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:
            self._open()
        written = os.write(self._descriptor, data)
        if written < len(data):
            # The disk was full in the middle of a record; what follows must not be taken for its rest.
            with contextlib.suppress(OSError):
                written += os.write(self._descriptor, data[written:])
        if written < len(data):
            os.ftruncate(self._descriptor, self.size)
        else:
            self.size += written

    def _rotate(self) -> None:
        path = self._path
        self._wait_for_compressor()
        os.close(self._descriptor)
        self._descriptor = -1
        with contextlib.suppress(OSError):
            for number in range(self._max_file - 1, 0, -1):
                older = path if number == 1 else f"{path}.{number - 1}"
                for suffix in ("", ".gz"):
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(older + suffix, f"{path}.{number}{suffix}")
                        with contextlib.suppress(FileNotFoundError):
                            # The other form of what this one has replaced.
                            os.unlink(f"{path}.{number}{'' if suffix else '.gz'}")
            if self._max_file == 1:
                os.unlink(path)
        self._open()
        if self._compress:
            self._compress_last()

    # --- Compression ------------------------------------------------------------------------------

    def _compress_last(self) -> None:
        """Begin to compress `path.1`. Where nothing can be forked it stays as it is."""
        with contextlib.suppress(OSError):
            child = os.fork()
            if not child:
                try:
                    process.close_all_but()
                    os.nice(10)
                    compress(f"{self._path}.1")
                finally:
                    os._exit(0)
            self._compressor = child, os.pidfd_open(child)

    def _wait_for_compressor(self) -> None:
        """It is still busy with the file before: what is compressed is never more than one file behind."""
        if self._compressor is not None:
            child, pidfd = self._compressor
            self._compressor = None
            process.ended(pidfd, 3600)
            os.close(pidfd)
            _reap(child)

    def close(self) -> None:
        """Nobody waits for a compression: the next shim of the container does it anew."""
        if self._compressor is not None:
            with contextlib.suppress(OSError):
                process.send_signal(self._compressor[1], signal.SIGKILL)
            self._wait_for_compressor()
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path}.1.gz{_TEMPORARY}")
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _reap(child: int) -> None:
    """It has ended; the shim's loop may have reaped it, which alone can make its number somebody else's."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def compress(path: str) -> None:
    """`path` becomes `path.gz`. Raises OSError; then it is as it was."""
    from isal import igzip

    temporary = f"{path}.gz{_TEMPORARY}"
    opened: Any = igzip.open  # It has no types.
    with open(path, "rb") as source, opened(temporary, "wb", compresslevel=2) as target:
        while block := source.read(_BLOCK):
            target.write(block)
    os.chmod(temporary, 0o640)
    os.rename(temporary, f"{path}.gz")
    os.unlink(path)
