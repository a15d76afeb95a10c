"""The connection tracking table over netlink (ctnetlink): find and forget UDP flows.

A UDP flow has no end: as long as packets keep coming, the kernel goes on translating them as it did for the first. When
a port is published or withdrawn, flows that it concerns must therefore be forgotten.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from sampan.linux.netlink.attributes import be16, nested, parse, u8, u32
from sampan.linux.netlink.socket import Netlink, Request

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IP_SOURCE: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
_IP_DESTINATION: dict[int, int] = {socket.AF_INET: 2, socket.AF_INET6: 4}
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
# Which fields of the tuple the kernel compares (its enumeration is net/netfilter/nf_internals.h).
_FILTER_NUMBER = 1 << 3
_FILTER_DESTINATION_PORT = 1 << 5


@dataclass(frozen=True)
class Flow:
    """A UDP flow: where its first packet went, and who answers it."""

    destination: bytes
    port: int
    answered_by: bytes
    tuple: bytes
    """The original direction as the kernel wrote it: the flow's identity."""


def udp_flows(netlink: Netlink, port: int = 0, family: int = socket.AF_INET) -> list[Flow]:
    """The flows of a family, over a NETLINK_NETFILTER socket; of one destination port if it is not 0. The kernel looks
    at its whole table for it."""
    body = _head(family)
    if port:
        # Kernels before 5.8 ignore the filter and send the whole table; the port is compared below in any case.
        protocol = nested(_TUPLE_PROTOCOL, u8(_PROTOCOL_NUMBER, socket.IPPROTO_UDP), be16(_DESTINATION_PORT, port))
        body += nested(_TUPLE_ORIGINAL, protocol)
        body += nested(_FILTER, u32(1, _FILTER_NUMBER | _FILTER_DESTINATION_PORT), u32(2, 0))
    flows: list[Flow] = []
    for _, answer in netlink.dump(Request(_GET, 0, body, "list connections")):
        found = parse(answer, 4)
        raw = found.get(_TUPLE_ORIGINAL, b"")
        original, reply = parse(raw), parse(found.get(_TUPLE_REPLY, b""))
        protocol_part = parse(original.get(_TUPLE_PROTOCOL, b""))
        if protocol_part.get(_PROTOCOL_NUMBER) != b"\x11":
            continue
        number = int.from_bytes(protocol_part.get(_DESTINATION_PORT, b""), "big")
        if port and number != port:
            continue
        destination = parse(original.get(_TUPLE_IP, b"")).get(_IP_DESTINATION[family], b"")
        flows.append(Flow(destination, number, parse(reply.get(_TUPLE_IP, b"")).get(_IP_SOURCE[family], b""), raw))
    return flows


def _head(family: int) -> bytes:
    return bytes((family, 0, 0, 0))


def forget(netlink: Netlink, flow: Flow) -> None:
    """Remove the flow; its next packet is looked at anew. No error if it has ended by itself."""
    family = socket.AF_INET if len(flow.destination) == 4 else socket.AF_INET6
    try:
        netlink.request(Request(_DELETE, 0, _head(family) + nested(_TUPLE_ORIGINAL, flow.tuple), "forget connection"))
    except FileNotFoundError:
        return
