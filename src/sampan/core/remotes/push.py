"""Pushing an image: its layers (those that the registry has not), its configuration, and at last its manifest.

A manifest that came from a registry goes there again byte by byte. One that was made here names its layers as they
were loaded or imported, which may be plain tars: these are compressed first, and the image has the new manifest from
then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec
from isal import isal_zlib

from sampan.core.compression import decompressed
from sampan.core.images import Image
from sampan.core.known import Known
from sampan.core.remotes.http import RunBlocking
from sampan.core.remotes.progress import Meter, OnProgress, Progress, Pushed, nobody
from sampan.core.remotes.remote import Remote
from sampan.core.remotes.repository import Repository
from sampan.core.remotes.settings import Credentials, RemoteSettings
from sampan.core.remotes.upload import OpenBlob, Upload, mount
from sampan.core.service import Core
from sampan.errors import Internal, InvalidArgument, NotFound, Unauthorized
from sampan.oci.digest import ChainID, Digest, digest_of, encoded
from sampan.oci.image import OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor, Manifest, decode
from sampan.oci.reference import Reference, parse_reference

DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_DOCKER = "application/vnd.docker."
_COMPRESSED = ("gzip", "zstd")
_LEVEL = 2
_CHUNK = 1 << 20


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer as the manifest has it, and as the image has it."""

    blob: Descriptor
    diff_id: Digest
    chain_id: ChainID

    @property
    def short(self) -> str:
        """How Docker's engine names it in a push."""
        return encoded(self.diff_id)[:12]


class Pusher:
    """All pushes of an engine. For its loop alone."""

    def __init__(self, core: Core, settings: RemoteSettings, run_blocking: RunBlocking) -> None:
        self._core = core
        self._settings = settings
        self._run_blocking = run_blocking
        self._gate = asyncio.Semaphore(settings.uploads)

    async def push(
        self, reference: Reference, tell: OnProgress, credentials: Credentials | None = None
    ) -> Sequence[Pushed]:
        """One tag, or with a reference without one all tags that the repository has here. Raises NotFound, Forbidden,
        Internal (no or wrong credentials), Unavailable, DataCorrupt."""
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        await tell(Progress(status=f"The push refers to repository [{reference.name}]"))
        images = await self._run_blocking(self._chosen, reference)
        pushed: list[Pushed] = []
        try:
            remote = Remote(reference, self._settings, self._run_blocking, credentials, actions="pull,push")
            async with remote:
                repository = await remote.origin()
                for tag, image in images:
                    with self._core.loading():
                        pushed.append(await _Push(self, repository, reference, tell).run(image, tag))
        except Unauthorized as error:
            # As Docker's engine answers: at a 401 its command would ask the person for a password.
            raise Internal(error.message) from error
        finally:
            await self._run_blocking(self._core.gc)
        return pushed

    def _chosen(self, reference: Reference) -> list[tuple[str, Image]]:
        images = self._core.images
        if reference.tag:
            try:
                return [(reference.tag, images.get(reference.familiar))]
            except NotFound:
                raise NotFound(f"tag does not exist: {reference.familiar}") from None
        found = [(named.tag, image) for image in images.all() for named in map(parse_reference, image.repo_tags)
                 if named.name == reference.name]  # fmt: skip
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        return sorted(found, key=lambda each: each[0])


class _Push:
    """One image under one tag."""

    def __init__(self, pusher: Pusher, repository: Repository, reference: Reference, tell: OnProgress) -> None:
        self._pusher = pusher
        self._core = pusher._core
        self._run_blocking = pusher._run_blocking
        self._repository = repository
        self._reference = reference
        self._tell = tell

    async def run(self, image: Image, tag: str) -> Pushed:
        content = self._core.content
        data: bytes = await self._run_blocking(content.read, image.manifest)
        manifest = decode(data, Manifest, f"manifest {image.manifest}")
        layers = [
            _Layer(blob=blob, diff_id=diff_id, chain_id=chain_id)
            for blob, diff_id, chain_id in zip(
                manifest.layers, image.config.rootfs.diff_ids, image.chain, strict=True
            )
        ]  # fmt: skip
        # Each digest once, however often it stands in the manifest.
        different = {layer.blob.digest: layer for layer in layers}
        for layer in different.values():
            await self._tell(Progress(status="Preparing", id=layer.short))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {digest: group.create_task(self._layer(layer, image)) for digest, layer in different.items()}
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        for digest, layer in different.items():
            await self._run_blocking(
                self._core.known.remember, layer.diff_id, tasks[digest].result(), self._reference.name
            )
        sent = tuple(tasks[layer.blob.digest].result() for layer in layers)
        await self._blob(manifest.config, functools.partial(content.open, manifest.config.digest), "", ())
        if sent != manifest.layers:
            data = msgspec.json.encode(msgspec.structs.replace(manifest, layers=sent))
            await self._run_blocking(content.write, data)
        return await self._name(image, tag, manifest.media_type or OCI_MANIFEST, data)

    async def _name(self, image: Image, tag: str, media_type: str, data: bytes) -> Pushed:
        digest = digest_of(data)
        await self._repository.put_manifest(tag, media_type, data)
        named = Reference(self._reference.domain, self._reference.path, "", digest)
        # A registry's manifest stays the image's, though here it was another one that had to be made of it.
        own = image.manifest if image.repo_digests else digest
        await self._run_blocking(self._core.images.add, image.id, own, digests=[named])
        pushed = Pushed(tag=tag, digest=digest, size=len(data))
        await self._tell(Progress(status=f"{tag}: digest: {digest} size: {len(data)}"))
        await self._tell(Progress(aux=pushed))
        return pushed

    # --- Layers -----------------------------------------------------------------------------------

    async def _layer(self, layer: _Layer, image: Image) -> Descriptor:
        """Have the layer in the registry; returns what the manifest says of it."""
        blob = layer.blob
        known = await self._run_blocking(self._core.known.of, layer.diff_id, self._reference.domain)
        own = [*self._homes(image), *(path for each in known if each.blob.digest == blob.digest for path in each.paths)]
        # As a registry has it, it is named again; a plain one of ours is compressed.
        usable = bool(image.repo_digests) or blob.media_type.endswith(_COMPRESSED)
        if usable and await self._run_blocking(self._core.content.has, blob.digest, blob.size):
            await self._send(layer, blob, own)
            return blob
        # Not kept here; perhaps the registry still has it, or the layer in another form.
        there = await self._find(layer, [*([Known(blob, own)] if usable else []), *known])
        if there is None:
            there = await self._run_blocking(self._compress, layer)
            await self._send(layer, there, ())
        return there

    def _homes(self, image: Image) -> Iterator[str]:
        """The repositories of this registry that the image came from or went to, which have its blobs."""
        names = [named for named in map(parse_reference, image.repo_digests) if named.domain == self._reference.domain]
        # One of another digest may be of an index that has this manifest, or of another one.
        names.sort(key=lambda named: named.digest != image.manifest)
        return (named.path for named in names)

    async def _send(self, layer: _Layer, blob: Descriptor, paths: Sequence[str]) -> None:
        others = [path for path in dict.fromkeys(paths) if path != self._reference.path]
        await self._blob(blob, functools.partial(self._core.content.open, blob.digest), layer.short, others)

    async def _find(self, layer: _Layer, known: Sequence[Known]) -> Descriptor | None:
        """A blob of the layer that the repository has, or gets from another one."""
        for each in known:
            blob = each.blob if each.blob.digest == layer.blob.digest else _as(each.blob, layer.blob)
            if blob is not None and await self._is_there(layer, blob, each.paths):
                return blob
        return None

    async def _is_there(self, layer: _Layer, blob: Descriptor, paths: Sequence[str]) -> bool:
        if await self._repository.has_blob(blob.digest):
            await self._tell(Progress(status="Layer already exists", id=layer.short))
            return True
        for path in dict.fromkeys(paths):
            if path != self._reference.path and await mount(self._repository, blob, path):
                await self._tell(Progress(status=f"Mounted from {path}", id=layer.short))
                return True
        return False

    def _compress(self, layer: _Layer) -> Descriptor:
        """The layer with gzip, in the content store. Raises NotFound where its tar is not here."""
        content = self._core.content
        compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 31)
        with self._plain(layer) as plain, content.ingest() as blob:
            while data := plain.read(_CHUNK):
                blob.write(compressor.compress(data))
            blob.write(compressor.flush())
            digest, size = blob.commit(), blob.size
        docker = layer.blob.media_type.startswith(_DOCKER)
        return Descriptor(media_type=DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP, digest=digest, size=size)

    @contextlib.contextmanager
    def _plain(self, layer: _Layer) -> Iterator[BinaryIO]:
        content = self._core.content
        if content.has(layer.blob.digest, layer.blob.size):
            with content.open(layer.blob.digest) as file:
                yield decompressed(file)
            return
        tar = self._core.snapshots.open_tar(layer.chain_id)
        if tar is None:
            raise NotFound(f"layer {layer.diff_id} is not here any more as it was pulled: pull the image again")
        with tar:
            yield tar

    async def _blob(self, blob: Descriptor, open_blob: OpenBlob, short: str, sources: Sequence[str]) -> None:
        """Send a blob, unless the registry has it."""
        tell = self._tell if short else nobody
        if await self._repository.has_blob(blob.digest):
            await tell(Progress(status="Layer already exists", id=short))
            return
        if self._pusher._gate.locked():
            await tell(Progress(status="Waiting", id=short))
        async with self._pusher._gate:
            meter = Meter(tell, "Pushing", short, blob.size)
            upload = Upload(self._repository, blob, open_blob, meter.at, self._run_blocking)
            mounted = await upload.run(sources)
        await tell(Progress(status=f"Mounted from {mounted}" if mounted else "Pushed", id=short))


def _as(blob: Descriptor, other: Descriptor) -> Descriptor | None:
    """A blob for a manifest that called the layer something else: in Docker's words or in OCI's, as that did; None
    where they have no word for it, or it is not compressed."""
    docker = other.media_type.startswith(_DOCKER)
    if blob.media_type.endswith("gzip"):
        kind = DOCKER_LAYER_GZIP if docker else OCI_LAYER_GZIP
        return Descriptor(media_type=kind, digest=blob.digest, size=blob.size)
    return blob if blob.media_type.endswith("zstd") and not docker else None
