"""The Engine API's routes, one module for each kind of object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine.http.router import RouteDef

if TYPE_CHECKING:
    from sampan.engine.services import Engine


def all_routes(engine: Engine) -> list[RouteDef]:
    """Every route that this engine serves."""
    from sampan.engine.routes import containers, events, exec, exports, images, networks, system, usage, volumes  # noqa: A004

    modules = (system, events, containers, exec, exports, images, networks, volumes, usage)
    return [route for module in modules for route in module.routes(engine)]
