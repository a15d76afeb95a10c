"""`/volumes`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import msgspec
from aiohttp import web

from sampan.api import volumes as api
from sampan.core.compression import decompressed
from sampan.core.snapshots.apply import apply_layer
from sampan.core.trees import write_all
from sampan.engine.blocking import run_blocking
from sampan.engine.http.filters import boolean_filter, known_filters, labels_match
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import HEADERS, RouteDef
from sampan.engine.services import Engine
from sampan.engine.timestamps import rfc3339_seconds
from sampan.engine.transfers import receive, send
from sampan.engine.volumes import Volume
from sampan.errors import Unsupported

_FILTERS = frozenset({"dangling", "driver", "label", "name"})
_PRUNE_FILTERS = frozenset({"all", "label", "label!"})


def document(volume: Volume, usage: api.VolumeUsage | None = None) -> api.VolumeDocument:
    """A volume as clients see it; `usage` for /system/df alone."""
    shown = api.VolumeDocument(
        created_at=rfc3339_seconds(volume.created), mountpoint=volume.mountpoint, name=volume.name,
        labels=volume.labels if volume.labelled else None, options=volume.options,
    )  # fmt: skip
    if usage is None:
        return shown
    return msgspec.structs.replace(shown, usage_data=usage)


def _matches(pattern: str, name: str) -> bool:
    """A part of the name, or a regular expression. As Docker has it, what is no regular expression matches nothing."""
    if pattern in name:
        return True
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


class VolumeRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> web.Response:
        filters = known_filters(request.filters(), _FILTERS)
        found = await run_blocking(self._found, filters)
        return json_response(api.VolumeList(volumes=tuple(document(each) for each in found)))

    def _found(self, filters: Mapping[str, Sequence[str]]) -> Sequence[Volume]:
        dangling = boolean_filter(filters, "dangling")
        return [
            volume
            for volume in self._engine.volumes.list()
            if ("name" not in filters or any(_matches(each, volume.name) for each in filters["name"]))
            and ("driver" not in filters or "local" in filters["driver"])
            and labels_match(volume.labels, filters)
            and (dangling is None or dangling != bool(self._engine.volumes.users(volume.name)))
        ]

    async def create(self, request: Request) -> web.Response:
        wanted = await request.document(api.VolumeCreateRequest)
        if wanted.cluster_volume_spec is not None:
            raise Unsupported("cluster volumes are not supported")
        volumes = self._engine.volumes
        if wanted.name:
            volume = await run_blocking(
                volumes.create, wanted.name, wanted.labels, driver=wanted.driver, options=wanted.driver_opts
            )
        else:
            volume = await run_blocking(
                volumes.anonymous, wanted.labels, driver=wanted.driver, options=wanted.driver_opts
            )
        return json_response(document(volume), 201)

    async def inspect(self, request: Request) -> web.Response:
        return json_response(document(self._engine.volumes.get(request.match_info["name"])))

    async def remove(self, request: Request) -> web.Response:
        await run_blocking(self._engine.volumes.remove, request.match_info["name"], force=request.flag("force"))
        return web.Response(status=204)

    async def export(self, request: Request) -> web.StreamResponse:
        """All that is in it as a tar, with owners, attributes, holes and hard links. Podman's, as `load` is."""
        name, volumes = request.match_info["name"], self._engine.volumes
        user = f"export-{os.urandom(6).hex()}"
        volume = await run_blocking(volumes.use, name, user)
        try:
            root = os.open(volume.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/x-tar"})
                await response.prepare(request)
                await send(lambda stream: write_all(root, stream), response.write)
            finally:
                os.close(root)
        finally:
            await run_blocking(volumes.let_go, user, (name,))
        return response

    async def load(self, request: Request) -> web.Response:
        """What a tar has takes the place of all that is in the volume; or nothing has changed."""
        restoring = self._engine.volumes.restored(request.match_info["name"])
        directory = await run_blocking(restoring.__enter__)
        try:
            await receive(request.chunks(), lambda stream: apply_layer(decompressed(stream), directory, literal=True))
        except BaseException as error:
            # Also for a transfer that was cut where the archive could have ended.
            if not await run_blocking(restoring.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await run_blocking(restoring.__exit__, None, None, None)
        return web.Response(status=204)

    async def prune(self, request: Request) -> web.Response:
        """The anonymous ones that no container names; with `all` (and for clients before API 1.42) named ones too."""
        filters = known_filters(request.filters(), _PRUNE_FILTERS)
        everything = boolean_filter(filters, "all") or request.api_version < (1, 42)

        def wanted(volume: Volume) -> bool:
            return (everything or volume.anonymous) and labels_match(volume.labels, filters)

        names, reclaimed = await run_blocking(self._engine.volumes.prune, wanted)
        return json_response(api.VolumesPruned(volumes_deleted=names, space_reclaimed=reclaimed))


def routes(engine: Engine) -> list[RouteDef]:
    on = VolumeRoutes(engine)
    return [
        RouteDef("GET", "/volumes", on.list),
        RouteDef("POST", "/volumes/create", on.create),
        RouteDef("POST", "/volumes/prune", on.prune),
        RouteDef("GET", "/volumes/{name}/export", on.export),
        RouteDef("POST", "/volumes/{name}/import", on.load),
        RouteDef("GET", "/volumes/{name}", on.inspect),
        RouteDef("DELETE", "/volumes/{name}", on.remove),
    ]
