"""Layers come as they are, with gzip or with zstd: told by their first bytes. isal and zstandard do the work."""

from __future__ import annotations

import gzip
import io
from typing import Any, BinaryIO, cast

import zstandard
from isal import igzip, isal_zlib

from sampan.errors import DataCorrupt

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BUFFER = 1 << 20
_GZIP_ERROR: type[Exception] = cast(Any, isal_zlib).error


def decompressed(stream: BinaryIO) -> BinaryIO:
    """The stream's content. Closing it leaves `stream` open. Reading raises DataCorrupt where the data is broken."""
    buffered: Any = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(Any, stream), _BUFFER)
    head = buffered.peek(4)[:4]
    if head.startswith(GZIP_MAGIC):
        return cast(BinaryIO, _Checked(igzip.IGzipFile(fileobj=buffered)))  # type: ignore[no-untyped-call]
    if head == ZSTD_MAGIC:
        reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True, closefd=False)
        return cast(BinaryIO, _Checked(reader))
    return cast(BinaryIO, buffered)


class _Checked:
    """A decompressor whose errors are of our taxonomy."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        try:
            return bytes(self._reader.read(size))
        except (EOFError, _GZIP_ERROR, gzip.BadGzipFile, zstandard.ZstdError, OSError) as error:
            raise DataCorrupt(f"decompress the layer: {error}") from error
