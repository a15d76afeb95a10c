"""What a request says of the container's place on its network (`NetworkingConfig`): kept, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import msgspec

from sampan.api.containers import CreateRequest, EndpointIPAMConfig, EndpointSettings
from sampan.errors import InvalidArgument, Unsupported
from sampan.network.addresses import parse_mac
from sampan.network.endpoints import Endpoint, NetworkInfo


def wanted_endpoint(
    request: CreateRequest, network: NetworkInfo, find: Callable[[str], NetworkInfo]
) -> EndpointSettings:
    """The request's settings for the container's one network. Raises InvalidArgument, Unsupported, and NotFound for a
    network that is not there."""
    wanted = EndpointSettings()
    networking = request.networking_config
    for name, settings in ((networking.endpoints_config if networking else None) or {}).items():
        other = network if name == "default" and network.name == "bridge" else find(name)
        if settings is None:
            raise InvalidArgument(f"invalid config for network {name}: EndpointsConfig is nil")
        if other.id != network.id:
            raise Unsupported(f"network {name} besides {network.name}: more than one network is not supported")
        _check(network.name, settings)
        wanted = settings
    if request.mac_address:
        if wanted.mac_address not in ("", request.mac_address):
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        wanted = msgspec.structs.replace(wanted, mac_address=request.mac_address)
    if wanted.mac_address:
        try:
            parse_mac(wanted.mac_address)
        except InvalidArgument:
            raise InvalidArgument(
                f"invalid config for network {network.name}: invalid MAC address {wanted.mac_address}"
            ) from None
    # The rest of a document, such as another container's, is what came of that one.
    return EndpointSettings(mac_address=wanted.mac_address, gw_priority=wanted.gw_priority)


def _check(network: str, settings: EndpointSettings) -> None:
    ipam = settings.ipam_config or EndpointIPAMConfig()
    faults: list[str] = []
    if settings.aliases:
        faults.append("network-scoped alias is supported only for containers in user defined networks")
    if ipam.ipv4_address or ipam.ipv6_address:
        faults.append("user specified IP address is supported on user defined networks only")
    for text, kind, version in ((ipam.ipv4_address, IPv4Address, "IPv4"), (ipam.ipv6_address, IPv6Address, "IPv6")):
        try:
            kind(text or 0)
        except ValueError:
            faults.append(f"invalid {version} address: {text}")
    if faults:
        raise InvalidArgument(f"invalid config for network {network}: invalid endpoint settings: {'; '.join(faults)}")
    for given, name in (
        (settings.links, "--link"), (settings.driver_opts, "a network's driver options"),
        (ipam.link_local_ips, "--link-local-ip"),
    ):  # fmt: skip
        if given:
            raise Unsupported(f"{name} is not supported yet")


def settings_of(
    wanted: EndpointSettings, network: NetworkInfo, endpoint: Endpoint | None, host_id: str
) -> EndpointSettings:
    """What came of it. `endpoint` None: the host's network, where only `host_id` tells the container's place."""
    if endpoint is None:
        return msgspec.structs.replace(wanted, network_id=network.id, endpoint_id=host_id)
    return msgspec.structs.replace(
        wanted, network_id=network.id, endpoint_id=endpoint.id, gateway=endpoint.gateway, ip_address=endpoint.ip,
        ip_prefix_len=endpoint.prefix, mac_address=endpoint.mac or wanted.mac_address,
    )  # fmt: skip
