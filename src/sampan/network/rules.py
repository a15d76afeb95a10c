"""The host's rules and published ports: what is in the table of ours, and the rows that say what should be."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from sampan.errors import ResourceExhausted, Unavailable, Unsupported
from sampan.linux.netlink import conntrack
from sampan.linux.netlink.nftables import NFNLGRP_NFTABLES
from sampan.linux.netlink.socket import NETLINK_NETFILTER, Netlink
from sampan.network import firewall
from sampan.network.endpoints import Endpoint, PortBinding, PortRequest, Published
from sampan.network.firewall import ANY_ADDRESS, ANY_ADDRESS_6, FAMILIES, Firewall, Forward, Segment, family_of
from sampan.network.ports import PortTable, close_all
from sampan.network.store import NetworkStore, PortRow


class HostRules:
    """Safe to call from several threads. Raises OSError from the kernel, Unavailable before `open`."""

    def __init__(self, store: NetworkStore, table: str, endpoints: Iterable[Endpoint], state: threading.RLock) -> None:
        """`state`: held shortly, while rows and what is in memory change together."""
        self._store = store
        self._table = table
        self._state = state
        self._lock = threading.RLock()
        self._socket: Netlink | None = None
        self._firewalls: tuple[Firewall, ...] = ()
        self._addresses = {each.id: (each.ip, each.ip6) for each in endpoints}
        self._ports: dict[str, list[PortRow]] = {}
        self._taken = PortTable()
        for row in store.ports():
            self._ports.setdefault(row.endpoint_id, []).append(row)
            self._taken.add(row.protocol, row.host_ip, row.host_port)

    def open(self) -> None:
        """Idempotent."""
        with self._lock:
            if self._socket is None:
                self._socket = Netlink.open(NETLINK_NETFILTER)
                self._firewalls = tuple(Firewall(self._socket, self._table, (), each) for each in FAMILIES)

    def close(self) -> None:
        """The rules stay."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket, self._firewalls = None, ()

    def watch(self) -> Netlink:
        """A socket that becomes readable when rules of the host change, ours or others'."""
        netlink = Netlink.open(NETLINK_NETFILTER)
        netlink.subscribe(NFNLGRP_NFTABLES)
        return netlink

    def ensure(self, segments: Iterable[Segment], *, anew: bool = False) -> None:
        """Have the rules for these networks and all published ports; `anew`: whatever is there."""
        with self._lock:
            every = tuple(segments)
            firewall.ensure_user_chain(self._netlink, self._table)
            for rules in self._firewalls:
                wanted = tuple(each for each in every if each.of(rules.family))
                same = wanted == rules.segments
                rules.segments = wanted
                if not wanted and rules.family != FAMILIES[0]:
                    if anew or not same:
                        _remove(rules)
                elif anew or not same or not rules.intact(self._forwards(rules.family)):
                    rules.replace(self._forwards(rules.family))

    def repair(self) -> None:
        with self._lock:
            firewall.ensure_user_chain(self._netlink, self._table)
            for rules in self._used:
                if not rules.intact(self._forwards(rules.family)):
                    rules.replace(self._forwards(rules.family))

    def remove(self) -> None:
        """All tables, but the user's if there is anything in it."""
        with self._lock:
            for rules in self._firewalls:
                _remove(rules)
            firewall.remove_user_chain(self._netlink, self._table)

    # --- Published ports --------------------------------------------------------------------------

    def publish(self, endpoint: Endpoint, requests: tuple[PortRequest, ...], name: str, host_ip: str = "") -> Published:
        """See `NetworkController.publish`. `host_ip`: the network's default."""
        rows: list[PortRow] = []
        made: list[PortRow] = []
        sockets: list[int] = []
        with self._state:
            before = self._ports.get(endpoint.id, [])
            gone = list(before)
            try:
                # The fixed ones first, so that a range or an ephemeral one does not take what another asks for by name.
                for wanted in sorted(requests, key=_choice):
                    addresses = _host_addresses(wanted, endpoint, host_ip)
                    if kept := _kept(gone, wanted, addresses):
                        gone = [each for each in gone if each not in kept]
                        rows += [replace(each, container_port=wanted.container_port) for each in kept]
                        continue
                    port, reserved = self._taken.choose(wanted, endpoint.ip, addresses)
                    made += [
                        PortRow(endpoint.id, wanted.protocol, each, port, wanted.container_port) for each in addresses
                    ]
                    rows += made[-len(addresses) :]
                    sockets += reserved
                self._keep(endpoint, rows)
            except BaseException as error:
                self._forget(made)
                close_all(sockets)
                if isinstance(error, ResourceExhausted):
                    raise ResourceExhausted(f"{_context(endpoint, name)}: {error.message}") from None
                raise
        try:
            with self._lock:
                forwards = [self._forward(row) for row in rows]
                for rules in self._used:
                    try:
                        if before:
                            rules.replace(self._forwards(rules.family))
                        else:
                            rules.publish([each for each in forwards if each.family == rules.family])
                    except OSError:
                        # Something flushed the table, or a leftover is in the way: make it as the rows say.
                        rules.replace(self._forwards(rules.family))
                self._forget_flows([*rows, *gone])
        except BaseException as error:
            with self._state:
                self._forget(made)
                self._keep(endpoint, before)
            close_all(sockets)
            if isinstance(error, OSError):
                raise Unavailable(f"{_context(endpoint, name)}: {reason(error)}") from error
            raise
        with self._state:
            self._forget(gone)
        return Published(
            bindings=tuple(map(_binding, rows)), sockets=tuple(sockets),
            withdrawn=tuple((each.protocol, each.host_ip, each.host_port) for each in gone),
        )  # fmt: skip

    def _keep(self, endpoint: Endpoint, rows: list[PortRow]) -> None:
        """With `_state` held."""
        self._store.replace_ports(endpoint.id, rows)
        self._ports[endpoint.id] = rows
        self._addresses[endpoint.id] = endpoint.ip, endpoint.ip6

    def bindings(self, endpoint: Endpoint) -> tuple[PortBinding, ...]:
        with self._state:
            return tuple(map(_binding, self._ports.get(endpoint.id, ())))

    def withdraw(self, endpoint: Endpoint) -> None:
        """Take the endpoint's ports out of the rules; the rows are for `forget`."""
        with self._state:
            rows = self._ports.get(endpoint.id, [])
        if rows:
            with self._lock:
                forwards = [self._forward(row) for row in rows]
                for rules in self._used:
                    try:
                        rules.withdraw([each for each in forwards if each.family == rules.family])
                    except OSError:
                        # Something flushed the rules: make the table as the rows of all others say.
                        with self._state:
                            kept = self._ports.pop(endpoint.id, [])
                        rules.replace(self._forwards(rules.family))
                        with self._state:
                            self._ports[endpoint.id] = kept
                self._forget_flows(rows)

    def forget(self, endpoint: Endpoint) -> None:
        """The endpoint and its row are gone."""
        with self._state:
            self._forget(self._ports.pop(endpoint.id, []))
            self._addresses.pop(endpoint.id, None)

    def move(self, old: Endpoint, new: Endpoint) -> None:
        """What is published for the one leads to the other from now on."""
        with self._lock:
            with self._state:
                rows = self._ports.pop(old.id, None)
                if not rows:
                    return
                self._store.move_ports(old.id, new.id)
                self._addresses[new.id] = new.ip, new.ip6
                self._ports[new.id] = [PortRow(new.id, each.protocol, each.host_ip, each.host_port, each.container_port)
                                       for each in rows]  # fmt: skip
            for rules in self._used:
                rules.replace(self._forwards(rules.family))
            self._forget_flows(rows)

    def _forget(self, rows: Iterable[PortRow]) -> None:
        for row in rows:
            self._taken.remove(row.protocol, row.host_ip, row.host_port)

    def _forget_flows(self, rows: Iterable[PortRow]) -> None:
        """UDP flows that go on as the state before these ports told them to."""
        ports = {(row.host_port, row.host_ip) for row in rows if row.protocol == "udp"}
        if not ports:
            return
        # The kernel filters one port; of many, it is asked once.
        only = next(iter(ports))[0] if len({port for port, _ in ports}) == 1 else 0
        for family in {family_of(address) for _, address in ports}:
            anywhere = ANY_ADDRESS if family == FAMILIES[0] else ANY_ADDRESS_6
            for flow in conntrack.udp_flows(self._netlink, only, family):
                if not ports.isdisjoint(((flow.port, anywhere), (flow.port, str(ip_address(flow.destination))))):
                    conntrack.forget(self._netlink, flow)

    @property
    def _used(self) -> list[Firewall]:
        """The families that there are networks of."""
        if not self._firewalls:
            raise Unavailable("the network is not set up")
        return [each for each in self._firewalls if each.segments or each.family == FAMILIES[0]]

    @property
    def _netlink(self) -> Netlink:
        if self._socket is None:
            raise Unavailable("the network is not set up")
        return self._socket

    def _forward(self, row: PortRow) -> Forward:
        address = self._addresses[row.endpoint_id][FAMILIES.index(family_of(row.host_ip))]
        return Forward(row.protocol, row.host_ip, row.host_port, address, row.container_port)

    def _forwards(self, family: int) -> list[Forward]:
        with self._state:
            rows = [row for rows in self._ports.values() for row in rows if family_of(row.host_ip) == family]
            # What is published on IPv6 leads nowhere while the container's way out has none.
            return [each for each in map(self._forward, rows) if each.ip]


def _remove(rules: Firewall) -> None:
    try:
        rules.remove()
    except OSError:
        if rules.family == FAMILIES[0]:  # A kernel may have no IPv6.
            raise


def _host_addresses(wanted: PortRequest, endpoint: Endpoint, default: str) -> tuple[str, ...]:
    """Where the port is to be published. Raises Unsupported."""
    if wanted.host_ip:
        if ":" in wanted.host_ip and not endpoint.ip6:
            raise Unsupported(f"publishing on {wanted.host_ip}: the network {endpoint.network} has no IPv6")
        return (wanted.host_ip,)
    if default:
        return (default,)
    return (ANY_ADDRESS, ANY_ADDRESS_6) if endpoint.ip6 else (ANY_ADDRESS,)


def reason(error: OSError) -> str:
    """The kernel's words."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _choice(request: PortRequest) -> int:
    if not request.host_port_first:
        return 2
    return 0 if request.host_port_first == request.host_port_last else 1


def _kept(rows: list[PortRow], wanted: PortRequest, addresses: tuple[str, ...]) -> list[PortRow]:
    """Those of the endpoint's present ports that will do, one for each address: they are reserved already."""
    fixed = wanted.host_port_first if wanted.host_port_first == wanted.host_port_last else 0
    own = [each for each in rows if each.protocol == wanted.protocol and each.host_ip in addresses]
    for row in own:
        if fixed:
            fits = row.host_port == fixed
        else:
            fits = row.container_port == wanted.container_port and (
                not wanted.host_port_first or wanted.host_port_first <= row.host_port <= wanted.host_port_last
            )
        same = [each for each in own if each.host_port == row.host_port]
        if fits and len(same) == len(addresses):
            return same
    return []


def _binding(row: PortRow) -> PortBinding:
    return PortBinding(
        container_port=row.container_port, protocol=row.protocol, host_ip=row.host_ip, host_port=row.host_port
    )


def _context(endpoint: Endpoint, name: str) -> str:
    return (
        f"driver failed programming external connectivity on endpoint {name or endpoint.container_id} ({endpoint.id})"
    )
