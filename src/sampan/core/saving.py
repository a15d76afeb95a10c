"""Images into one tar that is both: an OCI layout, and what `docker load` of any age reads.

A layer's blob goes out as it came in. Where it is not kept, the layer's own tar goes out, with a manifest that says so;
the configuration, and with it the image's id, is the same either way.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec

from sampan.core.archives import CONTAINERD_NAME, REFERENCE_NAME, SavedImage, blob_name
from sampan.core.content import LAYOUT, ContentStore
from sampan.core.images import Image, ImageStore
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.errors import InvalidArgument, NotFound
from sampan.oci.digest import ChainID, Digest, digest_of, encoded
from sampan.oci.image import OCI_LAYER, OCI_MANIFEST, Descriptor, Index, Manifest
from sampan.oci.reference import parse_reference

_PIECE = 1 << 20


@dataclass
class _Wanted:
    """One image, and those of its names that are saved."""

    image: Image
    tags: list[str] = field(default_factory=list)


def save(
    content: ContentStore, snapshots: Overlay2, images: ImageStore, chosen: Sequence[tuple[str, Image]], out: BinaryIO
) -> None:
    """Write images to a stream, each under the name that it was called by: a name saves itself, an id all names."""
    wanted: dict[Digest, _Wanted] = {}
    for name, image in chosen:
        tags = wanted.setdefault(image.id, _Wanted(image)).tags
        tags += [tag for tag in _tags(name, image) if tag not in tags]
    with tarfile.open(fileobj=out, mode="w|", bufsize=_PIECE) as archive:
        archive.copybufsize = _PIECE  # type: ignore[attr-defined]
        writer = _Writer(archive, content, snapshots)
        for directory in ("blobs", "blobs/sha256"):
            writer.directory(directory)
        saved: list[SavedImage] = []
        manifests: list[Descriptor] = []
        for each in wanted.values():
            one, descriptor = writer.image(each.image, images.manifest(each.image), each.tags)
            saved.append(one)
            manifests += [
                msgspec.structs.replace(descriptor, annotations=annotations)
                for annotations in ([_annotations(tag) for tag in each.tags] or (None,))
            ]
        writer.file("oci-layout", LAYOUT)
        writer.file("index.json", msgspec.json.encode(Index(manifests=tuple(manifests))))
        writer.file("manifest.json", msgspec.json.encode(saved))
        repositories = _repositories(wanted)
        if repositories:
            writer.file("repositories", msgspec.json.encode(repositories))


class _Writer:
    def __init__(self, archive: tarfile.TarFile, content: ContentStore, snapshots: Overlay2) -> None:
        self._archive = archive
        self._content = content
        self._snapshots = snapshots
        self._written: set[Digest] = set()

    def directory(self, name: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        self._add(entry, None)

    def file(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._add(entry, io.BytesIO(data))

    def _add(self, entry: tarfile.TarInfo, content: BinaryIO | None) -> None:
        self._archive.addfile(entry, content)
        self._archive.members.clear()  # type: ignore[attr-defined]  # It would keep every header.

    def _once(self, digest: Digest) -> bool:
        if digest in self._written:
            return False
        self._written.add(digest)
        return True

    def _blob(self, digest: Digest, file: BinaryIO, size: int) -> None:
        entry = tarfile.TarInfo(blob_name(digest))
        entry.size = size
        self._add(entry, file)

    def _document(self, data: bytes) -> Digest:
        digest = digest_of(data)
        if self._once(digest):
            self._blob(digest, io.BytesIO(data), len(data))
        return digest

    def image(self, image: Image, manifest: Manifest, tags: Sequence[str]) -> tuple[SavedImage, Descriptor]:
        """Its blobs; returns what tells of it in the two indexes."""
        layers = [
            self._layer(layer, diff_id, chain_id)
            for layer, diff_id, chain_id in zip(manifest.layers, image.config.rootfs.diff_ids, image.chain, strict=True)
        ]
        self._document(self._content.read(image.id))
        data = self._content.read(image.manifest)
        if [layer.digest for layer in layers] != [layer.digest for layer in manifest.layers]:
            data = msgspec.json.encode(Manifest(media_type=OCI_MANIFEST, config=manifest.config, layers=tuple(layers)))
        descriptor = Descriptor(
            media_type=msgspec.json.decode(data, type=Manifest).media_type or OCI_MANIFEST,
            digest=self._document(data), size=len(data),
        )  # fmt: skip
        saved = SavedImage(
            config=blob_name(image.id), repo_tags=tuple(tags) or None,
            layers=tuple(blob_name(layer.digest) for layer in layers),
            layer_sources=dict(zip(image.config.rootfs.diff_ids, layers, strict=True)),
        )  # fmt: skip
        return saved, descriptor

    def _layer(self, layer: Descriptor, diff_id: Digest, chain_id: ChainID) -> Descriptor:
        """The layer's blob, or its tar; returns which it was."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._content.open(layer.digest))
            except NotFound:
                tar = self._snapshots.open_tar(chain_id)
                if tar is None:
                    raise
                file = stack.enter_context(tar)
                layer = Descriptor(media_type=OCI_LAYER, digest=diff_id, size=file.seek(0, io.SEEK_END))
                file.seek(0)
            if self._once(layer.digest):
                self._blob(layer.digest, file, layer.size)
        return layer


def _tags(name: str, image: Image) -> list[str]:
    with contextlib.suppress(InvalidArgument):
        familiar = parse_reference(name).with_default_tag().familiar
        if familiar in image.repo_tags:
            return [familiar]
        if familiar in image.repo_digests:
            return []
    return list(image.repo_tags)


def _annotations(tag: str) -> dict[str, str]:
    reference = parse_reference(tag)
    return {CONTAINERD_NAME: f"{reference.name}:{reference.tag}", REFERENCE_NAME: reference.tag}


def _repositories(wanted: Mapping[Digest, _Wanted]) -> dict[str, dict[str, str]]:
    """What Docker before 1.10 reads: name, tag, and an identifier of the topmost layer."""
    result: dict[str, dict[str, str]] = {}
    for each in wanted.values():
        for tag in each.tags:
            reference = parse_reference(tag)
            top = each.image.config.rootfs.diff_ids[-1:] or (each.image.id,)
            result.setdefault(reference.familiar_name, {})[reference.tag] = encoded(top[0])
    return result
