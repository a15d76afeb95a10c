"""The host's rules and published ports: what is in the table of ours, and the rows that say what should be."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

from sampan.errors import ResourceExhausted, Unavailable
from sampan.linux.netlink import conntrack
from sampan.linux.netlink.nftables import NFNLGRP_NFTABLES
from sampan.linux.netlink.socket import NETLINK_NETFILTER, Netlink
from sampan.network.endpoints import Endpoint, PortBinding, PortRequest, Published
from sampan.network.firewall import ANY_ADDRESS, Firewall, Forward, Segment
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
        self._firewall: Firewall | None = None
        self._addresses = {each.id: each.ip for each in endpoints}
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
                self._firewall = Firewall(self._socket, self._table)

    def close(self) -> None:
        """The rules stay."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = self._firewall = None

    def watch(self) -> Netlink:
        """A socket that becomes readable when rules of the host change, ours or others'."""
        netlink = Netlink.open(NETLINK_NETFILTER)
        netlink.subscribe(NFNLGRP_NFTABLES)
        return netlink

    def ensure(self, segments: Iterable[Segment], *, anew: bool = False) -> None:
        """Have the rules for these networks and all published ports; `anew`: whatever is there."""
        with self._lock:
            wanted = tuple(segments)
            same = wanted == self._rules.segments
            self._rules.segments = wanted
            if anew or not same or not self._rules.intact(self._forwards()):
                self._rules.replace(self._forwards())

    def repair(self) -> None:
        with self._lock:
            if not self._rules.intact(self._forwards()):
                self._rules.replace(self._forwards())

    def remove(self) -> None:
        """The whole table."""
        with self._lock:
            self._rules.remove()

    # --- Published ports --------------------------------------------------------------------------

    def publish(self, endpoint: Endpoint, requests: tuple[PortRequest, ...], name: str, host_ip: str = "") -> Published:
        """See `NetworkController.publish`. `host_ip`: the network's default."""
        rows: list[PortRow] = []
        made: list[PortRow] = []
        sockets: list[int] = []
        default = host_ip or ANY_ADDRESS
        with self._state:
            before = self._ports.get(endpoint.id, [])
            gone = list(before)
            try:
                # The fixed ones first, so that a range or an ephemeral one does not take what another asks for by name.
                for wanted in sorted(requests, key=_choice):
                    if (kept := _kept(gone, wanted, wanted.host_ip or default)) is not None:
                        gone.remove(kept)
                        rows.append(replace(kept, container_port=wanted.container_port))
                        continue
                    port, fd = self._taken.choose(wanted, endpoint.ip, default)
                    address = wanted.host_ip or default
                    made.append(PortRow(endpoint.id, wanted.protocol, address, port, wanted.container_port))
                    rows.append(made[-1])
                    if fd is not None:
                        sockets.append(fd)
                self._keep(endpoint, rows)
            except BaseException as error:
                self._forget(made)
                close_all(sockets)
                if isinstance(error, ResourceExhausted):
                    raise ResourceExhausted(f"{_context(endpoint, name)}: {error.message}") from None
                raise
        try:
            with self._lock:
                try:
                    if before:
                        self._rules.replace(self._forwards())
                    else:
                        self._rules.publish([self._forward(row) for row in rows])
                except OSError:
                    # Something flushed the table, or a leftover is in the way: make it as the rows say.
                    self._rules.replace(self._forwards())
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
        self._addresses[endpoint.id] = endpoint.ip

    def bindings(self, endpoint: Endpoint) -> tuple[PortBinding, ...]:
        with self._state:
            return tuple(map(_binding, self._ports.get(endpoint.id, ())))

    def withdraw(self, endpoint: Endpoint) -> None:
        """Take the endpoint's ports out of the rules; the rows are for `forget`."""
        with self._state:
            rows = self._ports.get(endpoint.id, [])
        if rows:
            with self._lock:
                try:
                    self._rules.withdraw([self._forward(row) for row in rows])
                except OSError:
                    # Something flushed the rules: make the table as the rows of all others say.
                    with self._state:
                        kept = self._ports.pop(endpoint.id, [])
                    self._rules.replace(self._forwards())
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
                self._addresses[new.id] = new.ip
                self._ports[new.id] = [PortRow(new.id, each.protocol, each.host_ip, each.host_port, each.container_port)
                                       for each in rows]  # fmt: skip
            self._rules.replace(self._forwards())
            self._forget_flows(rows)

    def _forget(self, rows: Iterable[PortRow]) -> None:
        for row in rows:
            self._taken.remove(row.protocol, row.host_ip, row.host_port)

    def _forget_flows(self, rows: Iterable[PortRow]) -> None:
        """UDP flows that go on as the state before these ports told them to."""
        for row in rows:
            if row.protocol == "udp":
                for flow in conntrack.udp_flows(self._netlink, row.host_port):
                    if row.host_ip in (ANY_ADDRESS, _text(flow.destination)):
                        conntrack.forget(self._netlink, flow)

    @property
    def _rules(self) -> Firewall:
        if self._firewall is None:
            raise Unavailable("the network is not set up")
        return self._firewall

    @property
    def _netlink(self) -> Netlink:
        if self._socket is None:
            raise Unavailable("the network is not set up")
        return self._socket

    def _forward(self, row: PortRow) -> Forward:
        address = self._addresses[row.endpoint_id]
        return Forward(row.protocol, row.host_ip, row.host_port, address, row.container_port)

    def _forwards(self) -> list[Forward]:
        with self._state:
            return [self._forward(row) for rows in self._ports.values() for row in rows]


def reason(error: OSError) -> str:
    """The kernel's words."""
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _text(address: bytes) -> str:
    return ".".join(map(str, address))


def _choice(request: PortRequest) -> int:
    if not request.host_port_first:
        return 2
    return 0 if request.host_port_first == request.host_port_last else 1


def _kept(rows: Iterable[PortRow], wanted: PortRequest, host_ip: str) -> PortRow | None:
    """The one of the endpoint's present ports that will do: it is reserved already."""
    fixed = wanted.host_port_first if wanted.host_port_first == wanted.host_port_last else 0
    for row in rows:
        if (row.protocol, row.host_ip) != (wanted.protocol, host_ip):
            continue
        if fixed:
            if row.host_port == fixed:
                return row
        elif row.container_port == wanted.container_port and (
            not wanted.host_port_first or wanted.host_port_first <= row.host_port <= wanted.host_port_last
        ):
            return row
    return None


def _binding(row: PortRow) -> PortBinding:
    return PortBinding(
        container_port=row.container_port, protocol=row.protocol, host_ip=row.host_ip, host_port=row.host_port
    )


def _context(endpoint: Endpoint, name: str) -> str:
    return (
        f"driver failed programming external connectivity on endpoint {name or endpoint.container_id} ({endpoint.id})"
    )
