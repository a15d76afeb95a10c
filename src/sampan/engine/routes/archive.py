"""`docker cp`: files of a container, in and out."""

from __future__ import annotations

import base64

import msgspec
from aiohttp import web

from sampan.core import copying
from sampan.core.compression import decompressed
from sampan.engine.blocking import run_blocking
from sampan.engine.containers.container import Container
from sampan.engine.containers.copying import Place, place
from sampan.engine.containers.users import resolve_user
from sampan.engine.http.request import Request
from sampan.engine.http.router import HEADERS, RouteDef
from sampan.engine.services import Engine
from sampan.engine.timestamps import rfc3339
from sampan.engine.transfers import receive, send
from sampan.errors import InvalidArgument, NotFound

_HEADER = "X-Docker-Container-Path-Stat"


class _PathStat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    size: int
    mode: int
    mtime: str
    link_target: str


class ArchiveRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _asked(self, request: Request) -> tuple[Container, str]:
        container = self._engine.containers.resolve(request.match_info["id"])
        path = request.text_parameter("path")
        if not path or "\0" in path:
            raise InvalidArgument("bad parameter: path cannot be empty" if not path else "invalid path")
        return container, path if path.startswith("/") else f"/{path}"

    async def stat(self, request: Request) -> web.Response:
        container, path = self._asked(request)
        async with place(self._engine, container, path) as found:
            return web.Response(headers={**HEADERS, _HEADER: await _stat(container, path, found)})

    async def get(self, request: Request) -> web.StreamResponse:
        container, path = self._asked(request)
        async with place(self._engine, container, path) as found:
            header = await _stat(container, path, found)
            response = web.StreamResponse(headers={**HEADERS, _HEADER: header, "Content-Type": "application/x-tar"})
            await response.prepare(request)
            await send(
                lambda out: copying.read_path(found.root, found.path, out, asked=path, grafts=found.below),
                response.write,
            )
        self._engine.containers.publish(container, "archive-path")
        return response

    async def put(self, request: Request) -> web.Response:
        container, path = self._asked(request)
        keep_kind = request.flag("noOverwriteDirNonDir")
        copy_owner = request.flag("copyUIDGID")
        async with place(self._engine, container, path, write=True) as found:
            owner = await run_blocking(self._owner, container) if copy_owner else None

            try:
                await receive(
                    request.chunks(),
                    lambda stream: copying.write_into(
                        found.root, found.path, decompressed(stream), keep_kind=keep_kind, owner=owner
                    ),
                )
            except NotFound:
                raise _missing(container, path) from None
        self._engine.containers.publish(container, "extract-to-dir")
        return web.Response(headers=HEADERS)

    def _owner(self, container: Container) -> tuple[int, int]:
        root = self._engine.core.snapshots.graph_data(container.id).merged_dir
        user = resolve_user(root, container.record.config.user)
        return user.uid, user.gid


def _missing(container: Container, path: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {container.name}")


async def _stat(container: Container, path: str, found: Place) -> str:
    try:
        seen = await run_blocking(copying.path_stat, found.root, found.path)
    except NotFound:
        raise _missing(container, path) from None
    document = _PathStat(
        name=seen.name, size=seen.size, mode=seen.mode, mtime=rfc3339(seen.mtime), link_target=seen.link_target
    )
    return base64.b64encode(msgspec.json.encode(document)).decode()


def routes(engine: Engine) -> list[RouteDef]:
    on = ArchiveRoutes(engine)
    return [
        RouteDef("HEAD", "/containers/{id}/archive", on.stat),
        RouteDef("GET", "/containers/{id}/archive", on.get),
        RouteDef("PUT", "/containers/{id}/archive", on.put),
    ]
