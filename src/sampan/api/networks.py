"""Networks on the wire. Docker Engine API 1.24 to 1.51 (`Network`, `NetworkCreateRequest`)."""

from __future__ import annotations

import msgspec

from sampan.api.containers import APIStruct, EndpointSettings


class IPAMConfig(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """One subnet: all in CIDR form but the gateway. docker-py sends null for what it does not say."""

    subnet: str | None = None
    ip_range: str | None = msgspec.field(name="IPRange", default=None)
    gateway: str | None = None
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(APIStruct, frozen=True, kw_only=True):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: tuple[IPAMConfig, ...] | None = None


class ConfigReference(APIStruct, frozen=True, kw_only=True):
    network: str = ""


class NetworkContainer(APIStruct, frozen=True, kw_only=True):
    """A container on the network; addresses with their prefix."""

    name: str
    endpoint_id: str = msgspec.field(name="EndpointID")
    mac_address: str
    ipv4_address: str = msgspec.field(name="IPv4Address")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")


class NetworkDocument(APIStruct, frozen=True, kw_only=True):
    """A list gives no containers; inspect gives those that run, by id."""

    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str
    enable_ipv4: bool = msgspec.field(name="EnableIPv4", default=True)
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    ipam: IPAM = msgspec.field(name="IPAM", default=IPAM())
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference = ConfigReference()
    config_only: bool = False
    containers: dict[str, NetworkContainer] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class NetworkCreateRequest(APIStruct, frozen=True, kw_only=True):
    name: str = ""
    check_duplicate: bool | None = None
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = msgspec.field(name="EnableIPv6", default=None)
    ipam: IPAM | None = msgspec.field(name="IPAM", default=None)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkCreateResponse(APIStruct, frozen=True, kw_only=True):
    id: str
    warning: str = ""


class NetworkConnectRequest(APIStruct, frozen=True, kw_only=True):
    """For connect and disconnect."""

    container: str = ""
    force: bool = False
    endpoint_config: EndpointSettings | None = None


class NetworksPruned(APIStruct, frozen=True, kw_only=True):
    networks_deleted: tuple[str, ...] | None = None
