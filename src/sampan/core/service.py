"""The core as one object: opens the stores in order, and guards what loads against what collects."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from sampan.core import saving
from sampan.core.archives import Archives, Loaded, OnLayer
from sampan.core.content import ContentStore
from sampan.core.gc import collect
from sampan.core.images import Image, ImageStore, Removed, Users, nobody
from sampan.core.known import KnownBlobs
from sampan.core.metadata import Metadata
from sampan.core.paths import Paths
from sampan.core.pins import Pins
from sampan.core.snapshots import View
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.oci.digest import ChainID, Digest
from sampan.oci.image import RunConfig
from sampan.oci.reference import Reference

PULL = "pull"
"""The intents of pulls under way; their detail names the blobs of the image."""


class Core:
    """Synchronous, and safe to call from several threads."""

    def __init__(self, paths: Paths, *, layers: str = "", keep_blobs: bool = False) -> None:
        """Make and open everything below the two roots; what interrupted operations left is removed. `layers`: see
        `Overlay2`. `keep_blobs`: see `ImageStore`."""
        self.paths = paths
        paths.make()
        for name in os.listdir(paths.temporary):
            os.unlink(f"{paths.temporary}/{name}")
        self.metadata = Metadata(paths.database)
        self.pins = Pins()
        self.content = ContentStore(paths.content, self.pins)
        self.snapshots = Overlay2(paths.overlay2, self.metadata, layers=layers)
        self.images = ImageStore(self.metadata, self.content, self.snapshots, keep_blobs=keep_blobs)
        self.known = KnownBlobs(self.metadata)
        self.archives = Archives(self.content, self.snapshots, self.images)
        with self.loading():
            self._spare_interrupted()
            self.gc()

    def _spare_interrupted(self) -> None:
        """What pulls had fetched that an end of the engine interrupted: this collection leaves it to the next try."""
        for intent in self.metadata.pending(PULL):
            for digest in msgspec.json.decode(intent.detail, type=list[Digest]):
                self.pins.pin(digest)
            self.metadata.settle(intent.id)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Blobs and layers may be without an owner meanwhile: what is stored or found to be there stays."""
        with self.pins.holding():
            yield

    def load(self, stream: BinaryIO, platform: str = "", on_layer: OnLayer | None = None) -> list[Loaded]:
        """See `Archives.load`; what was no part of an image, or is in its layers, is removed afterwards."""
        try:
            with self.loading():
                return self.archives.load(stream, platform, on_layer)
        finally:
            self.gc()

    def save(self, names: Sequence[str], output: BinaryIO) -> None:
        """See `saving.save`. An image that is removed meanwhile is written all the same, and collected then."""
        try:
            with self.loading():
                chosen = [(name, self.images.get(name)) for name in names]
                for _, image in chosen:
                    for needed in (*self.images.needs(image), *image.chain):
                        self.pins.pin(needed)
                saving.save(self.content, self.snapshots, self.images, chosen, output)
        finally:
            self.gc()

    def import_file_system(
        self, stream: BinaryIO, reference: Reference | None, run: RunConfig, *, message: str = "", arch: str = ""
    ) -> Image:
        """See `Archives.import_file_system`."""
        try:
            with self.loading():
                return self.archives.import_file_system(stream, reference, run, message=message, arch=arch)
        finally:
            self.gc()

    def commit(
        self, parent: Image, view: View, run: RunConfig, *, reference: Reference | None, comment: str, author: str,
        created_by: str,
    ) -> Image:  # fmt: skip
        """See `Archives.commit`."""
        try:
            with self.loading():
                for needed in (*self.images.needs(parent), *parent.chain):
                    self.pins.pin(needed)
                return self.archives.commit(
                    parent, view, run, reference=reference, comment=comment, author=author, created_by=created_by
                )
        finally:
            self.gc()

    def remove_image(
        self, name_or_id: str, *, force: bool = False, prune: bool = True, users: Users = nobody
    ) -> list[Removed]:
        """See `ImageStore.remove`; frees what only the removed used, and names the layers among that, topmost first,
        each after the image that it goes with."""
        before = self.snapshots.layers()
        chains: dict[str, list[ChainID]] = {image.id: image.chain for image in self.images.all()}
        removed = self.images.remove(name_or_id, force=force, prune=prune, users=users)
        self.gc()
        gone = before.keys() - self.snapshots.layers().keys()
        told: list[Removed] = []
        for each in removed:
            told.append(each)
            if each.deleted:
                layers = [layer for layer in reversed(chains.get(each.image, ())) if layer in gone]
                told += [Removed(deleted=layer) for layer in layers]
                gone -= set(layers)
        return told

    def gc(self) -> int:
        """Collect; returns the bytes freed. What is being loaded or saved stays: who does that collects after it."""
        freed = collect(self.pins, self.content, self.snapshots, self.images)
        self.known.forget_unused()
        return freed

    def close(self) -> None:
        self.snapshots.close()
        self.metadata.close()
