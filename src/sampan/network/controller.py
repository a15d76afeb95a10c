"""The network controller: networks, endpoints and their life.

All methods are synchronous and safe to call from several threads. Order of a start with ports:

    endpoint = await pool.take("bridge", container_id)        # network.sandboxes.SandboxPool
    published = controller.publish(endpoint, requests, name)  # in a thread
    … the spec's network namespace is endpoint.path; the shim holds published.sockets …
    await pool.release(container_id)                          # when the shim is gone, or the start failed

The row of an endpoint is there before anything of it is in the kernel and goes after everything of it has gone, so
`adopt` can tell after a kill at any instruction what to keep and what to remove. Interfaces on the host are named by a
prefix that belongs to this engine's bridge alone, namespaces are pinned in this engine's directory, rules and
ports are in its own table: whatever is found there without a row is a leftover.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

import msgspec

from sampan.core.metadata import Metadata
from sampan.errors import Conflict, InvalidArgument, NotFound, ResourceExhausted, Unavailable, Unsupported
from sampan.linux.netlink import conntrack, rtnl
from sampan.linux.netlink.nftables import NFNLGRP_NFTABLES
from sampan.linux.netlink.socket import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink
from sampan.network import bridge, pools
from sampan.network.addresses import AddressPool, mac_address, parse_mac
from sampan.network.endpoints import Endpoint, NetworkInfo, PortBinding, PortRequest, Published
from sampan.network.firewall import ANY_ADDRESS, Firewall, Forward
from sampan.network.pins import unpin
from sampan.network.ports import PortTable, close_all
from sampan.network.store import NetworkRow, NetworkStore, PortRow

_INNER_NAME = "eth0"
# In a namespace just made lo is 1, and only tunnel modules add links of their own, from 2 on.
_INNER_INDEX = 100


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
        """Registers the tables and loads the rows; changes nothing in the kernel yet."""
        self._settings = settings
        self._wanted_address = pools.bridge_address(settings.bridge_address) if settings.bridge_address else None
        # veth, four digits that tell engines apart, seven that tell endpoints apart: 15, the kernel's limit.
        self._prefix = "veth" + hashlib.sha256(settings.bridge.encode()).hexdigest()[:4]
        self._store = NetworkStore(metadata)
        self._networks: dict[str, NetworkRow] = {row.name: row for row in self._store.networks()}
        self._endpoints: dict[str, Endpoint] = {endpoint.id: endpoint for endpoint in self._store.endpoints()}
        self._by_container = {each.container_id: each for each in self._endpoints.values() if each.container_id}
        self._ports: dict[str, list[PortRow]] = {}
        self._taken_ports = PortTable()
        for row in self._store.ports():
            self._ports.setdefault(row.endpoint_id, []).append(row)
            self._taken_ports.add(row.protocol, row.host_ip, row.host_port)
        # Short holds only, as the engine's loop takes it too; never while waiting for the kernel's rtnl lock.
        self._state = threading.RLock()
        # One for each socket, for the duration of an exchange. Order: removal, route, filter, state.
        self._route_lock = threading.RLock()
        self._filter_lock = threading.RLock()
        self._removal_lock = threading.Lock()
        self._route: Netlink | None = None
        self._filter: Netlink | None = None
        self._firewall: Firewall | None = None
        self._namespace = -1
        self._bridge_index = 0
        self._addresses: AddressPool | None = None

    # --- The host's side --------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the bridge, its sysctls and our firewall table as they must be. Idempotent; also repairs.

        A changed `bridge_address` takes effect when no endpoint is left. Raises ResourceExhausted when no default pool
        is free, Conflict when an interface of the bridge's name is something else or another one has an address of the
        wanted subnet, Unavailable from the kernel.
        """
        try:
            os.makedirs(self._settings.netns_dir, mode=0o711, exist_ok=True)
            with self._route_lock, self._filter_lock:
                if self._route is None:
                    self._route = Netlink.open(NETLINK_ROUTE)
                    self._namespace = self._route.namespace()
                if self._filter is None:
                    self._filter = Netlink.open(NETLINK_NETFILTER)
                self._choose_address(self._route)
                self._ensure_bridge()
                self._firewall = Firewall(
                    self._filter, self._settings.table, self._settings.bridge, self._gateway.network
                )
                if not self._firewall.intact(self._forwards()):
                    self._firewall.replace(self._forwards())
        except OSError as error:
            raise Unavailable(f"network {self._settings.bridge}: {_reason(error)}") from error

    def repair(self) -> None:
        """Restore the bridge and the rules if something else removed them; two short questions when nothing did."""
        try:
            with self._route_lock:
                if not bridge.intact(self._routing, self._settings.bridge, self._bridge_index):
                    self._ensure_bridge()
            with self._filter_lock:
                if not self._rules.intact(self._forwards()):
                    self._rules.replace(self._forwards())
        except OSError as error:
            raise Unavailable(f"network {self._settings.bridge}: {_reason(error)}") from error

    def watch(self) -> Netlink:
        """A socket that becomes readable when rules of the host change, ours or others': then drain its `events`
        and call `repair`. The caller closes it. Raises Unavailable."""
        try:
            netlink = Netlink.open(NETLINK_NETFILTER)
            netlink.subscribe(NFNLGRP_NFTABLES)
        except OSError as error:
            raise Unavailable(f"watch the host's rules: {_reason(error)}") from error
        return netlink

    def adopt(self, live: Collection[str]) -> None:
        """Keep what the containers with these ids hold, remove all else that is ours, and restore the rules.

        Call once after `setup`, when it is known which shims live, and before any endpoint is made.
        """
        with self._state:
            doomed = [each for each in self._endpoints.values() if each.container_id not in live]
        for endpoint in doomed:
            self._remove(endpoint, rules=False)
        with self._state:
            known_paths = {each.path for each in self._endpoints.values()}
            known_links = {each.host_interface for each in self._endpoints.values()}
        try:
            for name in os.listdir(self._settings.netns_dir):
                path = f"{self._settings.netns_dir}/{name}"
                if path not in known_paths:
                    unpin(path)
            with self._route_lock, self._filter_lock:
                for link in rtnl.links(self._routing):
                    if link.kind == "veth" and link.name.startswith(self._prefix) and link.name not in known_links:
                        self._delete_link(link.name)
                self._choose_address(self._routing)
                self._ensure_bridge()
                # The subnet may have changed, and elements without rows may be there: all anew, in one transaction.
                self._firewall = Firewall(
                    self._filtering, self._settings.table, self._settings.bridge, self._gateway.network
                )
                self._firewall.replace(self._forwards())
        except OSError as error:
            raise Unavailable(f"network {self._settings.bridge}: {_reason(error)}") from error

    def teardown(self) -> None:
        """Remove everything, endpoints, rules and bridge: for whoever uninstalls. Forwarding stays enabled."""
        with self._state:
            endpoints = list(self._endpoints.values())
        for endpoint in endpoints:
            self._remove(endpoint)
        with self._filter_lock:
            self._rules.remove()
        with self._route_lock:
            self._delete_link(self._settings.bridge)

    def close(self) -> None:
        """Close the netlink sockets. Namespaces and rules stay."""
        with self._route_lock, self._filter_lock:
            for netlink in (self._route, self._filter):
                if netlink is not None:
                    netlink.close()
            if self._namespace >= 0:
                os.close(self._namespace)
            self._namespace = -1
            self._route = self._filter = self._firewall = None

    # --- Networks ---------------------------------------------------------------------------------

    def networks(self) -> list[NetworkInfo]:
        """bridge, host and none, without their endpoints."""
        with self._state:
            return [self._info(row) for row in self._networks.values()]

    def network(self, name_or_id: str) -> NetworkInfo:
        """By name, id or unique prefix of an id, with the endpoints that containers hold. Raises NotFound, and
        InvalidArgument for a prefix of several."""
        with self._state:
            row = self._networks.get(name_or_id)
            if row is None:
                found = [each for each in self._networks.values() if name_or_id and each.id.startswith(name_or_id)]
                if not found:
                    raise NotFound(f"network {name_or_id} not found")
                if len(found) > 1:
                    raise InvalidArgument(
                        f"network {name_or_id} is ambiguous ({len(found)} matches found on ID prefix)"
                    )
                row = found[0]
            held = tuple(each for each in self._by_container.values() if each.network_id == row.id)
            return msgspec.structs.replace(self._info(row), endpoints=held)

    def create(self, name: str, driver: str) -> NetworkInfo:
        """Raises Unsupported: user-defined networks are not there yet."""
        raise Unsupported(f"network {name}: creating networks (driver {driver}) is not supported")

    def _info(self, row: NetworkRow) -> NetworkInfo:
        if row.driver != "bridge" or row.address is None:
            return NetworkInfo(id=row.id, name=row.name, driver=row.driver, created=row.created)
        prefix = "com.docker.network.bridge."
        options = {
            f"{prefix}default_bridge": "true",
            f"{prefix}enable_icc": "true",
            f"{prefix}enable_ip_masquerade": "true",
            f"{prefix}host_binding_ipv4": ANY_ADDRESS,
            f"{prefix}name": self._settings.bridge,
            "com.docker.network.driver.mtu": str(self._settings.mtu),
        }
        return NetworkInfo(
            id=row.id, name=row.name, driver=row.driver, created=row.created, subnet=str(row.address.network),
            gateway=str(row.address.ip), options=options,
        )  # fmt: skip

    # --- Endpoints --------------------------------------------------------------------------------

    def allocate(self, network: str, container_id: str = "", *, mac: str = "") -> Endpoint:
        """Record a new endpoint on `bridge` or `none`, with an address; nothing in the kernel is changed yet.

        `mac`: colon form; empty: derived from the address. Raises ResourceExhausted (no address left),
        InvalidArgument, NotFound.
        """
        hardware = parse_mac(mac) if mac else b""
        key = os.urandom(32).hex()
        sandbox = os.urandom(32).hex()
        path = f"{self._settings.netns_dir}/{sandbox[:12]}"
        with self._state:
            row = self._networks.get(network)
            if row is None or row.driver == "host":
                raise NotFound(f"network {network} not found")
            if row.driver == "null":
                endpoint = Endpoint(
                    id=key, sandbox_id=sandbox, network=network, network_id=row.id, path=path, container_id=container_id
                )
                self._store.add_endpoint(endpoint)
            else:
                gateway = self._gateway
                pool = self._pool
                number = pool.allocate()
                try:
                    endpoint = Endpoint(
                        id=key, sandbox_id=sandbox, network=network, network_id=row.id, path=path,
                        container_id=container_id, ip=str(IPv4Address(number)), prefix=gateway.network.prefixlen,
                        gateway=str(gateway.ip), mac=(hardware or mac_address(number)).hex(":"),
                        host_interface=self._prefix + os.urandom(4).hex()[:7],
                    )  # fmt: skip
                    self._store.add_endpoint(endpoint)
                except BaseException:
                    pool.release(number)
                    raise
            self._endpoints[key] = endpoint
            if container_id:
                self._by_container[container_id] = endpoint
            return endpoint

    def attach(self, endpoint: Endpoint, netlink_fd: int) -> None:
        """Wire the namespace that the NETLINK_ROUTE socket was opened in: lo up, and on a bridge network eth0 with its
        address and routes. The descriptor stays the caller's.

        On failure no interface is left (the endpoint still wants `discard`). Raises Unavailable.
        """
        inside = Netlink(netlink_fd)
        try:
            loopback = rtnl.set_link(rtnl.LOOPBACK_INDEX, up=True)
            if not endpoint.ip:
                inside.request(loopback)
                return
            try:
                # The pair is made from within, so that the inner end's index is ours to choose and all of
                # that side is one system call.
                inside.request(
                    rtnl.add_veth(
                        _INNER_NAME, index=_INNER_INDEX, mac=bytes.fromhex(endpoint.mac.replace(":", "")),
                        mtu=self._settings.mtu, peer_name=endpoint.host_interface, peer_namespace=self._namespace,
                    ),
                    loopback,
                    rtnl.without_ipv6(_INNER_INDEX),
                    rtnl.set_link(_INNER_INDEX, up=True),
                    rtnl.add_address(_INNER_INDEX, IPv4Address(endpoint.ip).packed, endpoint.prefix),
                    rtnl.add_route(gateway=IPv4Address(endpoint.gateway).packed, output=_INNER_INDEX),
                )  # fmt: skip
                with self._route_lock:
                    self._join_bridge(endpoint.host_interface)
            except OSError:
                with self._route_lock:
                    self._delete_link(endpoint.host_interface)
                raise
        except OSError as error:
            raise Unavailable(f"attach endpoint {endpoint.id[:12]} to {endpoint.network}: {_reason(error)}") from error
        finally:
            inside.detach()

    def _join_bridge(self, name: str) -> None:
        try:
            self._routing.request(
                rtnl.without_ipv6(name=name),
                rtnl.set_link(name=name, up=True, master=self._bridge_index),
                # Where br_netfilter is active, a container that reaches its own published port is switched back to
                # itself, instead of being routed.
                rtnl.hairpin(name=name),
            )
        except OSError:
            # The bridge has vanished, or another link has its index now.
            if bridge.intact(self._routing, self._settings.bridge, self._bridge_index):
                raise
            self._ensure_bridge()

    def claim(self, endpoint: Endpoint, container_id: str) -> Endpoint:
        """Give a ready endpoint to a container."""
        with self._state:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id} not found")
            claimed = msgspec.structs.replace(endpoint, container_id=container_id)
            self._store.set_container(endpoint.id, container_id)
            self._endpoints[endpoint.id] = claimed
            self._by_container[container_id] = claimed
            return claimed

    def endpoint(self, container_id: str) -> Endpoint | None:
        """What the container holds."""
        with self._state:
            return self._by_container.get(container_id)

    # --- Published ports --------------------------------------------------------------------------

    def publish(self, endpoint: Endpoint, requests: Iterable[PortRequest], name: str = "") -> Published:
        """Reserve host ports and forward them, in one transaction; all or nothing.

        `name`: the container's, for the message. The rules stand until `release`. Raises ResourceExhausted, in
        Docker's words (`driver failed programming external connectivity on endpoint …`).
        """
        requests = tuple(requests)
        if not requests or not endpoint.ip:
            return Published()
        rows: list[PortRow] = []
        sockets: list[int] = []
        with self._state:
            try:
                # The fixed ones first, so that a range or an ephemeral one does not take what another asks for by name.
                for wanted in sorted(requests, key=_choice):
                    port, fd = self._taken_ports.choose(wanted, endpoint.ip)
                    rows.append(
                        PortRow(
                            endpoint.id, wanted.protocol, wanted.host_ip or ANY_ADDRESS, port, wanted.container_port
                        )
                    )
                    if fd is not None:
                        sockets.append(fd)
                self._store.add_ports(rows)
                self._ports[endpoint.id] = [*self._ports.get(endpoint.id, ()), *rows]
            except BaseException as error:
                self._forget_ports(rows)
                close_all(sockets)
                if isinstance(error, ResourceExhausted):
                    raise ResourceExhausted(f"{_context(endpoint, name)}: {error.message}") from None
                raise
        forwards = [_forward(endpoint, row) for row in rows]
        try:
            with self._filter_lock:
                try:
                    self._rules.publish(forwards)
                except OSError:
                    # Something flushed the table, or a leftover is in the way: make it as the rows say.
                    self._rules.replace(self._forwards())
                self._forget_flows(endpoint, rows)
        except BaseException as error:
            with self._state:
                self._forget_ports(rows)
                self._store.remove_ports(endpoint.id)
                self._ports.pop(endpoint.id, None)
            close_all(sockets)
            if isinstance(error, OSError):
                raise Unavailable(f"{_context(endpoint, name)}: {_reason(error)}") from error
            raise
        return Published(bindings=tuple(map(_binding, rows)), sockets=tuple(sockets))

    def bindings(self, container_id: str) -> tuple[PortBinding, ...]:
        """The container's published ports."""
        with self._state:
            endpoint = self._by_container.get(container_id)
            return tuple(map(_binding, self._ports.get(endpoint.id, ()))) if endpoint is not None else ()

    def _forget_ports(self, rows: Iterable[PortRow]) -> None:
        for row in rows:
            self._taken_ports.remove(row.protocol, row.host_ip, row.host_port)

    def _forget_flows(self, endpoint: Endpoint, rows: Iterable[PortRow]) -> None:
        """UDP flows that go on as the state before these ports told them to."""
        for row in rows:
            if row.protocol == "udp":
                for flow in conntrack.udp_flows(self._filtering, row.host_port):
                    if row.host_ip in (ANY_ADDRESS, str(IPv4Address(flow.destination))):
                        conntrack.forget(self._filtering, flow)

    # --- The end ----------------------------------------------------------------------------------

    def release(self, container_id: str) -> None:
        """Unpublish, remove the namespace's pin and free the address of what the container holds. Idempotent.

        Call it when the shim is gone: it holds the port reservations. Raises Unavailable, and then can be called again.
        """
        endpoint = self.endpoint(container_id)
        if endpoint is not None:
            self.discard(endpoint)

    def discard(self, endpoint: Endpoint) -> None:
        """The same for an endpoint, taken or not."""
        try:
            self._remove(endpoint)
        except OSError as error:
            raise Unavailable(f"release endpoint {endpoint.id[:12]}: {_reason(error)}") from error

    def _remove(self, endpoint: Endpoint, *, rules: bool = True) -> None:
        """The kernel's side first, then the row. The interface pair goes with the namespace, which the kernel takes
        down in its own time: deleting it here would make the caller wait for RCU grace periods."""
        # One at a time: what a second caller saw of the same endpoint could be another's by then.
        with self._removal_lock:
            with self._state:
                if endpoint.id not in self._endpoints:
                    return
                rows = self._ports.get(endpoint.id, [])
            if rows and rules:
                with self._filter_lock:
                    try:
                        self._rules.withdraw([_forward(endpoint, row) for row in rows])
                    except OSError:
                        # Something flushed the rules: make the table as the rows of all others say.
                        with self._state:
                            self._ports.pop(endpoint.id, None)
                        self._rules.replace(self._forwards())
                    self._forget_flows(endpoint, rows)
            unpin(endpoint.path)
            with self._state:
                self._store.remove_endpoint(endpoint.id)
                self._forget_ports(rows)
                self._ports.pop(endpoint.id, None)
                held = self._endpoints.pop(endpoint.id)
                if self._by_container.get(held.container_id) is held:
                    del self._by_container[held.container_id]
                if endpoint.ip and self._addresses is not None:
                    self._addresses.release(int(IPv4Address(endpoint.ip)))

    # --- Inside -----------------------------------------------------------------------------------

    @property
    def _routing(self) -> Netlink:
        if self._route is None:
            raise Unavailable("the network is not set up")
        return self._route

    @property
    def _filtering(self) -> Netlink:
        if self._filter is None:
            raise Unavailable("the network is not set up")
        return self._filter

    @property
    def _rules(self) -> Firewall:
        if self._firewall is None:
            raise Unavailable("the network is not set up")
        return self._firewall

    @property
    def _gateway(self) -> IPv4Interface:
        address = self._networks["bridge"].address
        if address is None:
            raise Unavailable("the network is not set up")
        return address

    @property
    def _pool(self) -> AddressPool:
        if self._addresses is None:
            raise Unavailable("the network is not set up")
        return self._addresses

    def _choose_address(self, netlink: Netlink) -> None:
        """The bridge's address: what is in use stays while an endpoint is left; then the setting's, then the
        stored one if nothing else on the host overlaps it, then a default pool's."""
        with self._state:
            row = self._networks["bridge"]
            in_use = any(each.network_id == row.id for each in self._endpoints.values())
            address = row.address
        if self._wanted_address is not None:
            if address is None or not in_use:
                address = self._wanted_address
                # The host would send what is meant for a container there.
                if holder := bridge.other_holder(netlink, self._settings.bridge, address.network):
                    raise Conflict(f"bridge address {address}: interface {holder} has an address of that network")
        elif address is None or not in_use:
            used = bridge.other_subnets(netlink, self._settings.bridge)
            if address is None or any(address.network.overlaps(each) for each in used if each.prefixlen):
                subnet = pools.choose(used)
                address = IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))
        with self._state:
            if address != row.address:
                self._store.set_address(row.id, address)
                row = next(each for each in self._store.networks() if each.id == row.id)
                self._networks["bridge"] = row
                self._addresses = None
            if self._addresses is None:
                held = [int(IPv4Address(each.ip)) for each in self._endpoints.values() if each.network_id == row.id]
                self._addresses = AddressPool(address.network, [int(address.ip), *held], row.last_address)

    def _ensure_bridge(self) -> None:
        """Also puts ports back that lost their bridge."""
        settings = self._settings
        index = bridge.ensure(self._routing, settings.bridge, self._gateway, settings.mtu)
        with self._state:
            ours = {each.host_interface for each in self._endpoints.values() if each.host_interface}
        if ours:
            for link in rtnl.links(self._routing):
                if link.name in ours and link.master != index:
                    self._routing.request(
                        rtnl.set_link(link.index, up=True, master=index), rtnl.hairpin(name=link.name)
                    )
        self._bridge_index = index

    def _delete_link(self, name: str) -> None:
        try:
            self._routing.request(rtnl.delete_link(name=name))
        except OSError as error:
            if error.errno != 19:  # ENODEV: gone with its namespace.
                raise

    def _forwards(self) -> list[Forward]:
        with self._state:
            return [_forward(self._endpoints[key], row) for key, rows in self._ports.items() for row in rows]


def _choice(request: PortRequest) -> int:
    if not request.host_port_first:
        return 2
    return 0 if request.host_port_first == request.host_port_last else 1


def _forward(endpoint: Endpoint, row: PortRow) -> Forward:
    return Forward(row.protocol, row.host_ip, row.host_port, endpoint.ip, row.container_port)


def _binding(row: PortRow) -> PortBinding:
    return PortBinding(
        container_port=row.container_port, protocol=row.protocol, host_ip=row.host_ip, host_port=row.host_port
    )


def _context(endpoint: Endpoint, name: str) -> str:
    return (
        f"driver failed programming external connectivity on endpoint {name or endpoint.container_id} ({endpoint.id})"
    )


def _reason(error: OSError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)
