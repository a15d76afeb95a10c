"""What an endpoint is: the types that the network layer hands to the engine, and that it keeps in the database."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

PREDEFINED = ("bridge", "host", "none")
"""The networks that are always there."""


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One port to publish, as asked for.

    `host_ip` empty: the network's default (every address of the container's families).
    `host_port_first` 0: any port of the host's ephemeral range; otherwise the first free one from `host_port_first` to
    `host_port_last`, both included.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port_first: int = 0
    host_port_last: int = 0


class PortBinding(msgspec.Struct, frozen=True, kw_only=True):
    """One published port as it stands."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A network namespace ("sandbox") and one interface of it in a network.

    `id`: 64 hex digits (Docker's EndpointID). `sandbox_id`: 64 hex digits; several endpoints may share a sandbox, which
    is there as long as one of them is. `path`: the namespace's pin, which goes into the OCI spec as the `network`
    namespace's path. `container_id` is empty while nobody has taken it. `interface`: the inner one's name.
    On network `none` the address fields are empty. `bare`: it stands for the sandbox alone, whose container is on other
    networks, or on none any more. `mac` is in colon form. Of a container's gateways, the one with the highest
    `priority` is its way out; an `internal` network has no gateway. `ip6` and its like are empty where there is no
    IPv6. `driver`: the network's.
    """

    id: str
    sandbox_id: str
    network: str
    network_id: str
    path: str
    container_id: str = ""
    ip: str = ""
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    host_interface: str = ""
    interface: str = "eth0"
    priority: int = 0
    bare: bool = False
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    driver: str = "bridge"

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(each for each in (self.ip, self.ip6) if each)


def way_out(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """A container's default route, and where its ports are published: of those that lead anywhere, the one with the
    highest priority; of equals, the network's name decides."""
    found = [each for each in endpoints if each.gateway]
    return min(found, key=lambda each: (-each.priority, each.network), default=None)


def way_out_6(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The same for IPv6."""
    found = [each for each in endpoints if each.gateway6]
    return min(found, key=lambda each: (-each.priority, each.network), default=None)


class NetworkInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A network, for list and inspect. `created`: nanoseconds since the epoch. `driver`: bridge, macvlan, ipvlan, host
    or null. `configured`: its subnet was asked for, so that addresses may be too; those with a 6 are for IPv6."""

    id: str
    name: str
    driver: str
    created: int
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}
    configured: bool = False
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    reserved6: dict[str, str] = {}
    configured6: bool = False
    internal: bool = False
    attachable: bool = False
    host_ip: str = ""
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    """Those that containers hold; filled by `NetworkController.network` alone."""

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What `NetworkController.publish` did.

    `sockets`: descriptors of the bound sockets that reserve the host's ports. They are the caller's: hand them to the
    shim, which holds them for the container's life, then close them; close them if the start fails.
    """

    bindings: tuple[PortBinding, ...] = ()
    sockets: tuple[int, ...] = ()
    withdrawn: tuple[tuple[str, str, int], ...] = ()
    """Protocol, address and port of what was published before and is not any more: its reservation is the shim's."""
