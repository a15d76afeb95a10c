"""A layer's uncompressed stream as it comes in: whoever reads it (the walk over the tar) has it hashed and kept at the
same time, by a thread of its own, so that decompressing the next piece need not wait. Hashing and writing leave
Python's lock to others."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from sampan.core.snapshots.tarwalk import Readable
from sampan.oci.digest import Digest

_CHUNK = 1 << 20
_WAITING = 4
"""Pieces that are read and not yet kept."""


class Intake:
    """Reads are serial. `size`: bytes so far."""

    def __init__(self, stream: Readable, file: BinaryIO | None) -> None:
        self.size = 0
        self._stream = stream
        self._file = file
        self._hash = hashlib.sha256()
        self._queue: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._keep, name="layer-intake", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while data := self._queue.get():
            if self._error is not None:
                continue
            try:
                if self._file is not None:
                    rest = memoryview(data)
                    while rest:  # An unbuffered file may take a part.
                        rest = rest[self._file.write(rest) :]
                self._hash.update(data)
            except BaseException as error:
                self._error = error

    def read(self, size: int, /) -> bytes:
        """Raises what the stream does, and OSError where the file can't be written any more."""
        if self._error is not None:
            raise self._error
        data = self._stream.read(size)
        if data:
            self.size += len(data)
            self._queue.put(data)
        return data

    def finish(self) -> Digest:
        """Of the whole stream: what the archive's end left unread counts too. All is in the file afterwards."""
        while self.read(_CHUNK):
            continue
        self.close()
        if self._error is not None:
            raise self._error
        return Digest("sha256:" + self._hash.hexdigest())

    def close(self) -> None:
        """Idempotent. After an error of the reader's: what waits is thrown away."""
        if not self._ended:
            self._ended = True
            self._queue.put(b"")
            self._thread.join()


@contextmanager
def intake(stream: Readable, file: BinaryIO | None = None) -> Iterator[Intake]:
    """`file`: unbuffered, or closed before what is in it is read by another name."""
    result = Intake(stream, file)
    try:
        yield result
    finally:
        result.close()
