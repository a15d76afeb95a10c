"""Pulling an image: manifests, blobs, layers, and at last its name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import msgspec

from sampan.core.archives import architecture, choose_platform
from sampan.core.images import Image
from sampan.core.remotes.download import Downloads
from sampan.core.remotes.http import RunBlocking
from sampan.core.remotes.layers import Layers, to_its_end
from sampan.core.remotes.progress import OnProgress, Progress, nobody
from sampan.core.remotes.refusals import NotThere
from sampan.core.remotes.remote import Remote
from sampan.core.remotes.settings import Credentials, RemoteSettings
from sampan.core.service import PULL, Core
from sampan.errors import (
    DataCorrupt,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    SampanError,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from sampan.faults import stage
from sampan.oci.image import INDEXES, OCI_CONFIG, Descriptor, ImageConfig, Index, Manifest, Platform, decode
from sampan.oci.reference import Reference

DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_CONFIGS = ("", OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream")
"""What an image's configuration is called; by others than Docker for long not so exactly."""
_DEEPEST = 4
_T = TypeVar("_T")
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a name leads to: the document that the registry has for it, and the manifest for one platform."""

    top: Descriptor
    top_data: bytes
    descriptor: Descriptor
    data: bytes
    manifest: Manifest


class Puller:
    """All pulls of an engine. For its loop alone."""

    def __init__(self, core: Core, settings: RemoteSettings, run_blocking: RunBlocking) -> None:
        self._core = core
        self._settings = settings
        self._run_blocking = run_blocking
        self._downloads = Downloads(core.content, settings.downloads, run_blocking)
        self._layers = Layers(core, self._downloads, run_blocking)

    def close(self) -> None:
        """What still runs is not waited for."""
        self._layers.close()

    async def pull(
        self, reference: Reference, tell: OnProgress, credentials: Credentials | None = None, platform: str = ""
    ) -> Image:
        """Fetch what is missing and give the image its name. Raises what the registry and the stores raise.

        After a broken connection, or a client that has left, what was fetched whole stays for the next try until the
        next collection; after any other failure nothing stays.
        """
        images = await self._pull_some([reference.with_default_tag()], reference, tell, credentials, platform)
        return images[0]

    async def pull_all(
        self, reference: Reference, tell: OnProgress, credentials: Credentials | None = None, platform: str = ""
    ) -> Sequence[Image]:
        """Every tag of a repository."""
        async with self._remote(reference, credentials) as remote:
            try:
                tags = await remote.first(lambda source: source.tags())
            except SampanError as error:
                raise explained(error, reference) from error
        if not tags:
            raise NotFound(f"repository {reference.familiar_name} has no tags")
        wanted = [Reference(reference.domain, reference.path, tag) for tag in tags]
        return await self._pull_some(wanted, reference, tell, credentials, platform)

    async def _pull_some(
        self, wanted: Sequence[Reference], asked: Reference, tell: OnProgress, credentials: Credentials | None,
        platform: str,
    ) -> Sequence[Image]:  # fmt: skip
        images: list[Image] = []
        fresh = False
        try:
            async with self._remote(asked, credentials) as remote:
                for each in wanted:
                    with self._core.loading():
                        image, is_new = await self._pull(remote, each, tell, platform)
                    images.append(image)
                    fresh = fresh or is_new
        except (Unavailable, ConnectionError, asyncio.CancelledError):
            raise
        except BaseException:
            await self._run_blocking(self._core.gc)
            raise
        await self._run_blocking(self._core.gc)
        name = asked.familiar_name if len(wanted) > 1 else wanted[0].familiar
        await tell(
            Progress(status=f"Status: {'Downloaded newer image' if fresh else 'Image is up to date'} for {name}")
        )
        return images

    def _remote(self, reference: Reference, credentials: Credentials | None) -> Remote:
        return Remote(reference, self._settings, self._run_blocking, credentials)

    async def find(self, remote: Remote, wanted: Reference, platform: str = "") -> Found:
        """The manifest for a platform (empty: this machine's), through as many indexes as there are."""
        try:
            top, top_data = await remote.manifest(wanted.digest or wanted.tag)
            descriptor, data = top, top_data
            for _ in range(_DEEPEST):
                if descriptor.media_type not in INDEXES:
                    break
                chosen = choose_platform(_document(data, Index, f"index {descriptor.digest}"), platform)
                descriptor, data = await remote.manifest(chosen.digest)
        except SampanError as error:
            raise explained(error, wanted) from error
        if descriptor.media_type in INDEXES:
            raise InvalidArgument(f"{wanted.familiar}: indexes of indexes of indexes are not followed any further")
        manifest = _document(data, Manifest, f"manifest {descriptor.digest}")
        return Found(top=top, top_data=top_data, descriptor=descriptor, data=data, manifest=manifest)

    async def _pull(self, remote: Remote, wanted: Reference, tell: OnProgress, platform: str) -> tuple[Image, bool]:
        """The image, and whether its name led to another one, or to none, before."""
        core, run_blocking = self._core, self._run_blocking
        found = await self.find(remote, wanted, platform)
        await tell(Progress(status=f"Pulling from {wanted.path}", id=wanted.tag or wanted.digest or ""))
        manifest = found.manifest
        _check_layers(wanted, manifest)
        await run_blocking(core.content.write, found.data)
        async with self._announced(wanted, found):
            try:
                await self._downloads.fetch(remote, manifest.config, nobody)
                config_data = await run_blocking(core.content.read, manifest.config.digest)
                config = _document(config_data, ImageConfig, f"image {manifest.config.digest}")
                _check_config(wanted, manifest, config, platform)
                await self._layers.make(remote, wanted.name, manifest, config, tell)
                stage("pull.unpacked")
            except SampanError as error:
                raise explained(error, wanted) from error
            return await self._name(wanted, found, tell)

    @contextlib.asynccontextmanager
    async def _announced(self, wanted: Reference, found: Found) -> AsyncIterator[None]:
        """An engine that is killed meanwhile knows at its next start what was fetched for whom."""
        blobs = [found.descriptor.digest, *(each.digest for each in (found.manifest.config, *found.manifest.layers))]
        metadata = self._core.metadata
        intent = await self._run_blocking(metadata.begin, PULL, wanted.familiar, msgspec.json.encode(blobs))
        stage("pull.announced")
        try:
            yield
        finally:
            await to_its_end(self._run_blocking(metadata.settle, intent))

    async def _name(self, wanted: Reference, found: Found, tell: OnProgress) -> tuple[Image, bool]:
        core, run_blocking, manifest = self._core, self._run_blocking, found.manifest
        named = Reference(wanted.domain, wanted.path, "", found.top.digest)
        before = await run_blocking(_present, core, wanted)
        image: Image = await run_blocking(
            core.images.add, manifest.config.digest, found.descriptor.digest,
            tags=[wanted] if wanted.tag else [], digests=[named],
        )  # fmt: skip
        stage("pull.named")
        await tell(Progress(status=f"Digest: {found.top.digest}"))
        return image, before != image.id

    async def document(self, reference: Reference, credentials: Credentials | None = None) -> tuple[Descriptor, bytes]:
        """What a registry has under a name, whatever it is."""
        wanted = reference.with_default_tag()
        async with self._remote(reference, credentials) as remote:
            try:
                return await remote.manifest(wanted.digest or wanted.tag)
            except SampanError as error:
                raise explained(error, wanted) from error

    async def distribution(
        self, reference: Reference, credentials: Credentials | None = None
    ) -> tuple[Descriptor, Sequence[Platform]]:
        """The same without taking it: its descriptor, and the platforms that it is for."""
        top, data = await self.document(reference, credentials)
        if top.media_type in INDEXES:
            index = _document(data, Index, f"index {top.digest}")
            return top, [each.platform for each in index.manifests if each.platform]
        manifest = _document(data, Manifest, f"manifest {top.digest}")
        if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            return top, []
        try:
            with self._core.loading():
                async with self._remote(reference, credentials) as remote:
                    await self._downloads.fetch(remote, manifest.config, nobody)
                content = await self._run_blocking(self._core.content.read, manifest.config.digest)
        except SampanError as error:
            raise explained(error, reference.with_default_tag()) from error
        finally:
            await self._run_blocking(self._core.gc)
        config = _document(content, ImageConfig, f"image {manifest.config.digest}")
        platform = Platform(
            architecture=config.architecture, os=config.os, variant=config.variant, os_version=config.os_version
        )
        return top, [platform]


def _document(data: bytes, kind: type[_T], what: str) -> _T:
    """A document of a registry's: what does not decode is corrupt."""
    try:
        return decode(data, kind, what)
    except InvalidArgument as error:
        raise DataCorrupt(error.message) from error


def explained(error: SampanError, wanted: Reference) -> SampanError:
    """A registry's error, with the name that was asked for, in Docker's words."""
    text = error.message
    if isinstance(error, NotThere):
        if error.code == "NAME_UNKNOWN":
            return NotFound(f"repository {wanted.familiar_name} not found: {text}")
        return NotFound(f"manifest for {wanted.familiar} not found: {text}")
    if isinstance(error, Forbidden):
        return NotFound(
            f"pull access denied for {wanted.familiar_name}, repository does not exist or may require "
            f"'docker login': {text}"
        )
    if isinstance(error, Unauthorized):
        # As Docker's engine answers: at a 401 its command would ask the person for a password.
        return Internal(text)
    return error


def _check_layers(wanted: Reference, manifest: Manifest) -> None:
    """Refuse by name what could not become layers here."""
    if manifest.config.media_type not in _CONFIGS:
        kind = manifest.artifact_type or manifest.config.media_type
        raise Unsupported(f"{wanted.familiar} is no image but an artifact of type {kind}")
    for layer in manifest.layers:
        if layer.urls:
            # Its content is not in the registry, and an address from a manifest is not to be trusted with a request
            # (CVE-2020-15157).
            raise Unsupported(f"{wanted.familiar}: layer {layer.digest} is a foreign one, at {layer.urls[0]}")


def _check_config(wanted: Reference, manifest: Manifest, config: ImageConfig, platform: str) -> None:
    if not config.rootfs.diff_ids and manifest.layers:
        raise Unsupported(f"{wanted.familiar} is no image: its configuration has no layers")
    if config.os not in ("", "linux"):
        raise Unsupported(f'{wanted.familiar}: image operating system "{config.os}" cannot be used on this platform')
    system, _, rest = platform.partition("/")
    machine = rest.partition("/")[0]
    if machine and config.architecture and machine != config.architecture:
        raise NotFound(
            f"image with reference {wanted.familiar} was found but its platform ({config.os or 'linux'}/"
            f"{config.architecture}) does not match the specified platform ({system}/{machine})"
        )


def parse_platform(text: str) -> str:
    """`os[/architecture[/variant]]` or an architecture alone, in Go's words. Raises InvalidArgument."""
    parts = text.lower().split("/")
    if len(parts) == 1 and parts[0] and parts[0] != "linux":
        parts = ["linux", parts[0]]
    if len(parts) > 3 or (text and not all(parts)):
        raise InvalidArgument(f"invalid platform {text!r}: OS/ARCHITECTURE[/VARIANT]")
    if parts[0] not in ("", "linux"):
        raise InvalidArgument(f"no matching manifest for {text}: linux alone runs here")
    if len(parts) == 1:
        return f"linux/{architecture()}" if parts[0] else ""
    parts[1] = _ARCHITECTURES.get(parts[1], parts[1])
    return "/".join(parts)


def _present(core: Core, reference: Reference) -> str:
    with contextlib.suppress(NotFound, InvalidArgument):
        return core.images.get(reference.familiar).id
    return ""
