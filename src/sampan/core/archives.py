"""Images in tar files: `docker save` archives, OCI image layouts, and plain file systems to import.

An archive may come as a stream, and its index may stand at the end: so its files go into the content store as they
come, by their digests, and what turns out to be no part of an image is collected afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import posixpath
import tarfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from sampan.core.changes import compare
from sampan.core.compression import GZIP_MAGIC, ZSTD_MAGIC, decompressed
from sampan.core.content import MAX_DOCUMENT, ContentStore
from sampan.core.images import Image, ImageStore
from sampan.core.snapshots import Body, View
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.core.trees import write_changes
from sampan.errors import DataCorrupt, InvalidArgument, NotFound, SampanError
from sampan.oci.digest import ChainID, Digest, chain_ids, encoded
from sampan.oci.image import (
    INDEXES,
    MANIFESTS,
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

REFERENCE_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
_MOST_FILES = 100_000
"""Of one archive: each becomes a blob, and its name is in memory."""
_MOST_INDEXES = 8
_CHUNK = 1 << 20
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class SavedImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One image of a `docker save` archive's manifest.json. `layer_sources`: by diff id, what is in the archive."""

    config: str
    repo_tags: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    layer_sources: dict[str, Descriptor] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True)
class Loaded:
    """An image that came out of an archive, and the names it got (in the familiar form)."""

    image: Image
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """An image whose blobs and layers are there, and that nobody sees yet."""

    config: Digest
    manifest: Digest
    tags: Sequence[Reference]


OnLayer = Callable[[Descriptor], None]


def architecture() -> str:
    """This machine's, in Go's words, as images name it."""
    return _MACHINES.get(platform.machine(), platform.machine())


class Archives:
    def __init__(self, content: ContentStore, snapshots: Overlay2, images: ImageStore) -> None:
        self._content = content
        self._snapshots = snapshots
        self._images = images

    # --- Load -------------------------------------------------------------------------------------

    def load(self, stream: BinaryIO, platform: str = "", on_layer: OnLayer | None = None) -> list[Loaded]:
        """Take the images of an archive: all of them, or none. `platform`: os/architecture[/variant], where there are
        several. `on_layer`: as of `unpack`. Raises InvalidArgument, DataCorrupt, NotFound (the platform)."""
        files = self._files(stream)
        if "manifest.json" in files:
            found = self._saved(files, platform, on_layer)
        elif "index.json" in files:
            found = self._layout(files, platform, on_layer)
        else:
            raise InvalidArgument("invalid archive: it has neither manifest.json nor index.json")
        with self._images.together():
            images = [self._images.add(each.config, each.manifest, tags=each.tags) for each in found]
        return [
            Loaded(image, tuple(tag.with_default_tag().familiar for tag in each.tags))
            for image, each in zip(images, found, strict=True)
        ]

    def _files(self, stream: BinaryIO) -> dict[str, Digest]:
        """The archive's files in the content store, by name."""
        files: dict[str, Digest] = {}
        links: dict[str, str] = {}
        with _tar_errors(), tarfile.open(fileobj=decompressed(stream), mode="r|", bufsize=_CHUNK) as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # It would keep every header.
                name = member.name.removeprefix("./")
                if len(files) + len(links) >= _MOST_FILES:
                    raise InvalidArgument(f"invalid archive: it has more than {_MOST_FILES} files")
                if member.issym() or member.islnk():
                    # Old archives name a layer that several images share by a link.
                    links[name] = _joined(name, member.linkname) if member.issym() else member.linkname
                elif member.isreg():
                    files[name] = self._store(archive, member)
        for name, target in links.items():
            if target in files:
                files.setdefault(name, files[target])
        for name, digest in files.items():
            folder, _, digits = name.rpartition("/")
            if folder == "blobs/sha256" and digits != encoded(digest):
                raise DataCorrupt(f"invalid archive: {name}: its content hashes to {digest}")
        return files

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

    def _saved(self, files: dict[str, Digest], platform: str, on_layer: OnLayer | None) -> list[_Found]:
        document = self._document(files, "manifest.json")
        originals = self._manifests(files)
        found: list[_Found] = []
        for each in decode(document, tuple[SavedImage, ...], "invalid archive: manifest.json"):
            config = decode(self._document(files, each.config), ImageConfig, f"invalid archive: {each.config}")
            check_platform(config, platform)
            layers: list[Descriptor] = []
            for name in each.layers or ():
                if name not in files:
                    raise InvalidArgument(f"invalid archive: {name} is missing")
                layers.append(self._layer_descriptor(files[name]))
            tags = [parse_reference(name) for name in each.repo_tags or ()]
            self.unpack(config, layers, on_layer)
            key = (files[each.config], tuple(layer.digest for layer in layers))
            manifest = originals.get(key) or self._write_manifest(files[each.config], layers)
            found.append(_Found(files[each.config], manifest, tags))
        return found

    def _manifests(self, files: dict[str, Digest]) -> dict[tuple[Digest, tuple[Digest, ...]], Digest]:
        """The manifests that an archive has besides its manifest.json, by config and layers: they keep their digest."""
        manifests: dict[tuple[Digest, tuple[Digest, ...]], Digest] = {}
        with contextlib.suppress(SampanError):
            index = decode(self._document(files, "index.json"), Index, "index.json")
            for each in index.manifests:
                if each.media_type in MANIFESTS and blob_name(each.digest) in files:
                    manifest = decode(self._content.read(each.digest), Manifest, "manifest")
                    manifests[manifest.config.digest, tuple(layer.digest for layer in manifest.layers)] = each.digest
        return manifests

    def _write_manifest(self, config: Digest, layers: Sequence[Descriptor]) -> Digest:
        descriptor = Descriptor(media_type=OCI_CONFIG, digest=config, size=self._content.size(config))
        manifest = Manifest(media_type=OCI_MANIFEST, config=descriptor, layers=tuple(layers))
        return self._content.write(msgspec.json.encode(manifest))

    def _layer_descriptor(self, digest: Digest) -> Descriptor:
        with self._content.open(digest) as file:
            head = file.read(4)
        kinds = ((GZIP_MAGIC, OCI_LAYER_GZIP), (ZSTD_MAGIC, OCI_LAYER_ZSTD), (b"", OCI_LAYER))
        kind = next(kind for magic, kind in kinds if head.startswith(magic))
        return Descriptor(media_type=kind, digest=digest, size=self._content.size(digest))

    def _layout(self, files: dict[str, Digest], platform: str, on_layer: OnLayer | None) -> list[_Found]:
        index = decode(self._document(files, "index.json"), Index, "invalid archive: index.json")
        present = set(files.values())
        found: list[_Found] = []
        for descriptor in index.manifests:
            annotations = descriptor.annotations or {}
            name = annotations.get(CONTAINERD_NAME) or annotations.get(REFERENCE_NAME, "")
            # An OCI layout may name a tag alone, which says nothing about the image's name.
            tags = [parse_reference(name)] if ":" in name or "/" in name else []
            manifest_digest = self.choose(descriptor, platform, present).digest
            manifest = decode(self._present(manifest_digest, present), Manifest, f"manifest {manifest_digest}")
            config_data = self._present(manifest.config.digest, present)
            config = decode(config_data, ImageConfig, f"image {manifest.config.digest}")
            check_platform(config, platform)
            for layer in manifest.layers:
                if layer.digest not in present:
                    raise InvalidArgument(f"invalid archive: {blob_name(layer.digest)} is missing")
            self.unpack(config, manifest.layers, on_layer)
            found.append(_Found(manifest.config.digest, manifest_digest, tags))
        if not found:
            raise InvalidArgument("invalid archive: index.json names no image")
        return found

    def _present(self, digest: Digest, present: Collection[Digest] | None) -> bytes:
        """A document of the archive, if it is that which is read; what the store has besides may go at any time."""
        if present is not None and digest not in present:
            raise InvalidArgument(f"invalid archive: {blob_name(digest)} is missing")
        return self._content.read(digest)

    def choose(self, descriptor: Descriptor, wanted: str = "", present: Collection[Digest] | None = None) -> Descriptor:
        """The manifest for this machine, through as many indexes as there are. `wanted`: os/architecture[/variant].
        `present`: what an archive has."""
        for _ in range(_MOST_INDEXES):
            if descriptor.media_type not in INDEXES:
                return descriptor
            index = decode(self._present(descriptor.digest, present), Index, f"index {descriptor.digest}")
            descriptor = choose_platform(index, wanted)
        raise InvalidArgument(f"invalid image: more than {_MOST_INDEXES} indexes in each other")

    def unpack(self, config: ImageConfig, layers: Sequence[Descriptor], on_layer: OnLayer | None = None) -> None:
        """Make the layers of an image whose blobs are there. `on_layer` is called before each one that is missing."""
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(layers):
            raise InvalidArgument(f"invalid image: {len(layers)} layers, and {len(diff_ids)} diff ids")
        parent: ChainID | None = None
        for diff_id, chain_id, layer in zip(diff_ids, chain_ids(diff_ids), layers, strict=True):
            self._content.pins.pin(chain_id)
            if not self._snapshots.has_layer(chain_id):
                if on_layer is not None:
                    on_layer(layer)
                self._snapshots.add_layer(chain_id, parent, self._body(layer, diff_id))
            parent = chain_id

    def _body(self, layer: Descriptor, diff_id: Digest) -> Body:
        if layer.digest == diff_id:
            return self._snapshots.adopt_body(diff_id, self._content.path(diff_id))
        with self._content.open(layer.digest) as file:
            return self._snapshots.make_body(diff_id, decompressed(file))

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
        created = moment()
        config = ImageConfig(
            created=created, architecture=arch or architecture(), os="linux", config=run,
            rootfs=RootFS(diff_ids=(diff_id,)), history=(History(created=created, comment=message),),
        )  # fmt: skip
        return self.make(config, [self._layer_descriptor(layer_digest)], reference)

    def make(
        self, config: ImageConfig, layers: Sequence[Descriptor], reference: Reference | None = None,
        parent: Digest | None = None,
    ) -> Image:  # fmt: skip
        """The image of a new configuration and of layers whose blobs are there."""
        self.unpack(config, layers)
        config_digest = self._content.write(msgspec.json.encode(config))
        manifest = self._write_manifest(config_digest, layers)
        return self._images.add(config_digest, manifest, tags=[reference] if reference else [], parent=parent)

    def commit(
        self, parent: Image, view: View, run: RunConfig, *, reference: Reference | None, comment: str, author: str,
        created_by: str,
    ) -> Image:  # fmt: skip
        """Make an image of what a container has changed, on top of the one that it was made of."""
        changes = compare(view)
        base = parent.config
        layers = list(self._images.manifest(parent).layers)
        diff_ids = base.rootfs.diff_ids
        if changes:
            with self._content.ingest() as blob:
                write_changes(view.root, changes, blob)
                layer_digest = blob.commit()
            layers.append(self._layer_descriptor(layer_digest))
            diff_ids = (*diff_ids, layer_digest)
        created = moment()
        before = base.history or ()
        told = sum(not each.empty_layer for each in before)
        before = (*before, *(History() for _ in range(len(layers) - bool(changes) - told)))
        step = History(
            created=created, created_by=created_by, author=author, comment=comment, empty_layer=not changes
        )  # fmt: skip
        config = msgspec.structs.replace(
            base, created=created, author=author or base.author, config=run, rootfs=RootFS(diff_ids=diff_ids),
            history=(*before, step), docker_version="",
        )  # fmt: skip
        return self.make(config, layers, reference, parent.id)

    def _diff_id(self, digest: Digest) -> Digest:
        total = hashlib.sha256()
        with self._content.open(digest) as file:
            plain = decompressed(file)
            while data := plain.read(_CHUNK):
                total.update(data)
        return Digest("sha256:" + total.hexdigest())


def moment() -> str:
    """Now, as images write it: RFC 3339, without the fraction's last zeros, as Go does: else who reads a configuration
    and writes it again would give it another digest."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}".rstrip("0").rstrip(".") + "Z"


def check_platform(config: ImageConfig, wanted: str) -> None:
    """Raises NotFound for an image that is not for `wanted`: os/architecture[/variant], or empty."""
    if not wanted:
        return
    parts = wanted.split("/")
    own = (config.os or "linux", config.architecture, config.variant)
    if any(part and part != each for part, each in zip(parts, own, strict=False)):
        shown = "/".join(each for each in own if each)
        raise NotFound(f"no suitable image found: wanted {wanted}, and the image is for {shown}")


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


def blob_name(digest: Digest) -> str:
    """Where a blob lies in an OCI image layout."""
    return f"blobs/sha256/{encoded(digest)}"


def _joined(name: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


@contextlib.contextmanager
def _tar_errors() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        # Numbers and names in a header may be anything.
        raise DataCorrupt(f"invalid archive: {str(error) or type(error).__name__}") from error
