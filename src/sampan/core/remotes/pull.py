"""Pulling an image: manifests, blobs, layers, and at last its name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import msgspec

from sampan.core.archives import choose_platform
from sampan.core.images import Image
from sampan.core.remotes.registry import Credentials, Registry
from sampan.core.service import Core
from sampan.errors import InvalidArgument, NotFound, Unavailable, Unsupported
from sampan.oci.digest import encoded
from sampan.oci.image import INDEXES, Descriptor, ImageConfig, Index, Manifest, decode
from sampan.oci.reference import Reference

_PARALLEL = 3
_EVERY = 0.1
"""Seconds between two words about one download."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One step, in Docker's words. `current` and `total`: bytes, if it is about such."""

    status: str
    id: str = ""
    current: int = 0
    total: int = 0


OnProgress = Callable[[Progress], Awaitable[None]]
RunBlocking = Callable[..., Awaitable[Any]]


async def pull(
    core: Core,
    reference: Reference,
    on_progress: OnProgress,
    run_blocking: RunBlocking,
    *,
    credentials: Credentials | None = None,
    insecure: Collection[str] = (),
    platform: str = "",
) -> Image:
    """Fetch what is missing and give the image its name. Raises what the registry and the stores raise.

    After a broken connection, what was fetched whole stays for the next try until the next collection; after any other
    failure nothing stays.
    """
    try:
        image, status = await _pull(core, reference, on_progress, run_blocking, credentials, insecure, platform)
    except Unavailable:
        raise
    except BaseException:
        await run_blocking(core.gc)
        raise
    await run_blocking(core.gc)
    await on_progress(Progress(status=status))
    return image


async def _pull(
    core: Core, reference: Reference, on_progress: OnProgress, run_blocking: RunBlocking,
    credentials: Credentials | None, insecure: Collection[str], platform: str,
) -> tuple[Image, str]:  # fmt: skip
    """The image, and the last word of its progress."""
    wanted = reference.with_default_tag()
    with core.loading():
        async with Registry(reference, credentials or Credentials(), insecure) as registry:
            top, data = await registry.manifest(wanted.digest or wanted.tag)
            await on_progress(Progress(status=f"Pulling from {reference.path}", id=wanted.tag or wanted.digest or ""))
            descriptor = top
            if top.media_type in INDEXES:
                chosen = choose_platform(decode(data, Index, f"index {top.digest}"), platform)
                descriptor, data = await registry.manifest(chosen.digest)
            manifest = decode(data, Manifest, f"manifest {descriptor.digest}")
            await run_blocking(core.content.write, data)
            await _fetch(core, registry, manifest.config, None, run_blocking)
            config_data = await run_blocking(core.content.read, manifest.config.digest)
            config = decode(config_data, ImageConfig, f"image {manifest.config.digest}")
            if not config.rootfs.diff_ids and manifest.layers:
                raise Unsupported(f"{reference.familiar} is no image: its configuration has no layers")
            await _fetch_layers(core, registry, manifest, on_progress, run_blocking)
        for layer in manifest.layers:
            await on_progress(Progress(status="Extracting", id=_short(layer), current=layer.size, total=layer.size))
        await run_blocking(core.archives.unpack, config, manifest.layers)
        for layer in manifest.layers:
            await on_progress(Progress(status="Pull complete", id=_short(layer)))
        named = Reference(reference.domain, reference.path, "", top.digest)
        before = await run_blocking(_present, core, wanted)
        image: Image = await run_blocking(
            core.images.add, manifest.config.digest, descriptor.digest,
            tags=[wanted] if wanted.tag else [], digests=[named],
        )  # fmt: skip
    await on_progress(Progress(status=f"Digest: {top.digest}"))
    fresh = "Downloaded newer image for" if before != image.id else "Image is up to date for"
    return image, f"Status: {fresh} {wanted.familiar}"


def _present(core: Core, reference: Reference) -> str:
    try:
        return core.images.get(reference.familiar).id
    except (NotFound, InvalidArgument):
        return ""


def _short(layer: Descriptor) -> str:
    return encoded(layer.digest)[:12]


async def _fetch_layers(
    core: Core, registry: Registry, manifest: Manifest, on_progress: OnProgress, run_blocking: RunBlocking
) -> None:
    """Several at a time; the first failure ends all."""
    gate = asyncio.Semaphore(_PARALLEL)

    async def one(layer: Descriptor) -> None:
        async with gate:
            await _fetch(core, registry, layer, on_progress, run_blocking)

    for layer in manifest.layers:
        await on_progress(Progress(status="Pulling fs layer", id=_short(layer)))
    # A layer may stand in a manifest more than once.
    try:
        async with asyncio.TaskGroup() as group:
            for layer in {each.digest: each for each in manifest.layers}.values():
                group.create_task(one(layer))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _fetch(
    core: Core, registry: Registry, wanted: Descriptor, on_progress: OnProgress | None, run_blocking: RunBlocking
) -> None:
    """One blob into the content store, verified."""
    if await run_blocking(core.content.has, wanted.digest, wanted.size):
        if on_progress is not None:
            await on_progress(Progress(status="Already exists", id=_short(wanted)))
        return
    last = 0.0
    with core.content.ingest() as blob:
        async for data in registry.blob(wanted.digest):
            await run_blocking(blob.write, data)
            now = time.monotonic()
            if on_progress is not None and now - last > _EVERY:
                last = now
                await on_progress(
                    Progress(status="Downloading", id=_short(wanted), current=blob.size, total=wanted.size)
                )  # fmt: skip
        if on_progress is not None:
            await on_progress(Progress(status="Verifying Checksum", id=_short(wanted)))
        await run_blocking(blob.commit, wanted.digest, wanted.size)
    if on_progress is not None:
        await on_progress(Progress(status="Download complete", id=_short(wanted)))
