"""The network controller: networks, endpoints and their life.

All methods are synchronous and safe to call from several threads. Order of a start with ports:

    endpoint = await pool.take("bridge", container_id)        # network.sandboxes.SandboxPool
    published = controller.publish(endpoint, requests, name)  # in a thread
    … spec: namespace path = endpoint.path; files from network.files; shim holds published.sockets …
    await pool.release(container_id)                          # after the container has ended for good, or on failure
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sampan.core.metadata import Metadata
from sampan.network.endpoints import Endpoint, NetworkInfo, PortBinding, PortRequest, Published


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """`bridge` and `table`: names that derive from the exec root (interface name: 15 characters at most).

    `netns_dir`: where namespaces are pinned. `bridge_address`: dockerd's --bip, the bridge's address with its prefix
    (`172.27.0.1/16`); empty: the first default pool that overlaps nothing on this host. `mtu`: bytes.
    """

    bridge: str
    table: str
    netns_dir: str
    bridge_address: str = ""
    mtu: int = 1500


class NetworkController:
    def __init__(self, metadata: Metadata, settings: NetworkSettings) -> None:
        """Registers the tables and loads the networks; changes nothing in the kernel yet."""

    def setup(self) -> None:
        """Make the bridge, its sysctls and our firewall table as they must be. Idempotent; also repairs."""

    def adopt(self, live: Collection[str]) -> None:
        """Keep what the containers with these ids hold, remove all else that is ours, and restore rules. Call once
        after `setup`, when it is known which shims live, and before any endpoint is made."""

    def repair(self) -> None:
        """Restore the bridge and the rules if something else removed them; cheap when nothing did."""

    def networks(self) -> list[NetworkInfo]:
        """bridge, host and none."""

    def network(self, name_or_id: str) -> NetworkInfo:
        """By name, id or unique prefix of an id; NotFound otherwise. `endpoints` is filled."""

    def create(self, name: str, driver: str) -> NetworkInfo:
        """Raises Unsupported: user-defined networks are not there yet."""

    def allocate(self, network: str, container_id: str = "", *, mac: str = "") -> Endpoint:
        """Record a new endpoint on `bridge` or `none`, with an address; nothing in the kernel is changed yet."""

    def attach(self, endpoint: Endpoint, netlink_fd: int) -> None:
        """Wire the namespace that the NETLINK_ROUTE socket was opened in: lo up, and on a bridge network eth0 with its
        address and routes. The descriptor stays the caller's. On failure nothing is left in the kernel."""

    def claim(self, endpoint: Endpoint, container_id: str) -> Endpoint:
        """Give a ready endpoint to a container."""

    def publish(self, endpoint: Endpoint, requests: Iterable[PortRequest], name: str = "") -> Published:
        """Reserve host ports and forward them, in one transaction; all or nothing. `name`: the container's, for the
        error message. Raises Conflict (`driver failed programming external connectivity …`)."""

    def endpoint(self, container_id: str) -> Endpoint | None:
        """What the container holds."""

    def bindings(self, container_id: str) -> tuple[PortBinding, ...]:
        """The container's published ports."""

    def release(self, container_id: str) -> None:
        """Unpublish, remove the namespace's pin and free the address of what the container holds. Idempotent."""

    def discard(self, endpoint: Endpoint) -> None:
        """The same for an endpoint, taken or not."""

    def close(self) -> None:
        """Close the netlink sockets. Namespaces and rules stay."""
