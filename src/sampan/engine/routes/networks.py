"""`/networks`: the networks that there are, and who is on them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from aiohttp import web

from sampan.api import networks as api
from sampan.api.containers import EndpointSettings
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import networking
from sampan.engine.http.filters import boolean_filter, known_filters, labels_match
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import RouteDef
from sampan.engine.services import Engine
from sampan.engine.timestamps import parse_moment, rfc3339
from sampan.errors import Forbidden, InvalidArgument, NotFound, SampanError, Unsupported
from sampan.network.definitions import NetworkRequest, SubnetRequest
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
        dangling = boolean_filter(filters, "dangling")
        found = [
            each
            for each in self._engine.network.networks()
            if _matches(each, filters)
            and (not kinds or ("builtin" if each.predefined else "custom") in kinds)
            and (dangling is None or dangling == self._unused(each))
        ]
        return json_response([self._document(each) for each in found])

    def _unused(self, network: NetworkInfo) -> bool:
        """Whether no container is on it: what a prune removes. One that does not run does not count, as with Docker."""
        return not network.predefined and not self._engine.network.network(network.id).endpoints

    async def inspect(self, request: Request) -> web.Response:
        """One network, with the containers that run on it."""
        wanted = request.match_info["id"]
        scope = request.text_parameter("scope")
        if scope and scope != "local":
            raise NotFound(f"network {wanted} not found")
        return json_response(self._document(self._engine.network.network(wanted)))

    def _document(self, network: NetworkInfo) -> api.NetworkDocument:
        subnets = tuple(
            api.IPAMConfig(
                subnet=subnet, ip_range=ip_range or None, gateway=gateway or None, auxiliary_addresses=reserved or None
            )
            for subnet, ip_range, gateway, reserved in (
                (network.subnet, network.ip_range, network.gateway, network.reserved),
                (network.subnet6, network.ip_range6, network.gateway6, network.reserved6),
            )
            if subnet
        )
        return api.NetworkDocument(
            name=network.name, id=network.id, created=rfc3339(network.created), driver=network.driver,
            ipam=api.IPAM(config=subnets or None), enable_ipv6=bool(network.subnet6),
            internal=network.internal, attachable=network.attachable, options=network.options, labels=network.labels,
            containers={
                each.container_id: api.NetworkContainer(
                    name=self._container_name(each.container_id), endpoint_id=each.id, mac_address=each.mac,
                    ipv4_address=f"{each.ip}/{each.prefix}" if each.ip else "",
                    ipv6_address=f"{each.ip6}/{each.prefix6}" if each.ip6 else "",
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
        wanted = _wanted(await request.document(api.NetworkCreateRequest))
        info = await run_blocking(self._engine.network.create, wanted)
        self._tell("create", info)
        return json_response(api.NetworkCreateResponse(id=info.id), 201)

    async def remove(self, request: Request) -> web.Response:
        network = self._engine.network.network(request.match_info["id"])
        if network.endpoints and not network.predefined:
            held = ((self._container_name(each.container_id), each.container_id[:12]) for each in network.endpoints)
            names = ", ".join(f'name:"{name}" id:"{short}"' for name, short in held)
            raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({names})")
        info = await run_blocking(self._engine.network.remove, network.id)
        self._tell("destroy", info)
        return web.Response(status=204)

    async def connect(self, request: Request) -> web.Response:
        network = self._engine.network.network(request.match_info["id"])
        wanted = await request.document(api.NetworkConnectRequest)
        container = self._engine.containers.resolve(wanted.container)
        await networking.connect(self._engine, container, network, wanted.endpoint_config or EndpointSettings())
        return web.Response(status=200)

    async def disconnect(self, request: Request) -> web.Response:
        network = self._engine.network.network(request.match_info["id"])
        wanted = await request.document(api.NetworkConnectRequest)
        await networking.disconnect(self._engine, self._engine.containers.resolve(wanted.container), network)
        return web.Response(status=200)

    async def prune(self, request: Request) -> web.Response:
        """The user's networks that no container is on."""
        filters = known_filters(request.filters(), _PRUNE_FILTERS)
        before = [parse_moment(each) for each in filters.get("until", ())]
        if len(before) > 1:
            raise InvalidArgument("more than one until filter specified")
        removed: list[str] = []
        for each in self._engine.network.networks():
            if any(each.created >= moment for moment in before):
                continue
            if not self._unused(each) or not labels_match(each.labels, filters):
                continue
            with contextlib.suppress(SampanError):  # Somebody has come, or taken it away.
                self._tell("destroy", await run_blocking(self._engine.network.remove, each.id))
                removed.append(each.name)
        self._engine.events.publish("network", "prune", "", {"reclaimed": "0"})
        return json_response(api.NetworksPruned(networks_deleted=tuple(removed) or None))

    def _tell(self, action: str, network: NetworkInfo) -> None:
        self._engine.events.publish("network", action, network.id, {"name": network.name, "type": network.driver})


def _wanted(request: api.NetworkCreateRequest) -> NetworkRequest:
    """What the request says; what is not done is refused by name."""
    ipam = request.ipam or api.IPAM()
    for given, name in (
        (request.enable_ipv4 is False, "a network without IPv4"),
        (request.ingress, "an ingress network"), (request.config_only, "a network's configuration alone"),
        (request.config_from is not None and request.config_from.network, "a network's configuration from another's"),
        (request.scope not in ("", "local"), f"scope {request.scope}"),
        (ipam.driver not in ("", "default"), f"address management driver {ipam.driver}"),
        (ipam.options, "options of address management"),
    ):  # fmt: skip
        if given:
            raise Unsupported(f"{name} is not supported")
    return NetworkRequest(
        name=request.name, driver=request.driver or "bridge", ipv6=bool(request.enable_ipv6),
        subnets=tuple(
            SubnetRequest(
                subnet=each.subnet or "", ip_range=each.ip_range or "", gateway=each.gateway or "",
                reserved=each.auxiliary_addresses or {},
            )
            for each in ipam.config or ()
        ),
        internal=request.internal, attachable=request.attachable, labels=request.labels or {},
        options=request.options or {},
    )  # fmt: skip


def _matches(network: NetworkInfo, filters: Mapping[str, Sequence[str]]) -> bool:
    """Names and ids by any part, as Docker matches them."""
    for name, value in (("name", network.name), ("id", network.id)):
        if name in filters and not any(each in value for each in filters[name]):
            return False
    for name, value in (("driver", network.driver), ("scope", "local")):
        if name in filters and value not in filters[name]:
            return False
    return labels_match(network.labels, filters)


def routes(engine: Engine) -> list[RouteDef]:
    on = NetworkRoutes(engine)
    return [
        RouteDef("GET", "/networks", on.list),
        RouteDef("GET", "/networks/", on.list),
        RouteDef("POST", "/networks/create", on.create),
        RouteDef("POST", "/networks/prune", on.prune),
        RouteDef("GET", "/networks/{id}", on.inspect),
        RouteDef("DELETE", "/networks/{id}", on.remove),
        RouteDef("POST", "/networks/{id}/connect", on.connect),
        RouteDef("POST", "/networks/{id}/disconnect", on.disconnect),
    ]
