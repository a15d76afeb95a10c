"""Images in tar files: `docker save` archives, OCI image layouts, and plain file systems to import.

An archive may come as a stream, and its index may stand at the end: so its files go into the content store as they
come, by their digests, and what turns out to be no part of an image is collected afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import platform
import posixpath
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from sampan.core.compression import GZIP_MAGIC, ZSTD_MAGIC, decompressed
from sampan.core.content import MAX_DOCUMENT, ContentStore
from sampan.core.images import Image, ImageStore
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.errors import DataCorrupt, InvalidArgument, NotFound
from sampan.oci.digest import ChainID, Digest, chain_ids, encoded
from sampan.oci.image import (
    INDEXES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    RootFS,
    RunConfig,
    decode,
)
from sampan.oci.reference import Reference, parse_reference

_REFERENCE_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_CHUNK = 1 << 20
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class _SavedImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One image of a `docker save` archive's manifest.json."""

    config: str
    repo_tags: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Loaded:
    """An image that came out of an archive, and the names it got (in the familiar form)."""

    image: Image
    names: tuple[str, ...]


def architecture() -> str:
    """This machine's, in Go's words, as images name it."""
    return _MACHINES.get(platform.machine(), platform.machine())


class Archives:
    def __init__(self, content: ContentStore, snapshots: Overlay2, images: ImageStore) -> None:
        self._content = content
        self._snapshots = snapshots
        self._images = images

    # --- Load -------------------------------------------------------------------------------------

    def load(self, stream: BinaryIO) -> list[Loaded]:
        """Take the images of an archive. Raises InvalidArgument and DataCorrupt; then no image of it is there."""
        files: dict[str, Digest] = {}
        links: dict[str, str] = {}
        with _tar_errors(), tarfile.open(fileobj=decompressed(stream), mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.issym() or member.islnk():
                    # Old archives name a layer that several images share by a link.
                    links[name] = _joined(name, member.linkname) if member.issym() else member.linkname
                if not member.isreg():
                    continue
                files[name] = self._store(archive, member)
        for name, target in links.items():
            if target in files:
                files.setdefault(name, files[target])
        if "manifest.json" in files:
            return self._load_saved(files)
        if "index.json" in files:
            return self._load_layout(files)
        raise InvalidArgument("invalid archive: it has neither manifest.json nor index.json")

    def _store(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Digest:
        content = archive.extractfile(member)
        assert content is not None
        with content, self._content.ingest() as blob:
            left = member.size
            while left:
                data = content.read(min(left, _CHUNK))
                if not data:
                    raise DataCorrupt(f"invalid archive: {member.name}: unexpected end of data")
                blob.write(data)
                left -= len(data)
            return blob.commit()

    def _document(self, files: dict[str, Digest], name: str) -> bytes:
        if name not in files:
            raise InvalidArgument(f"invalid archive: {name} is missing")
        if self._content.size(files[name]) > MAX_DOCUMENT:
            raise InvalidArgument(f"invalid archive: {name} is too large")
        return self._content.read(files[name])

    def _load_saved(self, files: dict[str, Digest]) -> list[Loaded]:
        document = self._document(files, "manifest.json")
        saved = decode(document, tuple[_SavedImage, ...], "invalid archive: manifest.json")
        loaded: list[Loaded] = []
        for each in saved:
            config = decode(self._document(files, each.config), ImageConfig, f"invalid archive: {each.config}")
            layers: list[Descriptor] = []
            for name in each.layers or ():
                if name not in files:
                    raise InvalidArgument(f"invalid archive: {name} is missing")
                layers.append(self._layer_descriptor(files[name]))
            manifest = Manifest(
                media_type=OCI_MANIFEST,
                config=Descriptor(
                    media_type=OCI_CONFIG, digest=files[each.config], size=self._content.size(files[each.config])
                ),
                layers=tuple(layers),
            )
            tags = [parse_reference(name) for name in each.repo_tags or ()]
            self.unpack(config, layers)
            image = self._images.add(files[each.config], self._content.write(msgspec.json.encode(manifest)), tags=tags)
            loaded.append(Loaded(image, tuple(tag.with_default_tag().familiar for tag in tags)))
        return loaded

    def _layer_descriptor(self, digest: Digest) -> Descriptor:
        with self._content.open(digest) as file:
            head = file.read(4)
        kinds = ((GZIP_MAGIC, OCI_LAYER_GZIP), (ZSTD_MAGIC, OCI_LAYER_ZSTD), (b"", OCI_LAYER))
        kind = next(kind for magic, kind in kinds if head.startswith(magic))
        return Descriptor(media_type=kind, digest=digest, size=self._content.size(digest))

    def _load_layout(self, files: dict[str, Digest]) -> list[Loaded]:
        index = decode(self._document(files, "index.json"), Index, "invalid archive: index.json")
        loaded: list[Loaded] = []
        for descriptor in index.manifests:
            annotations = descriptor.annotations or {}
            name = annotations.get(_CONTAINERD_NAME) or annotations.get(_REFERENCE_NAME, "")
            # An OCI layout may name a tag alone, which says nothing about the image's name.
            tags = [parse_reference(name)] if ":" in name or "/" in name else []
            manifest_digest = self.choose(descriptor).digest
            manifest, config = self._documents(manifest_digest)
            self.unpack(config, manifest.layers)
            image = self._images.add(manifest.config.digest, manifest_digest, tags=tags)
            loaded.append(Loaded(image, tuple(tag.with_default_tag().familiar for tag in tags)))
        return loaded

    def choose(self, descriptor: Descriptor, wanted: str = "") -> Descriptor:
        """The manifest for this machine, through as many indexes as there are. `wanted`: os/architecture[/variant]."""
        while descriptor.media_type in INDEXES:
            index = decode(self._content.read(descriptor.digest), Index, f"index {descriptor.digest}")
            descriptor = choose_platform(index, wanted)
        return descriptor

    def _documents(self, manifest_digest: Digest) -> tuple[Manifest, ImageConfig]:
        manifest = decode(self._content.read(manifest_digest), Manifest, f"manifest {manifest_digest}")
        config = decode(self._content.read(manifest.config.digest), ImageConfig, f"image {manifest.config.digest}")
        return manifest, config

    def unpack(
        self, config: ImageConfig, layers: Sequence[Descriptor], on_layer: Callable[[Descriptor], None] | None = None
    ) -> None:
        """Make the layers of an image whose blobs are there. `on_layer` is called before each one that is missing."""
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(layers):
            raise InvalidArgument(f"invalid image: {len(layers)} layers, and {len(diff_ids)} diff ids")
        parent: ChainID | None = None
        for diff_id, chain_id, layer in zip(diff_ids, chain_ids(diff_ids), layers, strict=True):
            if not self._snapshots.has_layer(chain_id):
                if on_layer is not None:
                    on_layer(layer)
                with self._content.open(layer.digest) as file:
                    self._snapshots.add_layer(chain_id, diff_id, parent, decompressed(file))
            parent = chain_id

    # --- Import -----------------------------------------------------------------------------------

    def import_file_system(
        self, stream: BinaryIO, reference: Reference | None, run: RunConfig, *, message: str = "", arch: str = ""
    ) -> Image:
        """Make an image of one layer from a tar of a file system, compressed or not."""
        with self._content.ingest() as blob:
            while data := stream.read(_CHUNK):
                blob.write(data)
            layer_digest = blob.commit()
        diff_id = self._diff_id(layer_digest)
        created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 1_000_000_000:09d}Z"
        config = ImageConfig(
            created=created, architecture=arch or architecture(), os="linux", config=run,
            rootfs=RootFS(diff_ids=(diff_id,)), history=(History(created=created, comment=message),),
        )  # fmt: skip
        layer = self._layer_descriptor(layer_digest)
        self.unpack(config, [layer])
        data = msgspec.json.encode(config)
        config_digest = self._content.write(data)
        manifest = Manifest(
            media_type=OCI_MANIFEST,
            config=Descriptor(media_type=OCI_CONFIG, digest=config_digest, size=len(data)),
            layers=(layer,),
        )
        return self._images.add(
            config_digest, self._content.write(msgspec.json.encode(manifest)), tags=[reference] if reference else []
        )

    def _diff_id(self, digest: Digest) -> Digest:
        total = hashlib.sha256()
        with self._content.open(digest) as file:
            plain = decompressed(file)
            while data := plain.read(_CHUNK):
                total.update(data)
        return Digest("sha256:" + total.hexdigest())

    # --- Save -------------------------------------------------------------------------------------

    def save(self, names: Sequence[str], output: BinaryIO) -> None:
        """Write images as an archive that is both: an OCI layout, and what `docker load` of any age reads."""
        saved: list[_SavedImage] = []
        manifests: list[Descriptor] = []
        chosen = [(name, self._images.get(name)) for name in names]
        with tarfile.open(fileobj=output, mode="w|") as archive:
            written: set[Digest] = set()
            for name, image in chosen:
                manifest = self._images.manifest(image)
                for digest in (image.id, image.manifest, *(layer.digest for layer in manifest.layers)):
                    if digest not in written:
                        written.add(digest)
                        self._add_blob(archive, digest)
                tags = _tags_to_save(name, image)
                saved.append(
                    _SavedImage(
                        config=_blob_name(image.id), repo_tags=tuple(tags) or None,
                        layers=tuple(_blob_name(layer.digest) for layer in manifest.layers),
                    )
                )  # fmt: skip
                manifests += [
                    Descriptor(
                        media_type=manifest.media_type or OCI_MANIFEST, digest=image.manifest,
                        size=self._content.size(image.manifest), annotations=annotations,
                    )
                    for annotations in ([_annotations(tag) for tag in tags] or (None,))
                ]  # fmt: skip
            _add_file(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add_file(archive, "index.json", msgspec.json.encode(Index(manifests=tuple(manifests))))
            _add_file(archive, "manifest.json", msgspec.json.encode(saved))

    def _add_blob(self, archive: tarfile.TarFile, digest: Digest) -> None:
        entry = tarfile.TarInfo(_blob_name(digest))
        entry.size = self._content.size(digest)
        with self._content.open(digest) as file:
            archive.addfile(entry, file)


def choose_platform(index: Index, wanted: str = "") -> Descriptor:
    """The first manifest for this machine, or for `os/architecture[/variant]`. Raises NotFound."""
    os_name, _, rest = (wanted or f"linux/{architecture()}").partition("/")
    machine, _, variant = rest.partition("/")
    for descriptor in index.manifests:
        offered = descriptor.platform
        if offered is None:
            if len(index.manifests) == 1:
                return descriptor
            continue
        if offered.os == os_name and (not machine or offered.architecture == machine):
            if variant and offered.variant != variant:
                continue
            return descriptor
    raise NotFound(f"no matching manifest for {os_name}/{machine or architecture()} in the manifest list entries")


def _tags_to_save(name: str, image: Image) -> list[str]:
    """A name saves itself; an id saves all names of its image."""
    with contextlib.suppress(InvalidArgument):
        familiar = parse_reference(name).with_default_tag().familiar
        if familiar in image.repo_tags:
            return [familiar]
    return list(image.repo_tags)


def _annotations(tag: str) -> dict[str, str] | None:
    reference = parse_reference(tag)
    return {_CONTAINERD_NAME: f"{reference.name}:{reference.tag}", _REFERENCE_NAME: reference.tag}


def _blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{encoded(digest)}"


def _add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _joined(name: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


@contextlib.contextmanager
def _tar_errors() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise DataCorrupt(f"invalid archive: {error}") from error
