"""`/networks`: the networks that there are, and who is on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from sampan.api import networks as api
from sampan.engine.blocking import run_blocking
from sampan.engine.http.filters import boolean_filter, known_filters, labels_match
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import RouteDef
from sampan.engine.services import Engine
from sampan.engine.timestamps import rfc3339
from sampan.errors import Forbidden, InvalidArgument, NotFound, SampanError, Unsupported
from sampan.network.endpoints import NetworkInfo

_FILTERS = frozenset({"dangling", "driver", "id", "label", "label!", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})


class NetworkRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> web.Response:
        """All networks, without their containers."""
        filters = known_filters(request.filters(), _FILTERS)
        kinds = set(filters.get("type", ()))
        if kinds - {"builtin", "custom"}:
            raise InvalidArgument(f"invalid filter: 'type'='{(kinds - {'builtin', 'custom'}).pop()}'")
        # All three are built in, and never in the way of a prune.
        if boolean_filter(filters, "dangling") is True or (kinds and "builtin" not in kinds):
            return json_response([])
        return json_response(
            [self._document(each) for each in self._engine.network.networks() if _matches(each, filters)]
        )

    async def inspect(self, request: Request) -> web.Response:
        """One network, with the containers that run on it."""
        wanted = request.match_info["id"]
        scope = request.text_parameter("scope")
        if scope and scope != "local":
            raise NotFound(f"network {wanted} not found")
        return json_response(self._document(self._engine.network.network(wanted)))

    def _document(self, network: NetworkInfo) -> api.NetworkDocument:
        subnets = (api.IPAMConfig(subnet=network.subnet, gateway=network.gateway),) if network.subnet else None
        return api.NetworkDocument(
            name=network.name, id=network.id, created=rfc3339(network.created), driver=network.driver,
            ipam=api.IPAM(config=subnets), options=network.options,
            containers={
                each.container_id: api.NetworkContainer(
                    name=self._container_name(each.container_id), endpoint_id=each.id, mac_address=each.mac,
                    ipv4_address=f"{each.ip}/{each.prefix}" if each.ip else "",
                )
                for each in network.endpoints
            },
        )  # fmt: skip

    def _container_name(self, container_id: str) -> str:
        try:
            return self._engine.containers.resolve(container_id).name
        except SampanError:  # It is being removed right now.
            return ""

    async def create(self, request: Request) -> web.Response:
        """Refused for now, by the controller's word."""
        wanted = await request.document(api.NetworkCreateRequest)
        if not wanted.name:
            raise InvalidArgument("network name is required")
        info = await run_blocking(self._engine.network.create, wanted.name, wanted.driver or "bridge")
        return json_response(api.NetworkCreateResponse(id=info.id), 201)

    async def remove(self, request: Request) -> web.Response:
        """Only predefined ones exist, and these stay."""
        network = self._engine.network.network(request.match_info["id"])
        raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")

    async def change(self, request: Request) -> web.Response:
        """Connecting a container to a second network, or taking it off one."""
        network = self._engine.network.network(request.match_info["id"])
        wanted = await request.document(api.NetworkConnectRequest)
        container = self._engine.containers.resolve(wanted.container)
        raise Unsupported(
            f"{request.match_info['verb']} container {container.name} and network {network.name}: "
            "changing a container's networks is not supported"
        )

    async def prune(self, request: Request) -> web.Response:
        """Predefined networks are never pruned, so there is nothing to do."""
        known_filters(request.filters(), _PRUNE_FILTERS)
        self._engine.events.publish("network", "prune", "", {"reclaimed": "0"})
        return json_response(api.NetworksPruned())


def _matches(network: NetworkInfo, filters: Mapping[str, Sequence[str]]) -> bool:
    """Names and ids by any part, as Docker matches them."""
    for name, value in (("name", network.name), ("id", network.id)):
        if name in filters and not any(each in value for each in filters[name]):
            return False
    for name, value in (("driver", network.driver), ("scope", "local")):
        if name in filters and value not in filters[name]:
            return False
    return labels_match({}, filters)


def routes(engine: Engine) -> list[RouteDef]:
    on = NetworkRoutes(engine)
    return [
        RouteDef("GET", "/networks", on.list),
        RouteDef("GET", "/networks/", on.list),
        RouteDef("POST", "/networks/create", on.create),
        RouteDef("POST", "/networks/prune", on.prune),
        RouteDef("GET", "/networks/{id}", on.inspect),
        RouteDef("DELETE", "/networks/{id}", on.remove),
        RouteDef("POST", "/networks/{id}/{verb:connect|disconnect}", on.change),
    ]
