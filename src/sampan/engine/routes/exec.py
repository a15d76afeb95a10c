"""The exec endpoints of the Engine API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sampan.api.exec import ExecCreateRequest, ExecCreateResponse, ExecStartRequest
from sampan.engine.http.hijack import Hijacked, hijack, stream_type
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import RouteDef
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.engine.services import Engine


class ExecRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, request: Request) -> web.StreamResponse:
        container = self._engine.containers.resolve(request.match_info["id"])
        made = self._engine.execs.create(container, await request.document(ExecCreateRequest))
        return json_response(ExecCreateResponse(id=made.id), status=201)

    async def start(self, request: Request) -> web.StreamResponse | None:
        """Attached, the connection goes to the shim; an error after that is told in the stream, as Docker does."""
        document = await request.document(ExecStartRequest)
        found = self._engine.execs.check_start(request.match_info["id"])
        size = document.console_size or found.request.console_size
        if document.detach:
            await self._engine.execs.start(found, [], size)
            return web.Response(status=200)
        taken = await hijack(request, stream_type(request, tty=found.request.tty))
        attachment = self._engine.execs.attachment(found, taken.received)
        spare = Hijacked(taken.duplicate(), b"")
        try:
            await self._engine.execs.start(found, [(taken.fd, attachment)], size)
        except SampanError as error:
            spare.say(error.message + "\r\n", framed=not found.request.tty)
        finally:
            spare.close()
        return None

    async def inspect(self, request: Request) -> web.StreamResponse:
        return json_response(self._engine.execs.inspect(self._engine.execs.get(request.match_info["id"])))

    async def resize(self, request: Request) -> web.StreamResponse:
        found = self._engine.execs.get(request.match_info["id"])
        await self._engine.execs.resize(found, *request.window())
        return web.Response(status=200)


def routes(engine: Engine) -> list[RouteDef]:
    """`/containers/{id}/exec` and `/exec`."""
    on = ExecRoutes(engine)
    return [
        RouteDef("POST", "/containers/{id}/exec", on.create),
        RouteDef("POST", "/exec/{id}/start", on.start),
        RouteDef("GET", "/exec/{id}/json", on.inspect),
        RouteDef("POST", "/exec/{id}/resize", on.resize),
    ]
