"""Our nftables table, one for each family of addresses in use: masquerading, published ports, what may be forwarded,
and what keeps networks apart.

Published ports are elements of two maps and bridges are elements of sets, so that a thousand ports cost as many rules
as one. A network adds elements, and two rules that only a connection's first packet meets. Publishing or withdrawing a
container's ports is one transaction, and so is a network's coming and going, which makes the table anew.

    raw (prerouting)   what comes from a container to 127.0.0.0/8 or ::1 is dropped: the bridges have route_localnet set
    prerouting, output new connections to an address of this host are redirected as the maps say, those from
                       containers and from the host itself, loopback included, as well
    postrouting        masquerade what leaves a network's subnet; what comes from 127.0.0.0/8, which nobody could
                       answer; and what a container sends by a published port to its own bridge, which would
                       be answered directly, past the translation. All else keeps its source address
    forward            to a bridge: answers; what comes from the same bridge, if its containers may speak with one
                       another (the set `talking` has pairs of names); published ports; nothing else. From an internal
                       bridge: only what goes to itself. From another one: everything that leaves our bridges

Beside it is a table for the user's own rules, `NAME_user`, whose chain `forward` comes before ours and is never changed
once it is there. Other tables on the host are left alone, and a drop in any of them holds. The exception is Docker's
chain DOCKER-USER, made for the rules of others: where Docker runs too, everything forwarded is dropped unless a rule
there accepts it, so two rules are kept there that accept our bridge's packets (which then meet our table's verdict).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address

from sampan.linux.netlink import nftables as nft
from sampan.linux.netlink.socket import Netlink

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}
ANY_ADDRESS, ANY_ADDRESS_6 = "0.0.0.0", "::"
FAMILIES = (nft.FAMILY_IPV4, nft.FAMILY_IPV6)

_BY_PORT, _BY_ADDRESS = "ports", "address_ports"
_BRIDGES, _TALKING, _INTERNAL = "bridges", "talking", "internal"
_FOREIGN_TABLE, _FOREIGN_CHAIN = "filter", "DOCKER-USER"
_WAYS = ("from", "to")
_USERS, _BEFORE = "_user", nft.PRIORITY_FILTER - 10


@dataclass(frozen=True)
class Forward:
    """A published port: what comes to `host_ip` (ANY_ADDRESS, ANY_ADDRESS_6: any of this host's) and `host_port` goes
    to the container's. Both are of one family."""

    protocol: str
    host_ip: str
    host_port: int
    ip: str
    port: int

    @property
    def family(self) -> int:
        return family_of(self.ip)


@dataclass(frozen=True)
class Segment:
    """A network as the rules see it. `talking`: its containers may reach one another. `internal`: nothing leaves it and
    nothing comes in. `masquerade`: outside, its containers have the host's address."""

    bridge: str
    subnet: IPv4Network
    talking: bool = True
    internal: bool = False
    masquerade: bool = True
    subnet6: IPv6Network | None = None

    def of(self, family: int) -> IPv4Network | IPv6Network | None:
        """Its subnet of that family."""
        return self.subnet if family == nft.FAMILY_IPV4 else self.subnet6


def family_of(address: str) -> int:
    return nft.FAMILY_IPV6 if ":" in address else nft.FAMILY_IPV4


class Firewall:
    """The table `table` of one family. Not thread safe."""

    def __init__(
        self, netlink: Netlink, table: str, segments: Iterable[Segment] = (), family: int = nft.FAMILY_IPV4
    ) -> None:
        """`netlink`: a NETLINK_NETFILTER socket. `segments`: networks with a subnet of the family; they may be set
        anew, and `replace` then makes it so."""
        self._netlink = netlink
        self._table = table
        self.family = family
        self._size = 4 if family == nft.FAMILY_IPV4 else 16
        self.segments = tuple(segments)
        self._generation = -1

    def replace(self, forwards: Iterable[Forward]) -> None:
        """Make the table anew with exactly these ports, in one transaction, whatever was there."""
        batch = nft.Batch(self._table, self.family)
        batch.add_table()  # So that deleting it cannot fail.
        batch.delete_table()
        batch.add_table()
        self._add_rules(batch)
        for name, keys in self._sets().items():
            if keys:
                batch.add_elements(name, [(key, b"") for key in sorted(keys)])
        by_port, by_address = _elements(forwards)
        if by_port:
            batch.add_elements(_BY_PORT, by_port)
        if by_address:
            batch.add_elements(_BY_ADDRESS, by_address)
        batch.commit(self._netlink)
        self._generation = -1
        self._accept_in_foreign_chain()

    def publish(self, forwards: Iterable[Forward]) -> None:
        """Add ports; FileExistsError when one is in the map, FileNotFoundError when the table is gone."""
        by_port, by_address = _elements(forwards)
        batch = nft.Batch(self._table, self.family)
        if by_port:
            batch.add_elements(_BY_PORT, by_port)
        if by_address:
            batch.add_elements(_BY_ADDRESS, by_address)
        batch.commit(self._netlink)

    def withdraw(self, forwards: Iterable[Forward]) -> None:
        """Remove ports; FileNotFoundError when one, or the table, is not there."""
        by_port, by_address = _elements(forwards)
        batch = nft.Batch(self._table, self.family)
        if by_port:
            batch.delete_elements(_BY_PORT, [key for key, _ in by_port])
        if by_address:
            batch.delete_elements(_BY_ADDRESS, [key for key, _ in by_address])
        batch.commit(self._netlink)

    def intact(self, forwards: Iterable[Forward]) -> bool:
        """Whether the table is as `replace` made it and holds exactly these ports. While no rule of this network
        namespace has changed since the last time, it costs one question."""
        generation = nft.generation(self._netlink)
        if generation == self._generation:
            return True
        expected = nft.Batch(self._table, self.family)
        self._add_rules(expected)
        if nft.count_rules(self._netlink, self._table, self.family) != expected.rule_count:
            return False
        by_port, by_address = _elements(forwards)
        try:
            if nft.elements(self._netlink, self._table, _BY_PORT, self.family) != dict(by_port):
                return False
            if nft.elements(self._netlink, self._table, _BY_ADDRESS, self.family) != dict(by_address):
                return False
            for name, keys in self._sets().items():
                if nft.elements(self._netlink, self._table, name, self.family).keys() != keys:
                    return False
        except FileNotFoundError:
            return False
        self._accept_in_foreign_chain()
        self._generation = generation
        return True

    def remove(self) -> None:
        """Delete the table and our rules in Docker's chain; no error if they are gone."""
        batch = nft.Batch(self._table, self.family)
        batch.add_table()
        batch.delete_table()
        batch.commit(self._netlink)
        foreign = nft.Batch(_FOREIGN_TABLE, self.family)
        for handle, comment in nft.rules(self._netlink, _FOREIGN_TABLE, _FOREIGN_CHAIN, self.family):
            if self._is_ours(comment):
                foreign.delete_rule(_FOREIGN_CHAIN, handle)
        foreign.commit(self._netlink)

    @property
    def _comment(self) -> str:
        return f"sampan {self._table}"

    def _is_ours(self, comment: str) -> bool:
        return comment.startswith(f"{self._comment} ")

    def _sets(self) -> dict[str, set[bytes]]:
        names = {each: nft.interface(each.bridge) for each in self.segments}
        return {
            _BRIDGES: set(names.values()),
            _TALKING: {name * 2 for each, name in names.items() if each.talking},
            _INTERNAL: {name for each, name in names.items() if each.internal},
        }

    def _accept_in_foreign_chain(self) -> None:
        # Which bridges a rule is for is in its comment, as the kernel gives rules back in a form that is no name.
        wanted = {f"{self._comment} {way} {each.bridge}": each.bridge for each in self.segments for way in _WAYS}
        try:
            found = nft.rules(self._netlink, _FOREIGN_TABLE, _FOREIGN_CHAIN, self.family)
            exists = nft.chain_exists(self._netlink, _FOREIGN_TABLE, _FOREIGN_CHAIN, self.family)
            ours = [(handle, comment) for handle, comment in found if self._is_ours(comment)]
            if not exists or sorted(comment for _, comment in ours) == sorted(wanted):
                return
            batch = nft.Batch(_FOREIGN_TABLE, self.family)
            for handle, _ in ours:
                batch.delete_rule(_FOREIGN_CHAIN, handle)
            for comment, bridge in wanted.items():
                load = nft.input_name() if comment.split()[-2] == _WAYS[0] else nft.output_name()
                equal = nft.equal(nft.interface(bridge))
                batch.add_rule(_FOREIGN_CHAIN, load, equal, nft.verdict(nft.ACCEPT), comment=comment, first=True)
            batch.commit(self._netlink)
        except OSError:
            return  # Docker changes its chains at the same time, or owns the table exclusively: it is a courtesy.

    def _add_rules(self, batch: nft.Batch) -> None:
        from_bridge = nft.input_name(), nft.one_of(_BRIDGES)
        to_bridge = nft.output_name(), nft.one_of(_BRIDGES)
        loopback = (b"\x7f\0\0\0", 8) if self.family == nft.FAMILY_IPV4 else (bytes(15) + b"\1", 128)
        source = partial(nft.source_address, family=self.family)
        from_loopback = nft.in_subnet(source, *loopback)
        to_loopback = nft.in_subnet(partial(nft.destination_address, family=self.family), *loopback)
        translated = nft.connection(nft.CT_STATUS, nft.STATUS_DNAT)
        answers = nft.connection(nft.CT_STATE, nft.STATE_ESTABLISHED | nft.STATE_RELATED)
        masquerade, accept, drop = nft.masquerade(), nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)

        batch.add_set(_BRIDGES, (nft.TYPE_INTERFACE,), 16)
        batch.add_set(_TALKING, (nft.TYPE_INTERFACE, nft.TYPE_INTERFACE), 32)
        batch.add_set(_INTERNAL, (nft.TYPE_INTERFACE,), 16)

        address = nft.TYPE_IPV4 if self.family == nft.FAMILY_IPV4 else nft.TYPE_IPV6
        endpoint, size = (address, nft.TYPE_SERVICE), self._size
        batch.add_map(_BY_PORT, (nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), 8, endpoint, size + 4)
        batch.add_map(_BY_ADDRESS, (address, nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), size + 8, endpoint, size + 4)

        batch.add_base_chain("raw", "filter", nft.PREROUTING, nft.PRIORITY_RAW)
        batch.add_rule("raw", *from_bridge, *to_loopback, drop)

        register, behind = nft.REG32_00, nft.REG32_00 + size // 4
        redirect = nft.destination_nat(self.family, nft.REG_1, behind)
        for chain, hook in (("prerouting", nft.PREROUTING), ("output", nft.OUTPUT)):
            batch.add_base_chain(chain, "nat", hook, nft.PRIORITY_DSTNAT)
            if self.family == nft.FAMILY_IPV6:
                # What comes from ::1 cannot leave by a bridge. It is refused at once: the port is merely reserved.
                batch.add_rule(chain, *to_loopback, nft.verdict(nft.RETURN))
            # An address of its own goes before any address.
            batch.add_rule(
                chain, *nft.destination_is_local(), nft.destination_address(size, family=self.family),
                nft.transport_protocol(behind), nft.destination_port(behind + 1), nft.lookup(_BY_ADDRESS), redirect,
            )  # fmt: skip
            batch.add_rule(
                chain, *nft.destination_is_local(), nft.transport_protocol(), nft.destination_port(register + 1),
                nft.lookup(_BY_PORT), redirect,
            )  # fmt: skip

        batch.add_base_chain("postrouting", "nat", nft.POSTROUTING, nft.PRIORITY_SRCNAT)
        if self.family == nft.FAMILY_IPV4:
            batch.add_rule("postrouting", *to_bridge, *from_loopback, masquerade)
        for each in self.segments:
            name = nft.interface(each.bridge)
            network = each.of(self.family)
            if network is None:
                continue
            subnet = nft.in_subnet(source, network.network_address.packed, network.prefixlen)
            if each.masquerade and not each.internal:
                batch.add_rule("postrouting", nft.output_name(), nft.not_equal(name), *subnet, masquerade)
            batch.add_rule("postrouting", nft.output_name(), nft.equal(name), *subnet, *translated, masquerade)

        batch.add_base_chain("forward", "filter", nft.FORWARD, nft.PRIORITY_FILTER)
        batch.add_rule("forward", *to_bridge, *answers, accept)
        batch.add_rule(
            "forward", nft.input_name(), nft.output_name(nft.REG_2), nft.one_of(_TALKING), accept
        )  # fmt: skip
        batch.add_rule("forward", nft.input_name(), nft.one_of(_INTERNAL), drop)
        batch.add_rule("forward", nft.output_name(), nft.one_of(_INTERNAL), drop)
        batch.add_rule("forward", *to_bridge, *translated, accept)
        batch.add_rule("forward", *to_bridge, drop)


def ensure_user_chain(netlink: Netlink, table: str) -> None:
    """The chain for the user's own rules, for packets of both families. Made where it is missing."""
    if nft.chain_exists(netlink, table + _USERS, "forward", nft.FAMILY_INET):
        return
    batch = nft.Batch(table + _USERS, nft.FAMILY_INET)
    batch.add_table()
    batch.add_base_chain("forward", "filter", nft.FORWARD, _BEFORE)
    batch.commit(netlink)


def remove_user_chain(netlink: Netlink, table: str) -> None:
    """If nobody has put a rule there."""
    if not nft.count_rules(netlink, table + _USERS, nft.FAMILY_INET):
        batch = nft.Batch(table + _USERS, nft.FAMILY_INET)
        batch.add_table()
        batch.delete_table()
        batch.commit(netlink)


def _elements(forwards: Iterable[Forward]) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """The entries of the two maps; every field of a concatenation is padded to four bytes."""
    by_port: list[tuple[bytes, bytes]] = []
    by_address: list[tuple[bytes, bytes]] = []
    for forward in forwards:
        key = bytes((PROTOCOLS[forward.protocol], 0, 0, 0)) + forward.host_port.to_bytes(2, "big") + b"\0\0"
        target = ip_address(forward.ip).packed + forward.port.to_bytes(2, "big") + b"\0\0"
        if forward.host_ip in (ANY_ADDRESS, ANY_ADDRESS_6):
            by_port.append((key, target))
        else:
            by_address.append((ip_address(forward.host_ip).packed + key, target))
    return by_port, by_address
