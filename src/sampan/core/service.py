"""The core as one object: opens the stores in order, and guards what loads against what collects."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from sampan.core.archives import Archives, Loaded
from sampan.core.content import ContentStore
from sampan.core.gc import collect
from sampan.core.images import Image, ImageStore, Removed
from sampan.core.metadata import Metadata
from sampan.core.paths import Paths
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.oci.image import RunConfig
from sampan.oci.reference import Reference


class Core:
    """Synchronous, and safe to call from several threads."""

    def __init__(self, paths: Paths) -> None:
        """Make and open everything below the two roots; what interrupted operations left is removed."""
        self.paths = paths
        paths.make()
        for name in os.listdir(paths.temporary):
            os.unlink(f"{paths.temporary}/{name}")
        self.metadata = Metadata(paths.database)
        self.content = ContentStore(paths.content)
        self.snapshots = Overlay2(paths.overlay2, self.metadata)
        self.images = ImageStore(self.metadata, self.content, self.snapshots)
        self.archives = Archives(self.content, self.snapshots, self.images)
        self._users = 0
        self._changed = threading.Condition()
        self.gc()

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Blobs and layers may be without an owner meanwhile: no collection runs."""
        with self._changed:
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def load(self, stream: BinaryIO) -> list[Loaded]:
        """See `Archives.load`; what was no part of an image is removed afterwards."""
        try:
            with self.loading():
                return self.archives.load(stream)
        finally:
            self.gc()

    def import_file_system(
        self, stream: BinaryIO, reference: Reference | None, run: RunConfig, *, message: str = "", arch: str = ""
    ) -> Image:
        """See `Archives.import_file_system`."""
        try:
            with self.loading():
                return self.archives.import_file_system(stream, reference, run, message=message, arch=arch)
        except BaseException:
            self.gc()
            raise

    def remove_image(
        self, name_or_id: str, *, force: bool = False, used_by: Sequence[tuple[str, bool]] = ()
    ) -> list[Removed]:
        """See `ImageStore.remove`; frees what only this image used, and names the layers among that, topmost first."""
        before = self.snapshots.layers()
        chain = self.images.get(name_or_id).chain
        removed = self.images.remove(name_or_id, force=force, used_by=used_by)
        self.gc()
        gone = before.keys() - self.snapshots.layers().keys()
        return [*removed, *(Removed(deleted=layer) for layer in reversed(chain) if layer in gone)]

    def gc(self) -> int:
        """Collect, if nothing is loading now: then whoever loads collects at its end. Returns the bytes freed."""
        with self._changed:
            if self._users:
                return 0
            return collect(self.content, self.snapshots, self.images)

    def close(self) -> None:
        self.metadata.close()
