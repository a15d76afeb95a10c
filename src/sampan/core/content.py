"""The content store: blobs by digest, as an OCI image layout (image-spec image-layout.md).

A blob appears whole and verified, by a rename, or not at all. It is not synced to disk by itself: after a power failure
a blob may be empty, which its size tells, and it is fetched again; the rows that name it are written after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from sampan.core.pins import Pins
from sampan.errors import DataCorrupt, NotFound, ResourceExhausted, Unavailable
from sampan.oci.digest import Digest, encoded

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

MAX_DOCUMENT = 8 << 20
"""Bytes of a manifest, an index or an image's configuration."""
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class ContentStore:
    def __init__(self, root: str, pins: Pins | None = None) -> None:
        """The layout's directory; made if it is missing. What an interrupted ingest left is removed."""
        self.root = root
        self.pins = pins or Pins()
        self._blobs = f"{root}/blobs/sha256"
        self._ingest = f"{root}/ingest"
        os.makedirs(self._blobs, mode=0o700, exist_ok=True)
        os.makedirs(self._ingest, mode=0o700, exist_ok=True)
        if not os.path.exists(f"{root}/oci-layout"):
            with open(f"{root}/oci-layout", "wb") as file:
                file.write(LAYOUT)
        for name in os.listdir(self._ingest):
            os.unlink(f"{self._ingest}/{name}")

    def path(self, digest: Digest) -> str:
        return f"{self._blobs}/{encoded(digest)}"

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there, of that size if one is given. It stays then (`core.pins`)."""
        self.pins.pin(digest)
        try:
            found = os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def size(self, digest: Digest) -> int:
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFound(f"blob {digest} not found") from None

    def read(self, digest: Digest) -> bytes:
        """A document, whole. Raises NotFound, DataCorrupt for what is too large for one: its size is a registry's or an
        archive's to say, and it is in memory for as long as it is decoded."""
        with self.open(digest) as file:
            content = file.read(MAX_DOCUMENT + 1)
        if len(content) > MAX_DOCUMENT:
            raise DataCorrupt(f"blob {digest} is too large for a document")
        return content

    def open(self, digest: Digest) -> BinaryIO:
        """Raises NotFound."""
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError:
            raise NotFound(f"blob {digest} not found") from None

    def write(self, data: bytes) -> Digest:
        """Store bytes; returns their digest."""
        with self.ingest() as blob:
            blob.write(data)
            return blob.commit()

    @contextlib.contextmanager
    def ingest(self) -> Iterator[Ingest]:
        """A blob under way; gone at the end unless it was committed."""
        blob = Ingest(self, f"{self._ingest}/{secrets.token_hex(16)}")
        try:
            yield blob
        finally:
            blob.abort()

    def delete(self, digest: Digest) -> int:
        """Remove a blob; returns the bytes that this freed, 0 if it was not there."""
        try:
            size = os.stat(self.path(digest)).st_size
            os.unlink(self.path(digest))
        except FileNotFoundError:
            return 0
        return size

    def follow(self, digest: Digest) -> Follower:
        """A blob that is there, to read as one that is still coming. Raises NotFound."""
        return Follower(self.open(digest), None)

    def all(self) -> Iterable[Digest]:
        """Every blob's digest."""
        return [Digest(f"sha256:{name}") for name in os.listdir(self._blobs)]


class Ingest:
    """A blob that is being written; others may read what has come of it meanwhile (`follow`)."""

    def __init__(self, store: ContentStore, path: str) -> None:
        self.size = 0
        self.changed = threading.Condition()
        self.state = "coming"
        """Then `whole` or `given up`. Read and written under `changed`, as `size` is."""
        self._followed = False
        self._store = store
        self._path = path
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = open(path, "xb", buffering=1 << 18)  # noqa: SIM115 - closed by commit and abort

    def write(self, data: bytes) -> None:
        """Raises ResourceExhausted when the disk is full."""
        assert self._file is not None
        self._hash.update(data)
        try:
            self._file.write(data)
            if self._followed:
                self._file.flush()
        except OSError as error:
            raise _full(error) from error
        with self.changed:
            self.size += len(data)
            self.changed.notify_all()

    def follow(self) -> Follower:
        """To be called before the first write."""
        self._followed = True
        return Follower(open(self._path, "rb", buffering=0), self)

    def _end(self, state: str) -> None:
        with self.changed:
            self.state = state
            self.changed.notify_all()

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        """Give it its name. Raises DataCorrupt when digest or size are not the expected ones."""
        assert self._file is not None
        digest = Digest("sha256:" + self._hash.hexdigest())
        if size is not None and size != self.size:
            raise DataCorrupt(f"blob {expected or digest}: {self.size} bytes instead of {size}")
        if expected is not None and expected != digest:
            raise DataCorrupt(f"blob {expected}: its content hashes to {digest}")
        file, self._file = self._file, None
        try:
            file.close()
        except OSError as error:
            os.unlink(self._path)
            self._end("given up")
            raise _full(error) from error
        self._store.pins.pin(digest)
        os.rename(self._path, self._store.path(digest))
        self._end("whole")
        return digest

    def abort(self) -> None:
        if self._file is None:
            return
        self._end("given up")
        file, self._file = self._file, None
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class GivenUp(Unavailable):
    """What a blob's follower waits for does not come any more."""


class Follower(io.RawIOBase):
    """The bytes of a blob, as far as they have come; whoever reads waits for the next. They are verified when it is
    whole: until the end has been read they may be anything. `give_up` may be called by another thread."""

    def __init__(self, file: BinaryIO, ingest: Ingest | None) -> None:
        """`ingest`: None for a blob that is whole."""
        self.offset = 0
        self._file = file
        self._ingest = ingest
        self._given_up = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Raises GivenUp."""
        view = memoryview(buffer).cast("B")
        if self._ingest is not None:
            view = view[: self._wait(self._ingest)]
        if self._given_up:
            raise GivenUp("the blob is not wanted any more")
        count = os.preadv(self._file.fileno(), [view], self.offset) if view else 0
        self.offset += count
        return count

    def _wait(self, ingest: Ingest) -> int:
        """Until there is more; how much."""
        with ingest.changed:
            while not self._given_up:
                if ingest.state == "given up":
                    raise GivenUp("the blob did not come to its end")
                if ingest.size > self.offset or ingest.state == "whole":
                    break
                ingest.changed.wait()
            return ingest.size - self.offset

    def give_up(self) -> None:
        """The next read raises."""
        self._given_up = True
        if self._ingest is not None:
            with self._ingest.changed:
                self._ingest.changed.notify_all()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _full(error: OSError) -> ResourceExhausted:
    return ResourceExhausted(f"write a blob: {(error.strerror or str(error)).lower()}")
