"""What there is none of: a swarm, plugins, checkpoints, builds. Each endpoint answers as Docker's engine does that has
none either; what that one would do, and this does not, is refused by name."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from aiohttp import web

from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import RouteDef
from sampan.errors import NotFound, Unavailable, Unsupported

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_SWARM = (
    ("GET", "/swarm"), ("POST", "/swarm/update"), ("GET", "/swarm/unlockkey"), ("POST", "/swarm/unlock"),
    ("GET", "/nodes"), ("GET", "/nodes/{id}"), ("DELETE", "/nodes/{id}"), ("POST", "/nodes/{id}/update"),
    ("GET", "/services"), ("POST", "/services/create"), ("GET", "/services/{id}"), ("DELETE", "/services/{id}"),
    ("POST", "/services/{id}/update"), ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"), ("GET", "/tasks/{id}"), ("GET", "/tasks/{id}/logs"),
    *(
        (method, f"/{kind}{path}")
        for kind in ("secrets", "configs")
        for method, path in (
            ("GET", ""), ("POST", "/create"), ("GET", "/{id}"), ("DELETE", "/{id}"), ("POST", "/{id}/update")
        )
    ),
)  # fmt: skip
_OF_A_PLUGIN = (
    ("GET", "json"), ("POST", "enable"), ("POST", "disable"), ("POST", "upgrade"), ("POST", "push"), ("POST", "set")
)  # fmt: skip


async def _no_swarm(request: Request) -> web.Response:
    raise Unavailable(_NO_SWARM)


async def _no_part_of_a_swarm(request: Request) -> web.Response:
    raise Unavailable("This node is not part of a swarm")


async def _no_cluster_volume(request: Request) -> web.Response:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def _no_plugins(request: Request) -> web.Response:
    return json_response([])


async def _no_plugin(request: Request) -> web.Response:
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')


async def _refuse(what: str, request: Request) -> web.Response:
    raise Unsupported(f"{what} is not supported")


def routes(engine: Engine) -> list[RouteDef]:
    def refused(method: str, path: str, what: str) -> RouteDef:
        return RouteDef(method, path, functools.partial(_refuse, what))

    return [
        RouteDef("GET", "/plugins", _no_plugins),
        *(RouteDef(method, f"/plugins/{{name:.+}}/{verb}", _no_plugin) for method, verb in _OF_A_PLUGIN),
        RouteDef("DELETE", "/plugins/{name:.+}", _no_plugin),
        refused("GET", "/plugins/privileges", "a plugin"),
        refused("POST", "/plugins/pull", "a plugin"),
        refused("POST", "/plugins/create", "a plugin"),
        refused("POST", "/build", "building images"),
        refused("POST", "/build/cancel", "building images"),
        refused("POST", "/session", "building images with BuildKit"),
        refused("POST", "/grpc", "building images with BuildKit"),
        refused("GET", "/containers/{id}/checkpoints", "a checkpoint"),
        refused("POST", "/containers/{id}/checkpoints", "a checkpoint"),
        refused("DELETE", "/containers/{id}/checkpoints/{checkpoint}", "a checkpoint"),
        refused("POST", "/swarm/init", "swarm mode"),
        refused("POST", "/swarm/join", "swarm mode"),
        RouteDef("PUT", "/volumes/{name}", _no_cluster_volume),
        RouteDef("POST", "/swarm/leave", _no_part_of_a_swarm),
        *(RouteDef(method, path, _no_swarm) for method, path in _SWARM),
    ]
