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

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface

import msgspec

from sampan.core.metadata import Metadata
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, SampanError, Unavailable
from sampan.linux.netlink import rtnl
from sampan.linux.netlink.socket import Netlink, Request
from sampan.network import definitions, pools, wiring
from sampan.network.addresses import parse_mac
from sampan.network.allotment import Allotment, placed
from sampan.network.definitions import CHILDREN, Definition, NetworkRequest
from sampan.network.endpoints import PREDEFINED, Endpoint, NetworkInfo, PortBinding, PortRequest, Published, way_out
from sampan.network.firewall import Segment
from sampan.network.links import Links
from sampan.network.pins import unpin
from sampan.network.rules import HostRules, reason
from sampan.network.store import NetworkRow, NetworkStore, described


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
        self._by_container: dict[str, list[Endpoint]] = {}
        for each in sorted(self._endpoints.values(), key=lambda each: (not each.bare, each.interface)):
            if each.container_id:
                self._by_container.setdefault(each.container_id, []).append(each)
        self._allotment = Allotment()
        # Short holds only, as the engine's loop takes it too; never while waiting for the kernel's rtnl lock.
        self._state = threading.RLock()
        # Order: change, removal, those of links and rules, state.
        self._links = Links()
        self._rules = HostRules(self._store, settings.table, self._endpoints.values(), self._state)
        self._removal_lock = threading.Lock()
        self._change_lock = threading.Lock()

    # --- The host's side --------------------------------------------------------------------------

    def setup(self) -> None:
        """Make the bridges, their sysctls and our firewall table as they must be. Idempotent; also repairs.

        A changed `bridge_address` takes effect when no endpoint is left. Raises ResourceExhausted when no default pool
        is free, Conflict when an interface of the bridge's name is something else or another one has an address of the
        wanted subnet, Unavailable from the kernel. A user-defined network that cannot be made fails those who want it.
        """
        try:
            os.makedirs(self._settings.netns_dir, mode=0o711, exist_ok=True)
            self._links.open()
            self._rules.open()
            self._choose_address()
            for row in self._bridged():
                with contextlib.suppress(*(() if row.name in PREDEFINED else (OSError, SampanError))):
                    self._ensure_bridge(row)
            self._rules.ensure(self._segments())
        except OSError as error:
            raise Unavailable(f"network {self._settings.bridge}: {reason(error)}") from error

    def repair(self) -> None:
        """Restore bridges and rules if something else removed them; short questions when nothing did."""
        try:
            for row in self._bridged():
                if not self._links.intact(self._definition(row)):
                    with contextlib.suppress(Conflict):
                        self._ensure_bridge(row)
            self._rules.repair()
        except OSError as error:
            raise Unavailable(f"network {self._settings.bridge}: {reason(error)}") from error

    def watch(self) -> Netlink:
        """A socket that becomes readable when rules of the host change, ours or others': then drain its `events`
        and call `repair`. The caller closes it. Raises Unavailable."""
        try:
            return self._rules.watch()
        except OSError as error:
            raise Unavailable(f"watch the host's rules: {reason(error)}") from error

    def adopt(self, live: Collection[str]) -> None:
        """Keep what the containers with these ids hold, remove all else that is ours, and restore the rules.

        Call once after `setup`, when it is known which shims live, before any endpoint is made.
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
            self._links.delete_pairs(self._prefix, known_links)
            self._choose_address()
            self._ensure_bridge(self._networks["bridge"])
            # The subnet may have changed, and elements without rows may be there: all anew, in one transaction.
            self._rules.ensure(self._segments(), anew=True)
        except OSError as error:
            raise Unavailable(f"network {self._settings.bridge}: {reason(error)}") from error

    def teardown(self) -> None:
        """Remove everything, endpoints, rules and bridges: for whoever uninstalls. Forwarding stays enabled."""
        with self._state:
            endpoints = list(self._endpoints.values())
        for endpoint in endpoints:
            self._remove(endpoint)
        self._rules.remove()
        for row in self._bridged():
            self._links.delete(self._definition(row).bridge)

    def close(self) -> None:
        """Close the netlink sockets. Namespaces and rules stay."""
        self._links.close()
        self._rules.close()

    # --- Networks ---------------------------------------------------------------------------------

    def networks(self) -> list[NetworkInfo]:
        """All, without their endpoints."""
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
            return msgspec.structs.replace(self._info(row), endpoints=tuple(self._held(row)))

    def _held(self, row: NetworkRow) -> list[Endpoint]:
        held = (each for endpoints in self._by_container.values() for each in endpoints)
        return [each for each in held if each.network_id == row.id and not each.bare]

    def create(self, request: NetworkRequest) -> NetworkInfo:
        """A new network: the row, then its bridge and rules; all or nothing.

        Raises InvalidArgument, Forbidden, Unsupported, NotFound (the driver), Conflict (the name, the bridge's name or
        the subnet is something else's), ResourceExhausted, Unavailable.
        """
        definitions.check(request)
        with self._change_lock:
            with self._state:
                if request.name in self._networks:
                    raise Conflict(f"network with name {request.name} already exists")
                rows = [row for row in self._networks.values() if row.definition or row.address]
                own = [self._definition(row) for row in rows]
            network_id = os.urandom(32).hex()
            bridges = [each.bridge for each in own if each.bridge]
            used, used6 = self._links.used_subnets(bridges), self._links.used_subnets_6(bridges) if request.ipv6 else ()
            definition = definitions.define(request, network_id, own, used, self._settings.mtu, used6)
            self._check_links(request.name, definition, bridges)
            row = NetworkRow(network_id, request.name, request.driver, time.time_ns(), None, 0, definition)
            with self._state:
                self._store.add_network(row)
                self._networks[row.name] = row
            try:
                if definition.driver == "bridge":
                    self._ensure_bridge(row)
                    self._rules.ensure(self._segments())
                elif definition.bridge:
                    self._links.add_dummy(definition.bridge)
            except BaseException as error:
                self._drop(row)
                if isinstance(error, OSError):
                    raise Unavailable(f"network {request.name}: {reason(error)}") from error
                raise
            return self._info(row)

    def _check_links(self, name: str, definition: Definition, bridges: list[str]) -> None:
        if definition.bridge and self._links.exists(definition.bridge):
            raise Conflict(f"network {name}: interface {definition.bridge} exists already")
        if definition.driver in CHILDREN:
            if definition.bridge != definition.parent and not self._links.exists(definition.parent):
                raise InvalidArgument(f"network {name}: parent interface {definition.parent} is not there")
            return
        for subnet in (definition.subnet, definition.subnet6):
            if subnet is not None:
                self._links.check_free(subnet, bridges, f"network {name}")

    def remove(self, name_or_id: str) -> NetworkInfo:
        """Raises NotFound, Forbidden for a predefined one and for one that containers are on, Unavailable."""
        with self._change_lock:
            info = self.network(name_or_id)
            if info.predefined:
                raise Forbidden(f"{info.name} is a pre-defined network and cannot be removed")
            with self._state:
                row = self._networks[info.name]
                if held := self._held(row):
                    names = ", ".join(f'id:"{each.container_id[:12]}"' for each in held)
                    raise Forbidden(f"error while removing network: network {info.name} has active endpoints ({names})")
                # From now on nobody gets an address of it.
                del self._networks[row.name]
            try:
                self._drop(row)
            except OSError as error:
                with self._state:
                    self._networks[row.name] = row
                raise Unavailable(f"network {row.name}: {reason(error)}") from error
            return info

    def _drop(self, row: NetworkRow) -> None:
        with self._state:
            self._networks.pop(row.name, None)
        if bridge := self._definition(row).bridge:
            self._links.delete(bridge)
        self._rules.ensure(self._segments())
        with self._state:
            self._store.remove_network(row.id)
            self._allotment.forget(row.id)

    def _info(self, row: NetworkRow) -> NetworkInfo:
        known = row.definition is not None or row.address is not None
        return described(row, self._definition(row) if known else None)

    def _definition(self, row: NetworkRow) -> Definition:
        if row.definition is not None:
            return row.definition
        if row.address is None:
            raise Unavailable("the network is not set up")
        return definitions.default_bridge(self._settings.bridge, row.address, self._settings.mtu)

    def _bridged(self) -> list[NetworkRow]:
        with self._state:
            return [row for row in self._networks.values() if row.driver == "bridge"]

    def _segments(self) -> list[Segment]:
        return [self._definition(row).segment for row in self._bridged()]

    # --- Endpoints --------------------------------------------------------------------------------

    def allocate(self, network: str, container_id: str = "", *, mac: str = "") -> Endpoint:
        """Record a new endpoint on `bridge` or `none`, with an address; nothing in the kernel is changed yet.

        `mac`: colon form; empty: derived from the address. Raises ResourceExhausted (no address left),
        InvalidArgument, NotFound.
        """
        sandbox = os.urandom(32).hex()
        path = f"{self._settings.netns_dir}/{sandbox[:12]}"
        wanted = Endpoint(
            id=os.urandom(32).hex(), sandbox_id=sandbox, network=network, network_id="", path=path,
            container_id=container_id,
        )  # fmt: skip
        return self._allocate(wanted, mac=mac)

    def _allocate(self, wanted: Endpoint, *, ip: str = "", ip6: str = "", mac: str = "") -> Endpoint:
        hardware = parse_mac(mac) if mac else b""
        with self._state:
            row = self._networks.get(wanted.network)
            if row is None or row.driver == "host":
                raise NotFound(f"network {wanted.network} not found")
            endpoint = msgspec.structs.replace(wanted, network_id=row.id)
            if row.driver == "null":
                self._store.add_endpoint(endpoint)
            else:
                definition = self._definition(row)
                held = [each for each in self._endpoints.values() if each.network_id == row.id]
                if hardware and any(each.mac == hardware.hex(":") for each in held):
                    raise Forbidden(f"MAC address {mac} is already in use in network {row.name}")
                given = self._allotment.take(row.id, definition, held, row.last_address, ip, ip6)
                try:
                    endpoint = placed(endpoint, definition, *given, hardware)
                    if definition.driver == "bridge":
                        name = self._prefix + os.urandom(4).hex()[:7]
                        endpoint = msgspec.structs.replace(endpoint, host_interface=name)
                    self._store.add_endpoint(endpoint)
                except BaseException:
                    self._allotment.give_back(row.id, filter(None, given))
                    raise
            self._endpoints[endpoint.id] = endpoint
            if endpoint.container_id:
                self._by_container.setdefault(endpoint.container_id, []).append(endpoint)
            return endpoint

    def attach(self, endpoint: Endpoint, netlink_fd: int, *, route: bool = True) -> None:
        """Wire the namespace that the NETLINK_ROUTE socket was opened in: lo up, and on a bridge network the interface
        with its address and, if `route`, the default route. The descriptor stays the caller's.

        On failure no interface is left (the endpoint still wants `discard`). Raises Unavailable.
        """
        inside = Netlink(netlink_fd)
        try:
            if not endpoint.ip:
                inside.request(wiring.loopback())
                return
            with self._state:
                row = self._networks.get(endpoint.network)
            if row is None:
                raise NotFound(f"network {endpoint.network} not found")
            definition = self._definition(row)
            rest = [wiring.loopback(), *wiring.addressing(endpoint, definition, route=route)]
            if definition.driver in CHILDREN:
                self._attach_child(endpoint, definition, inside, rest)
                return
            try:
                inside.request(wiring.pair(endpoint, definition, self._links.namespace), *rest)
                self._links.join(definition, endpoint.host_interface, lambda: self._ensure_bridge(row))
            except OSError:
                self._links.delete(endpoint.host_interface)
                raise
        except OSError as error:
            raise Unavailable(f"attach endpoint {endpoint.id[:12]} to {endpoint.network}: {reason(error)}") from error
        finally:
            inside.detach()

    def _attach_child(self, endpoint: Endpoint, definition: Definition, inside: Netlink, rest: list[Request]) -> None:
        index, namespace = wiring.index_of(endpoint), inside.namespace()
        try:
            self._links.add_child(definition, endpoint, namespace, index)
            try:
                inside.request(*rest)
            except OSError:
                inside.request(rtnl.delete_link(index=index))
                raise
        finally:
            os.close(namespace)

    def claim(self, endpoint: Endpoint, container_id: str, *, bare: bool = False) -> Endpoint:
        """Give a ready endpoint to a container; `bare`: as a sandbox that `connect` puts onto networks."""
        with self._state:
            if endpoint.id not in self._endpoints:
                raise NotFound(f"endpoint {endpoint.id} not found")
            claimed = msgspec.structs.replace(endpoint, container_id=container_id, bare=bare)
            self._store.set_container(endpoint.id, container_id, bare=bare)
            self._endpoints[endpoint.id] = claimed
            self._by_container[container_id] = [claimed]
            return claimed

    def endpoint(self, container_id: str) -> Endpoint | None:
        """The first that the container holds: its sandbox."""
        with self._state:
            held = self._by_container.get(container_id)
            return held[0] if held else None

    def endpoints(self, container_id: str) -> list[Endpoint]:
        """The container's place on each of its networks."""
        with self._state:
            return [each for each in self._by_container.get(container_id, ()) if not each.bare]

    # --- Several networks -------------------------------------------------------------------------

    def connect(
        self, container_id: str, network: str, netlink_fd: int, *, ip: str = "", ip6: str = "", mac: str = "",
        priority: int = 0,
    ) -> Endpoint:  # fmt: skip
        """Put the container's sandbox, in which the NETLINK_ROUTE socket was opened, onto one more network, as the next
        free `ethN`. Its way out, and with it what is published, may change. The descriptor stays the caller's.

        Raises what `allocate` and `attach` raise, and Forbidden for an address in use; then nothing is changed.
        """
        with self._state:
            held = self._by_container.get(container_id)
            if not held:
                raise NotFound(f"container {container_id} has no sandbox")
            if any(each.network == network and not each.bare for each in held):
                raise Forbidden(f"endpoint for {container_id[:12]} already exists in network {network}")
            taken = {each.interface for each in held if each.ip}
            name = next(f"eth{number}" for number in range(len(taken) + 1) if f"eth{number}" not in taken)
            wanted = Endpoint(
                id=os.urandom(32).hex(), sandbox_id=held[0].sandbox_id, network=network, network_id="",
                path=held[0].path, container_id=container_id, interface=name, priority=priority,
            )  # fmt: skip
            endpoint = self._allocate(wanted, ip=ip, ip6=ip6, mac=mac)
        try:
            self.attach(endpoint, netlink_fd, route=False)
            self._lead_out(container_id, netlink_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                self._unwire(endpoint, netlink_fd)
                self._remove(endpoint)
            raise
        return endpoint

    def disconnect(self, container_id: str, network: str, netlink_fd: int) -> Endpoint:
        """Take the container off the network; the sandbox stays. Raises NotFound, Unavailable."""
        with self._state:
            held = self._by_container.get(container_id, [])
            endpoint = next((each for each in held if each.network == network and not each.bare), None)
            if endpoint is None:
                raise NotFound(f"container {container_id} is not connected to network {network}")
            rest = [each for each in held if each is not endpoint]
            if not rest:
                bare = Endpoint(
                    id=os.urandom(32).hex(), sandbox_id=endpoint.sandbox_id, network="none",
                    network_id=self._networks["none"].id, path=endpoint.path, container_id=container_id, bare=True,
                )  # fmt: skip
                self._store.add_endpoint(bare)
                self._endpoints[bare.id] = bare
                held.insert(0, bare)
        try:
            if (new := way_out(rest)) and new.driver == "bridge":
                self._rules.move(endpoint, new)
            self._unwire(endpoint, netlink_fd)
            self._remove(endpoint)
            self._lead_out(container_id, netlink_fd)
        except OSError as error:
            raise Unavailable(f"disconnect {container_id[:12]} from {network}: {reason(error)}") from error
        return endpoint

    def _unwire(self, endpoint: Endpoint, netlink_fd: int) -> None:
        """Take away the interface that nothing on the host leads to."""
        if endpoint.driver not in CHILDREN:
            return
        inside = Netlink(netlink_fd)
        try:
            inside.request(rtnl.delete_link(index=wiring.index_of(endpoint)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        finally:
            inside.detach()

    def _lead_out(self, container_id: str, netlink_fd: int) -> None:
        """The default route by the gateway that is to be it, and what is published as well."""
        held = self.endpoints(container_id)
        inside = Netlink(netlink_fd)
        try:
            chosen = wiring.lead_out(inside, held)
        except OSError as error:
            raise Unavailable(f"route of container {container_id[:12]}: {reason(error)}") from error
        finally:
            inside.detach()
        if chosen is not None and chosen.driver == "bridge":
            for each in held:
                if each is not chosen:
                    self._rules.move(each, chosen)

    # --- Published ports --------------------------------------------------------------------------

    def publish(self, endpoint: Endpoint, requests: Iterable[PortRequest], name: str = "") -> Published:
        """Reserve host ports and forward these alone, in one transaction; all or nothing. What stays is kept.

        `name`: the container's, for the message. The rules stand until `release`. With several networks, those of the
        container's way out count; with none, or one that is no bridge, nothing is published, as with Docker. Raises
        ResourceExhausted, in its words (`driver failed programming external connectivity on endpoint …`).
        """
        requests = tuple(requests)
        chosen = way_out(self.endpoints(endpoint.container_id)) or endpoint
        if not chosen.gateway or chosen.driver != "bridge" or not (requests or self.bindings(endpoint.container_id)):
            return Published()
        return self._rules.publish(chosen, requests, name, self.network(chosen.network_id).host_ip)

    def bindings(self, container_id: str) -> tuple[PortBinding, ...]:
        """The container's published ports."""
        return tuple(each for held in self.endpoints(container_id) for each in self._rules.bindings(held))

    # --- The end ----------------------------------------------------------------------------------

    def release(self, container_id: str) -> None:
        """Unpublish, remove the namespace's pin and free the addresses of what the container holds. Idempotent.

        Call it when the shim is gone: it holds the port reservations. Raises Unavailable, and then can be called again.
        """
        with self._state:
            held = list(self._by_container.get(container_id, ()))
        for endpoint in reversed(held):
            self.discard(endpoint)

    def discard(self, endpoint: Endpoint) -> None:
        """The same for an endpoint, taken or not."""
        try:
            self._remove(endpoint)
        except OSError as error:
            raise Unavailable(f"release endpoint {endpoint.id[:12]}: {reason(error)}") from error

    def _remove(self, endpoint: Endpoint, *, rules: bool = True) -> None:
        """The kernel's side first, then the row. A sandbox's last interface goes with the namespace, which the kernel
        takes down in its own time: deleting it here would make the caller wait for RCU grace periods."""
        # One at a time: what a second caller saw of the same endpoint could be another's by then.
        with self._removal_lock:
            with self._state:
                if endpoint.id not in self._endpoints:
                    return
                last = sum(each.path == endpoint.path for each in self._endpoints.values()) == 1
            if rules:
                self._rules.withdraw(endpoint)
            if last:
                unpin(endpoint.path)
            elif endpoint.host_interface:
                self._links.delete(endpoint.host_interface)
            with self._state:
                self._store.remove_endpoint(endpoint.id)
                self._rules.forget(endpoint)
                gone = self._endpoints.pop(endpoint.id)
                held = [each for each in self._by_container.get(gone.container_id, ()) if each is not gone]
                if held:
                    self._by_container[gone.container_id] = held
                else:
                    self._by_container.pop(gone.container_id, None)
                self._allotment.give_back(endpoint.network_id, endpoint.addresses)

    def _choose_address(self) -> None:
        """The bridge's address: what is in use stays while an endpoint is left; then the setting's, then the
        stored one if nothing else on the host overlaps it, then a default pool's."""
        with self._state:
            row = self._networks["bridge"]
            in_use = any(each.network_id == row.id for each in self._endpoints.values())
            address = row.address
            others = [each.definition for each in self._networks.values() if each.definition]
        bridges = [self._settings.bridge, *(each.bridge for each in others if each.bridge)]
        if self._wanted_address is not None:
            if address is None or not in_use:
                address = self._wanted_address
                self._links.check_free(address.network, bridges, f"bridge address {address}")
                if any(address.network.overlaps(each.subnet) for each in others):
                    raise Conflict(f"bridge address {address}: a network has addresses of that subnet")
        elif address is None or not in_use:
            used = [*self._links.used_subnets(bridges), *(each.subnet for each in others)]
            if address is None or any(address.network.overlaps(each) for each in used if each.prefixlen):
                subnet = pools.choose(used)
                address = IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))
        with self._state:
            if address != row.address:
                self._store.set_address(row.id, address)
                self._networks["bridge"] = next(each for each in self._store.networks() if each.id == row.id)
                self._allotment.forget(row.id)

    def _ensure_bridge(self, row: NetworkRow) -> None:
        """Also puts ports back that lost their bridge."""
        with self._state:
            held = (each for each in self._endpoints.values() if each.network_id == row.id)
            ports = {each.host_interface for each in held if each.host_interface}
        self._links.ensure(self._definition(row), ports)
