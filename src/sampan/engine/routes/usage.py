"""`/system/df`: what takes the disk's space."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from sampan.api.images import BuildsPruned, DiskUsage, ImageSummary
from sampan.api.volumes import VolumeUsage
from sampan.engine import accounting, image_documents
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import documents as container_documents
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import RouteDef
from sampan.engine.routes.volumes import document as volume_document
from sampan.engine.services import Engine
from sampan.errors import InvalidArgument, NotFound

_LONGEST_LOOK = 60
_KINDS = ("container", "image", "volume", "build-cache")


class UsageRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def disk_usage(self, request: Request) -> web.Response:
        """Of all kinds, or of those that `type` names."""
        kinds = request.query.getall("type", []) or list(_KINDS)
        for kind in kinds:
            if kind not in _KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        return json_response(await run_blocking(self._usage, frozenset(kinds)))

    def _usage(self, kinds: frozenset[str]) -> DiskUsage:
        usage = DiskUsage()
        if "image" in kinds:
            usage = msgspec.structs.replace(usage, layers_size=self._layers(), images=self._images())
        if "container" in kinds:
            usage = msgspec.structs.replace(usage, containers=self._containers())
        if "volume" in kinds:
            usage = msgspec.structs.replace(usage, volumes=self._volumes())
        if "build-cache" in kinds:
            usage = msgspec.structs.replace(usage, build_cache=())
        return usage

    def _layers(self) -> int:
        return sum(self._engine.core.snapshots.layer_sizes().values())

    def _images(self) -> tuple[ImageSummary, ...]:
        core = self._engine.core
        shared = image_documents.shared_sizes(core)
        found = [
            image_documents.summary(
                image, containers=len(self._engine.containers.using_image(image.id)), shared_size=shared[image.id]
            )
            for image in core.images.all()
            if image.id in shared
        ]
        # Where there are none, Docker writes null here, as it does nowhere else.
        return tuple(msgspec.structs.replace(each, repo_digests=each.repo_digests or None) for each in found)

    def _containers(self) -> tuple[msgspec.Raw, ...]:
        shown: list[msgspec.Raw] = []
        for container in self._engine.containers.all():
            try:
                document = container_documents.summary(self._engine, container, size=True)
            except NotFound:  # Removed in the meantime.
                continue
            shown.append(msgspec.Raw(msgspec.json.encode(document)))
        return tuple(shown)

    def _volumes(self) -> tuple[msgspec.Raw, ...]:
        volumes = self._engine.volumes
        shown: list[msgspec.Raw] = []
        for volume in volumes.list():
            if not volume.plain:  # What is elsewhere takes nothing here; Docker leaves it out, too.
                continue
            try:
                usage = VolumeUsage(ref_count=len(volumes.users(volume.name)), size=volumes.usage(volume.name))
            except NotFound:
                continue
            shown.append(msgspec.Raw(msgspec.json.encode(volume_document(volume, usage))))
        return tuple(shown)

    async def explain(self, request: Request) -> web.Response:
        """Whose every byte of the data root is, and what grows in the containers that run, within `interval` seconds.
        Ours alone."""
        text = request.text_parameter("interval", "1")
        try:
            interval = float(text)
        except ValueError:
            interval = -1.0
        if not 0 <= interval <= _LONGEST_LOOK:
            raise InvalidArgument(f"invalid value {text!r} for interval: 0 to {_LONGEST_LOOK} seconds")
        growing = await run_blocking(accounting.first_look, self._engine)
        await asyncio.sleep(interval)
        return json_response(await run_blocking(accounting.explain, self._engine, growing, interval))

    async def prune_builds(self, request: Request) -> web.Response:
        """There is no build cache, and nothing of it to remove."""
        return json_response(BuildsPruned())


def routes(engine: Engine) -> list[RouteDef]:
    on = UsageRoutes(engine)
    return [
        RouteDef("GET", "/system/df", on.disk_usage),
        RouteDef("GET", "/system/explain", on.explain),
        RouteDef("POST", "/build/prune", on.prune_builds),
    ]
