"""Our one nftables table: masquerading, published ports and what may be forwarded.

The rules never change while the engine runs; published ports are elements of two maps, so that a thousand ports cost as
many rules as one, and publishing or withdrawing a container's ports is one transaction.

    raw (prerouting)   what comes from a container to 127.0.0.0/8 is dropped: the bridge has route_localnet set
    prerouting, output new connections to an address of this host are redirected as the maps say, those from
                       containers and from the host itself, loopback included, as well
    postrouting        masquerade what leaves the subnet; what comes from 127.0.0.0/8, which nobody could
                       answer; and what a container sends by a published port to its own bridge, which would
                       be answered directly, past the translation. All else keeps its source address
    forward            from the bridge: everything. To it: answers and published ports; nothing else

Other tables on the host are left alone, and a drop in any of them holds. The exception is Docker's chain DOCKER-USER,
made for the rules of others: where Docker runs too, everything forwarded is dropped unless a rule there accepts it, so
two rules are kept there that accept our bridge's packets (which then meet our own table's verdict).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from sampan.linux.netlink import nftables as nft
from sampan.linux.netlink.socket import Netlink

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}
ANY_ADDRESS = "0.0.0.0"

_BY_PORT, _BY_ADDRESS = "ports", "address_ports"
_FOREIGN_TABLE, _FOREIGN_CHAIN = "filter", "DOCKER-USER"


@dataclass(frozen=True)
class Forward:
    """A published port: what comes to `host_ip` (ANY_ADDRESS: any of this host's) and `host_port` goes to the
    container's."""

    protocol: str
    host_ip: str
    host_port: int
    ip: str
    port: int


class Firewall:
    """The table `table` for the bridge `bridge` with the subnet. Not thread safe."""

    def __init__(self, netlink: Netlink, table: str, bridge: str, subnet: IPv4Network) -> None:
        """`netlink`: a NETLINK_NETFILTER socket."""
        self._netlink = netlink
        self._table = table
        self._bridge = bridge
        self._subnet = subnet
        self._generation = -1

    def replace(self, forwards: Iterable[Forward]) -> None:
        """Make the table anew with exactly these ports, in one transaction, whatever was there."""
        batch = nft.Batch(self._table)
        batch.add_table()  # So that deleting it cannot fail.
        batch.delete_table()
        batch.add_table()
        self._add_rules(batch)
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
        batch = nft.Batch(self._table)
        if by_port:
            batch.add_elements(_BY_PORT, by_port)
        if by_address:
            batch.add_elements(_BY_ADDRESS, by_address)
        batch.commit(self._netlink)

    def withdraw(self, forwards: Iterable[Forward]) -> None:
        """Remove ports; FileNotFoundError when one, or the table, is not there."""
        by_port, by_address = _elements(forwards)
        batch = nft.Batch(self._table)
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
        expected = nft.Batch(self._table)
        self._add_rules(expected)
        if nft.count_rules(self._netlink, self._table) != expected.rule_count:
            return False
        by_port, by_address = _elements(forwards)
        try:
            if nft.elements(self._netlink, self._table, _BY_PORT) != dict(by_port):
                return False
            if nft.elements(self._netlink, self._table, _BY_ADDRESS) != dict(by_address):
                return False
        except FileNotFoundError:
            return False
        self._accept_in_foreign_chain()
        self._generation = generation
        return True

    def remove(self) -> None:
        """Delete the table and our rules in Docker's chain; no error if they are gone."""
        batch = nft.Batch(self._table)
        batch.add_table()
        batch.delete_table()
        batch.commit(self._netlink)
        foreign = nft.Batch(_FOREIGN_TABLE)
        for handle, comment in nft.rules(self._netlink, _FOREIGN_TABLE, _FOREIGN_CHAIN):
            if comment == self._comment:
                foreign.delete_rule(_FOREIGN_CHAIN, handle)
        foreign.commit(self._netlink)

    @property
    def _comment(self) -> str:
        return f"sampan {self._bridge}"

    def _accept_in_foreign_chain(self) -> None:
        try:
            found = nft.rules(self._netlink, _FOREIGN_TABLE, _FOREIGN_CHAIN)
            exists = nft.chain_exists(self._netlink, _FOREIGN_TABLE, _FOREIGN_CHAIN)
            if not exists or sum(comment == self._comment for _, comment in found) == 2:
                return
            batch = nft.Batch(_FOREIGN_TABLE)
            for handle, comment in found:
                if comment == self._comment:
                    batch.delete_rule(_FOREIGN_CHAIN, handle)
            bridge = nft.equal(nft.interface(self._bridge))
            for load in (nft.input_name(), nft.output_name()):
                batch.add_rule(_FOREIGN_CHAIN, load, bridge, nft.verdict(nft.ACCEPT), comment=self._comment, first=True)
            batch.commit(self._netlink)
        except OSError:
            return  # Docker changes its chains at the same time, or owns the table exclusively: it is a courtesy.

    def _add_rules(self, batch: nft.Batch) -> None:
        bridge = nft.interface(self._bridge)
        network, prefix = self._subnet.network_address.packed, self._subnet.prefixlen
        from_bridge = nft.input_name(), nft.equal(bridge)
        to_bridge = nft.output_name(), nft.equal(bridge)
        to_elsewhere = nft.output_name(), nft.not_equal(bridge)
        from_subnet = nft.in_subnet(nft.source_address, network, prefix)
        from_loopback = nft.in_subnet(nft.source_address, b"\x7f\0\0\0", 8)
        to_loopback = nft.in_subnet(nft.destination_address, b"\x7f\0\0\0", 8)
        translated = nft.connection(nft.CT_STATUS, nft.STATUS_DNAT)
        answers = nft.connection(nft.CT_STATE, nft.STATE_ESTABLISHED | nft.STATE_RELATED)
        masquerade, accept, drop = nft.masquerade(), nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)

        endpoint = (nft.TYPE_IPV4, nft.TYPE_SERVICE)
        batch.add_map(_BY_PORT, (nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), 8, endpoint, 8)
        batch.add_map(_BY_ADDRESS, (nft.TYPE_IPV4, nft.TYPE_PROTOCOL, nft.TYPE_SERVICE), 12, endpoint, 8)

        batch.add_base_chain("raw", "filter", nft.PREROUTING, nft.PRIORITY_RAW)
        batch.add_rule("raw", *from_bridge, *to_loopback, drop)

        register = nft.REG32_00
        redirect = nft.destination_nat(nft.FAMILY_IPV4, nft.REG_1, register + 1)
        for chain, hook in (("prerouting", nft.PREROUTING), ("output", nft.OUTPUT)):
            batch.add_base_chain(chain, "nat", hook, nft.PRIORITY_DSTNAT)
            # An address of its own goes before any address.
            batch.add_rule(
                chain, *nft.destination_is_local(), nft.destination_address(), nft.transport_protocol(register + 1),
                nft.destination_port(register + 2), nft.lookup(_BY_ADDRESS), redirect,
            )  # fmt: skip
            batch.add_rule(
                chain, *nft.destination_is_local(), nft.transport_protocol(), nft.destination_port(register + 1),
                nft.lookup(_BY_PORT), redirect,
            )  # fmt: skip

        batch.add_base_chain("postrouting", "nat", nft.POSTROUTING, nft.PRIORITY_SRCNAT)
        batch.add_rule("postrouting", *to_elsewhere, *from_subnet, masquerade)
        batch.add_rule("postrouting", *to_bridge, *from_loopback, masquerade)
        batch.add_rule("postrouting", *to_bridge, *from_subnet, *translated, masquerade)

        batch.add_base_chain("forward", "filter", nft.FORWARD, nft.PRIORITY_FILTER)
        batch.add_rule("forward", *from_bridge, accept)
        batch.add_rule("forward", *to_bridge, *answers, accept)
        batch.add_rule("forward", *to_bridge, *translated, accept)
        batch.add_rule("forward", *to_bridge, drop)


def _elements(forwards: Iterable[Forward]) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """The entries of the two maps; every field of a concatenation is padded to four bytes."""
    by_port: list[tuple[bytes, bytes]] = []
    by_address: list[tuple[bytes, bytes]] = []
    for forward in forwards:
        key = bytes((PROTOCOLS[forward.protocol], 0, 0, 0)) + forward.host_port.to_bytes(2, "big") + b"\0\0"
        target = IPv4Address(forward.ip).packed + forward.port.to_bytes(2, "big") + b"\0\0"
        if forward.host_ip == ANY_ADDRESS:
            by_port.append((key, target))
        else:
            by_address.append((IPv4Address(forward.host_ip).packed + key, target))
    return by_port, by_address
