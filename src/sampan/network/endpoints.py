"""What an endpoint is: the types that the network layer hands to the engine, and that it keeps in the database."""

from __future__ import annotations

import msgspec


class PortRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One port to publish, as asked for.

    `host_ip` empty: the network's default (every IPv4 address). `host_port_first` 0: any port of the host's
    ephemeral range; otherwise the first free one from `host_port_first` to `host_port_last`, both included.
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
    """A network namespace ("sandbox") and its one interface in a network.

    `id`: 64 hex digits (Docker's EndpointID). `sandbox_id`: 64 hex digits. `path`: the namespace's pin, which goes
    into the OCI spec as the `network` namespace's path. `container_id` is empty while nobody has taken it.
    On network `none` the address fields are empty. `mac` is in colon form.
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


class NetworkInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A network, for list and inspect. `created`: nanoseconds since the epoch. `driver`: bridge, host or null."""

    id: str
    name: str
    driver: str
    created: int
    subnet: str = ""
    gateway: str = ""
    options: dict[str, str] = {}
    endpoints: tuple[Endpoint, ...] = ()
    """Those that containers hold; filled by `NetworkController.inspect` alone."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What `NetworkController.publish` did.

    `sockets`: descriptors of the bound sockets that reserve the host's ports. They are the caller's: hand them to the
    shim, which holds them for the container's life, then close them; close them if the start fails.
    """

    bindings: tuple[PortBinding, ...] = ()
    sockets: tuple[int, ...] = ()
