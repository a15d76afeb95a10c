"""What is asked of the kernel within a sandbox to put it onto a network: requests, in order."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_address

from sampan.linux.netlink import rtnl
from sampan.linux.netlink.socket import Netlink, Request
from sampan.network.definitions import Definition
from sampan.network.endpoints import Endpoint, way_out, way_out_6

# In a namespace just made lo is 1, and only tunnel modules add links of their own, from 2 on.
_INNER_INDEX = 100


def index_of(endpoint: Endpoint) -> int:
    """Of its interface in the sandbox."""
    return _INNER_INDEX + int(endpoint.interface.removeprefix("eth"))


def loopback() -> Request:
    return rtnl.set_link(rtnl.LOOPBACK_INDEX, up=True)


def pair(endpoint: Endpoint, definition: Definition, namespace: int) -> Request:
    """The interface, with its peer in the host's namespace. The pair is made from within, so that the inner end's index
    is ours to choose and all of that side is one system call."""
    return rtnl.add_veth(
        endpoint.interface, index=index_of(endpoint), mac=bytes.fromhex(endpoint.mac.replace(":", "")),
        mtu=definition.mtu, peer_name=endpoint.host_interface, peer_namespace=namespace,
    )  # fmt: skip


def addressing(endpoint: Endpoint, definition: Definition, *, route: bool) -> list[Request]:
    """For the interface that is there: its addresses, and, if `route`, the way out."""
    index = index_of(endpoint)
    requests = [] if endpoint.ip6 else [rtnl.without_ipv6(index)]
    requests += [
        rtnl.set_link(index, up=True),
        rtnl.add_address(index, ip_address(endpoint.ip).packed, endpoint.prefix),
    ]
    if endpoint.ip6:
        requests.append(rtnl.add_address(index, ip_address(endpoint.ip6).packed, endpoint.prefix6))
    if route:
        for gateway in (endpoint.gateway, endpoint.gateway6):
            if gateway:
                requests.append(rtnl.add_route(gateway=ip_address(gateway).packed, output=index))
    if definition.routed and not definition.internal:
        families = (socket.AF_INET, socket.AF_INET6) if endpoint.ip6 else (socket.AF_INET,)
        requests += [rtnl.add_route(output=index, family=family, replace=True) for family in families]
    return requests


def lead_out(inside: Netlink, held: list[Endpoint]) -> Endpoint | None:
    """The default routes by the gateways that are to be them; gives the endpoint of the one by IPv4. Raises OSError."""
    chosen, chosen6 = way_out(held), way_out_6(held)
    for family, by, gateway in (
        (socket.AF_INET, chosen, chosen.gateway if chosen else ""),
        (socket.AF_INET6, chosen6, chosen6.gateway6 if chosen6 else ""),
    ):
        if by is not None:
            packed = ip_address(gateway).packed
            inside.request(rtnl.add_route(gateway=packed, output=index_of(by), replace=True))
        elif family == socket.AF_INET or any(each.ip6 for each in held):
            with contextlib.suppress(ProcessLookupError):  # ESRCH: there was none.
                inside.request(rtnl.delete_default_route(family))
    return chosen
