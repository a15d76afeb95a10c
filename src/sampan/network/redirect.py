"""In a sandbox: what asks for names at port 53 is led to where the resolver listens, on a port of its own, so that a
program of the container's may have port 53 for itself."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from sampan.linux.netlink import nftables as nft
from sampan.linux.netlink.socket import NETLINK_NETFILTER, Netlink
from sampan.network.files import NAMES

_TABLE = "sampan_names"
_PORT = (53).to_bytes(2, "big")


def lead(netfilter: int, ports: dict[int, int]) -> None:
    """`netfilter`: the descriptor of a socket in the sandbox, which stays the caller's. `ports`: where the resolver
    listens, by the number of the protocol. Raises OSError."""
    address = IPv4Address(NAMES).packed
    batch = nft.Batch(_TABLE)
    batch.add_table()  # So that deleting it cannot fail.
    batch.delete_table()
    batch.add_table()
    batch.add_base_chain("output", "nat", nft.OUTPUT, nft.PRIORITY_DSTNAT)
    for protocol, port in ports.items():
        batch.add_rule(
            "output", nft.destination_address(), nft.equal(address),
            nft.transport_protocol(), nft.equal(bytes((protocol,))),
            nft.destination_port(), nft.equal(_PORT),
            nft.immediate(address), nft.immediate(port.to_bytes(2, "big"), nft.REG_2),
            nft.destination_nat(nft.FAMILY_IPV4, nft.REG_1, nft.REG_2),
        )  # fmt: skip
    inside = Netlink(netfilter, NETLINK_NETFILTER)
    try:
        batch.commit(inside)
    finally:
        inside.detach()


def lead_to(netfilter: int, datagrams: int, streams: int) -> None:
    """The same for the descriptors of the two sockets."""
    ports: dict[int, int] = {}
    for descriptor, protocol in ((datagrams, socket.IPPROTO_UDP), (streams, socket.IPPROTO_TCP)):
        bound = socket.socket(fileno=descriptor)
        try:
            ports[protocol] = bound.getsockname()[1]
        finally:
            bound.detach()
    lead(netfilter, ports)
