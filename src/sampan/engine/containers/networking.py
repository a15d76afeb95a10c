"""A container's places on networks: what a request asks for (`NetworkingConfig`), checked or refused by name; what a
start makes of it; and how one that is there is put onto a network and taken off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import ContainerConfig, CreateRequest, EndpointIPAMConfig, EndpointSettings, HostConfig
from sampan.engine.containers.container import Container
from sampan.engine.containers.record import Record
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, SampanError, Unsupported
from sampan.network.addresses import parse_mac
from sampan.network.endpoints import PREDEFINED, Endpoint, NetworkInfo

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_OTHERS = "container:"
_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
_HOST = "container cannot be disconnected from host network or connected to host network"


# --- What is asked for ------------------------------------------------------------------------------


def asked_for(engine: Engine, request: CreateRequest, mode: str) -> tuple[NetworkInfo, dict[str, EndpointSettings]]:
    """The network of the network mode, and `wanted_endpoints`. Raises InvalidArgument, Unsupported."""
    try:
        network = engine.network.network(mode)
        return network, wanted_endpoints(request, network, engine.network.network)
    except NotFound as error:  # As it is, the docker command would take it for the image that is not there.
        raise InvalidArgument(error.message) from None


def wanted_endpoints(
    request: CreateRequest, network: NetworkInfo, find: Callable[[str], NetworkInfo]
) -> dict[str, EndpointSettings]:
    """The request's settings for each of the container's networks, by name, that of its network mode first. Raises
    InvalidArgument, Unsupported, and NotFound for a network that is not there."""
    wanted = {network.name: EndpointSettings()}
    networking = request.networking_config
    for name, settings in ((networking.endpoints_config if networking else None) or {}).items():
        other = network if name == "default" and network.name == "bridge" else find(name)
        if settings is None:
            raise InvalidArgument(f"invalid config for network {name}: EndpointsConfig is nil")
        if other.id != network.id:
            _check_several(network, other)
        wanted[other.name] = checked(other, settings)
    first = wanted[network.name]
    if request.mac_address:
        if first.mac_address not in ("", request.mac_address):
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        wanted[network.name] = checked(network, msgspec.structs.replace(first, mac_address=request.mac_address))
    return wanted


def _check_several(one: NetworkInfo, other: NetworkInfo) -> None:
    if "host" in (one.driver, other.driver):
        raise InvalidArgument(_HOST)
    if "null" in (one.driver, other.driver):
        raise InvalidArgument(_PRIVATE)


def checked(network: NetworkInfo, settings: EndpointSettings) -> EndpointSettings:
    """What was asked for, without what came of it elsewhere: a document may be another container's. Raises
    InvalidArgument, Unsupported."""
    ipam = settings.ipam_config or EndpointIPAMConfig()
    faults: list[str] = []
    if settings.aliases and network.predefined:
        faults.append("network-scoped alias is supported only for containers in user defined networks")
    if ipam.ipv4_address or ipam.ipv6_address:
        if network.predefined:
            faults.append("user specified IP address is supported on user defined networks only")
        elif not (network.configured or not ipam.ipv4_address) or not (network.configured6 or not ipam.ipv6_address):
            faults.append(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
    for text, kind, version in ((ipam.ipv4_address, IPv4Address, "IPv4"), (ipam.ipv6_address, IPv6Address, "IPv6")):
        try:
            address = kind(text or 0)
        except ValueError:
            faults.append(f"invalid {version} address: {text}")
            continue
        subnet, configured = (
            (network.subnet, network.configured) if version == "IPv4" else (network.subnet6, network.configured6)
        )  # fmt: skip
        if text and configured and address not in ip_network(subnet):
            faults.append(f"no configured subnet contains IP address {text}")
    if faults:
        raise InvalidArgument(
            f"invalid config for network {network.name}: invalid endpoint settings: {'; '.join(faults)}"
        )
    for given, name in (
        (settings.links, "--link"), (settings.driver_opts, "a network's driver options"),
        (ipam.link_local_ips, "--link-local-ip"),
    ):  # fmt: skip
        if given:
            raise Unsupported(f"{name} is not supported yet")
    if settings.mac_address:
        try:
            parse_mac(settings.mac_address)
        except InvalidArgument:
            raise InvalidArgument(
                f"invalid config for network {network.name}: invalid MAC address {settings.mac_address}"
            ) from None
    return EndpointSettings(
        ipam_config=settings.ipam_config if not network.predefined else None,
        aliases=settings.aliases or None if not network.predefined else None,
        mac_address=settings.mac_address, gw_priority=settings.gw_priority,
    )  # fmt: skip


def check_shared(config: ContainerConfig, host: HostConfig) -> None:
    """What a container on another one's network cannot have of its own. Raises InvalidArgument in Docker's words."""
    if not host.network_mode.startswith(_OTHERS):
        return
    for given, what in (
        (config.hostname, "hostname and the network mode"), (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (config.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (config.exposed_ports, "port exposing and the container type network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
    ):  # fmt: skip
        if given:
            raise InvalidArgument(f"conflicting options: {what}")


def shared_with(host: HostConfig, resolve: Callable[[str], Container]) -> Container | None:
    """The container whose network is to be this one's too; None: it has its own, or the host's. Raises
    InvalidArgument."""
    mode = host.network_mode
    if not mode.startswith(_OTHERS):
        return None
    if not mode.removeprefix(_OTHERS):
        raise InvalidArgument("invalid container format container:<name|id>")
    try:
        return resolve(mode.removeprefix(_OTHERS))
    except NotFound as error:
        raise InvalidArgument(f"cannot join network of another container: {error.message}") from None


def wanted_of(record: Record) -> dict[str, EndpointSettings]:
    """By the network's name. One that was taken off all of them gets its first back, as with Docker."""
    mode = record.host_config.network_mode
    return {} if mode.startswith(_OTHERS) else record.networks or {mode: EndpointSettings()}


# --- What a start makes of it -----------------------------------------------------------------------


async def wire(engine: Engine, record: Record, undo: contextlib.AsyncExitStack) -> Endpoint | None:
    """The container's sandbox, on all its networks; None: the host's. `undo` gives it back. Raises NotFound for a
    network that is gone, Conflict for another's sandbox that is not there, and what `SandboxPool` raises."""
    mode = record.host_config.network_mode
    if mode == "host":
        return None
    if shared_with(record.host_config, engine.containers.resolve) is not None:
        return _shared_sandbox(engine, record)
    wanted = dict(wanted_of(record))
    for name in wanted:
        engine.network.network(name)
    pooled = mode in ("bridge", "none") and mode in wanted
    if pooled:
        endpoint = await engine.sandboxes.take(mode, record.id, mac=wanted[mode].mac_address)
    else:
        endpoint = await engine.sandboxes.take("none", record.id, bare=True)
    undo.push_async_callback(engine.sandboxes.release, record.id)
    undo.callback(engine.names.withdraw, record.id)
    for name, settings in wanted.items():
        if not (pooled and name == mode):
            await _join(engine, record.id, name, settings)
    return endpoint


async def _join(engine: Engine, container_id: str, name: str, settings: EndpointSettings) -> Endpoint:
    wanted = settings.ipam_config or EndpointIPAMConfig()
    return await engine.sandboxes.connect(
        container_id, name, ip=wanted.ipv4_address, ip6=wanted.ipv6_address, mac=settings.mac_address,
        priority=settings.gw_priority,
    )  # fmt: skip


def _shared_sandbox(engine: Engine, record: Record) -> Endpoint | None:
    other = shared_with(record.host_config, engine.containers.resolve)
    seen = {record.id}
    while other is not None:
        if not other.running or other.id in seen:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        if other.restarting:
            raise Conflict(f"cannot join network of a restarting container: {other.id}")
        seen.add(other.id)
        if other.record.host_config.network_mode == "host":
            return None
        endpoint = engine.network.endpoint(other.id)
        if endpoint is not None:
            return endpoint
        other = shared_with(other.record.host_config, engine.containers.resolve)
    raise Conflict(f"cannot join network of container {record.host_config.network_mode}: it has none")


def owner(engine: Engine, record: Record) -> Record:
    """Whose hostname, hosts and resolv.conf it has: its own, or those of the one that it shares a network with."""
    seen = {record.id}
    while (other := shared_with(record.host_config, engine.containers.resolve)) is not None and other.id not in seen:
        seen.add(other.id)
        record = other.record
    return record


def settings_of(engine: Engine, record: Record, host_id: str) -> dict[str, EndpointSettings]:
    """What came of it, by network. `host_id`: on the host's network, where only it tells the container's place."""
    endpoints = {each.network: each for each in engine.network.endpoints(record.id)}
    found: dict[str, EndpointSettings] = {}
    for name, wanted in wanted_of(record).items():
        network = engine.network.network(name)
        endpoint = endpoints.get(name)
        if endpoint is None:
            found[name] = msgspec.structs.replace(wanted, network_id=network.id, endpoint_id=host_id)
            continue
        found[name] = msgspec.structs.replace(
            wanted, network_id=network.id, endpoint_id=endpoint.id, gateway=endpoint.gateway, ip_address=endpoint.ip,
            ip_prefix_len=endpoint.prefix, ipv6_gateway=endpoint.gateway6, global_ipv6_address=endpoint.ip6,
            global_ipv6_prefix_len=endpoint.prefix6, mac_address=endpoint.mac or wanted.mac_address,
            dns_names=dns_names(record, wanted) if not network.predefined else None,
        )  # fmt: skip
    return found


def has_names(record: Record) -> bool:
    """Whether it is on a network whose containers find one another by name."""
    return any(name not in PREDEFINED for name in wanted_of(record))


def dns_names(record: Record, wanted: EndpointSettings) -> tuple[str, ...]:
    """What others on a user-defined network find it by."""
    names = (record.name, *(wanted.aliases or ()), record.id[:12], record.config.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


# --- Changes ----------------------------------------------------------------------------------------


async def connect(engine: Engine, container: Container, network: NetworkInfo, settings: EndpointSettings) -> None:
    """`network connect`. Raises Forbidden if it is on it, InvalidArgument, NotFound, Unavailable."""
    async with container.lock:
        record = container.record
        mode = record.host_config.network_mode
        if mode == "host" or mode.startswith(_OTHERS):
            raise InvalidArgument(_SHARED)
        if network.driver == "host":
            raise InvalidArgument(_HOST)
        known = wanted_of(record)
        if network.name in known:
            raise Forbidden(f"endpoint with name {record.name} already exists in network {network.name}")
        if network.driver == "null" or "none" in known:
            raise InvalidArgument(_PRIVATE)
        wanted = checked(network, settings)
        if not container.running:
            container.update(networks={**known, network.name: wanted})
            return
        await _join(engine, record.id, network.name, wanted)
        container.update(networks={**known, network.name: wanted})
        await _settle(engine, container)
        announce_one(engine, container.record, network, "connect")


async def disconnect(engine: Engine, container: Container, network: NetworkInfo) -> None:
    """`network disconnect`. Raises InvalidArgument, NotFound if it is not on it, Unavailable."""
    async with container.lock:
        record = container.record
        mode = record.host_config.network_mode
        if network.driver == "host" or mode == "host" or mode.startswith(_OTHERS):
            raise InvalidArgument(_HOST)
        known = wanted_of(record)
        if network.name not in known:
            raise Forbidden(f"container {record.id} is not connected to network {network.name}")
        rest = {name: each for name, each in known.items() if name != network.name}
        if not container.running:
            container.update(networks=rest)
            return
        if network.driver != "null":
            await engine.sandboxes.disconnect(record.id, network.name)
        container.update(networks=rest)
        await _settle(engine, container)
        announce_one(engine, container.record, network, "disconnect")


async def _settle(engine: Engine, container: Container) -> None:
    from sampan.engine.containers import starting  # It imports this module.

    record = container.record
    container.update(endpoints=settings_of(engine, record, "") if record.networks else {})
    starting.write_hosts(engine, container.record)
    starting.ask_the_resolver(engine, container.record)
    await engine.names.serve(container.record)


def announce_one(engine: Engine, record: Record, network: NetworkInfo, action: str) -> None:
    """The event."""
    attributes = {"container": record.id, "name": network.name, "type": network.driver}
    engine.events.publish("network", action, network.id, attributes)


def announce(engine: Engine, record: Record, action: str) -> None:
    """For all its networks."""
    for name in wanted_of(record):
        with contextlib.suppress(SampanError):
            announce_one(engine, record, engine.network.network(name), action)
