"""The Engine API's routes, one module for each kind of object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine.http.router import RouteDef

if TYPE_CHECKING:
    from sampan.engine.services import Engine


def all_routes(engine: Engine) -> list[RouteDef]:
    """Every route that this engine serves."""
    from sampan.engine.routes import (
        absent,
        archive,
        containers,
        events,
        exports,
        images,
        networks,
        system,
        usage,
        volumes,
        websocket,
    )
    from sampan.engine.routes import exec as execs

    modules = (system, events, containers, archive, execs, exports, images, networks, volumes, usage, websocket, absent)
    return [route for module in modules for route in module.routes(engine)]
