"""rtnetlink(7): links, addresses and routes. Functions that return a `Request`, and parsers of what dumps answer.

Addresses are in packed network order (four bytes for IPv4, sixteen for IPv6), hardware addresses six bytes.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from struct import Struct

from sampan.linux.netlink import attributes
from sampan.linux.netlink.attributes import attribute, nested, text, u8, u16, u32
from sampan.linux.netlink.socket import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, Request

AF_UNSPEC = 0
AF_BRIDGE = 7
LOOPBACK_INDEX = 1  # The first link of every network namespace.

RTNLGRP_LINK = 1

IFF_UP = 0x1

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BR_NF_CALL_IPTABLES = 36
_IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 4, 33
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1
_VETH_INFO_PEER = 1
_MACVLAN_MODE, _IPVLAN_MODE, _IPVLAN_FLAGS = 1, 1, 2

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_RT_TABLE_MAIN = 254
_RTPROT_BOOT = 3
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 0, 253, 255
_RTN_UNICAST = 1

_IFINFO = Struct("=BxHiII")  # family, device type, index, flags, mask of the flags to change
_IFADDR = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
_U32 = Struct("=I")

_NO_IPV6_ADDRESS = nested(
    _IFLA_AF_SPEC, nested(socket.AF_INET6, u8(_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE))
)
_BRIDGE_KIND = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
_HAIRPIN = nested(
    _IFLA_LINKINFO, text(_IFLA_INFO_SLAVE_KIND, "bridge"), nested(_IFLA_INFO_SLAVE_DATA, u8(_IFLA_BRPORT_MODE, 1))
)
_VETH_KIND = text(_IFLA_INFO_KIND, "veth")


@dataclass(frozen=True)
class Link:
    index: int
    name: str
    kind: str
    """`bridge`, `veth`, …; empty for a physical one and for lo."""
    up: bool
    master: int
    """The index of the bridge that it is a port of; 0: none."""
    address: bytes
    mtu: int


@dataclass(frozen=True)
class Address:
    index: int
    family: int
    address: bytes
    prefix: int


@dataclass(frozen=True)
class Route:
    family: int
    table: int
    destination: bytes
    """Empty for a default route."""
    prefix: int
    type: int
    output: int
    """The index of the link that it goes out by; 0: none, or several."""
    gateway: bytes


def add_bridge(name: str, *, mac: bytes, mtu: int) -> Request:
    """A bridge with an address of its own: without one it would follow its ports' and change as they come and go."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, mac)
    body += u32(_IFLA_MTU, mtu) + _BRIDGE_KIND
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create bridge {name}")


def add_veth(
    name: str, *, index: int = 0, mac: bytes = b"", mtu: int, peer_name: str, peer_namespace: int | None = None
) -> Request:
    """A pair, both ends down: `name` here, with the index of the caller's choice (0: the kernel's), and the peer in the
    namespace of the descriptor. (The kernel takes a chosen index for the peer only together with one for this end.)"""
    peer = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, peer_name) + u32(_IFLA_MTU, mtu)
    if peer_namespace is not None:
        peer += u32(_IFLA_NET_NS_FD, peer_namespace)
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    if mac:
        body += attribute(_IFLA_ADDRESS, mac)
    body += nested(_IFLA_LINKINFO, _VETH_KIND, nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, peer)))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth {name}")


MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


def add_child(
    name: str, *, kind: str, mode: str, flag: str = "bridge", parent: int, namespace: int, index: int,
    mac: bytes = b"", mtu: int = 0,
) -> Request:  # fmt: skip
    """A `macvlan` or `ipvlan` link of the parent with this index, down, in the namespace of the descriptor. `mtu` 0:
    the parent's. With `passthru`, a macvlan link has the parent's hardware address."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + text(_IFLA_IFNAME, name) + u32(_IFLA_LINK, parent)
    body += u32(_IFLA_NET_NS_FD, namespace)
    if mtu:
        body += u32(_IFLA_MTU, mtu)
    if mac and kind == "macvlan" and mode != "passthru":
        body += attribute(_IFLA_ADDRESS, mac)
    if kind == "macvlan":
        data = u32(_MACVLAN_MODE, MACVLAN_MODES[mode])
    else:
        data = u16(_IPVLAN_MODE, IPVLAN_MODES[mode]) + u16(_IPVLAN_FLAGS, IPVLAN_FLAGS[flag])
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, kind), nested(_IFLA_INFO_DATA, data))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create {kind} {name}")


def add_dummy(name: str) -> Request:
    """A link that leads nowhere."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, IFF_UP, IFF_UP) + text(_IFLA_IFNAME, name)
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "dummy"))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create dummy link {name}")


def set_link(
    index: int = 0, *, name: str = "", up: bool | None = None, master: int | None = None, mtu: int = 0, mac: bytes = b""
) -> Request:
    """Change a link, given by index or by name. `master` 0 takes it out of its bridge."""
    flags = IFF_UP if up else 0
    body = _IFINFO.pack(AF_UNSPEC, 0, index, flags, IFF_UP if up is not None else 0)
    if name:
        body += text(_IFLA_IFNAME, name)
    if master is not None:
        body += u32(_IFLA_MASTER, master)
    if mtu:
        body += u32(_IFLA_MTU, mtu)
    if mac:
        body += attribute(_IFLA_ADDRESS, mac)
    return Request(RTM_NEWLINK, 0, body, f"set link {name or index}")


def without_ipv6(index: int = 0, *, name: str = "") -> Request:
    """Give the link no link-local IPv6 address when it comes up, so that it neither looks for routers nor for
    duplicates. Ignored by a kernel without IPv6. (Not possible in the request that creates a link.)"""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0)
    if name:
        body += text(_IFLA_IFNAME, name)
    return Request(RTM_NEWLINK, 0, body + _NO_IPV6_ADDRESS, f"set link {name or index}", optional=True)


def filtered_bridge(index: int) -> Request:
    """Have br_netfilter, where it is loaded, show the IP rules what this bridge switches, whatever its sysctl says."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0)
    data = nested(_IFLA_INFO_DATA, u8(_IFLA_BR_NF_CALL_IPTABLES, 1))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"), data)
    return Request(RTM_NEWLINK, 0, body, f"set bridge {index}")


def isolated(*, name: str, on: bool) -> Request:
    """Whether the bridge keeps frames of this port from its other isolated ports (Linux 4.18)."""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    data = nested(_IFLA_INFO_SLAVE_DATA, u8(_IFLA_BRPORT_ISOLATED, int(on)))
    body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_SLAVE_KIND, "bridge"), data)
    return Request(RTM_NEWLINK, 0, body, f"isolate port {name}")


def hairpin(*, name: str) -> Request:
    """Let the bridge send a frame back out of the port that it came in by. (Not possible in the request that makes the
    link a port.)"""
    body = _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name) + _HAIRPIN
    return Request(RTM_NEWLINK, 0, body, f"set port {name}")


def delete_link(*, index: int = 0, name: str = "") -> Request:
    """By index, or by name."""
    body = _IFINFO.pack(AF_UNSPEC, 0, index, 0, 0)
    if name:
        body += text(_IFLA_IFNAME, name)
    return Request(RTM_DELLINK, 0, body, f"delete link {name or index}")


def get_link(name: str) -> Request:
    return Request(RTM_GETLINK, 0, _IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(_IFLA_IFNAME, name), f"get link {name}")


def add_address(index: int, address: bytes, prefix: int, *, replace: bool = False) -> Request:
    """`replace`: no error when it is there already. An IPv6 address can be used at once: nobody is asked whether it is
    another's."""
    body = _IFADDR.pack(_family(address), prefix, _IFA_F_NODAD if len(address) == 16 else 0, _RT_SCOPE_UNIVERSE, index)
    body += attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
    if len(address) == 4 and prefix < 31:
        host = (1 << (32 - prefix)) - 1
        body += attribute(_IFA_BROADCAST, (int.from_bytes(address, "big") | host).to_bytes(4, "big"))
    return Request(
        RTM_NEWADDR, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body, f"add address to {index}"
    )


def delete_address(index: int, address: bytes, prefix: int) -> Request:
    body = _IFADDR.pack(_family(address), prefix, 0, 0, index) + attribute(_IFA_LOCAL, address)
    return Request(RTM_DELADDR, 0, body, f"delete address of {index}")


def add_route(
    *, gateway: bytes = b"", output: int = 0, destination: bytes = b"", prefix: int = 0, replace: bool = False,
    family: int = 0,
) -> Request:  # fmt: skip
    """A unicast route in the main table; with no destination, the default one. `replace`: instead of the one that is
    there. `family`: where there is neither gateway nor destination to tell it."""
    scope = _RT_SCOPE_UNIVERSE if gateway else _RT_SCOPE_LINK
    body = _ROUTE.pack(
        family or _family(gateway or destination), prefix, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, scope, _RTN_UNICAST, 0
    )
    if destination:
        body += attribute(_RTA_DST, destination)
    if gateway:
        body += attribute(_RTA_GATEWAY, gateway)
    if output:
        body += u32(_RTA_OIF, output)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body, "add route")


def delete_default_route(family: int = socket.AF_INET) -> Request:
    """The default route of the main table. ESRCH if there is none."""
    body = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, 0, _RT_SCOPE_NOWHERE, 0, 0)
    return Request(RTM_DELROUTE, 0, body, "delete route")


def _family(address: bytes) -> int:
    return socket.AF_INET6 if len(address) == 16 else socket.AF_INET


def links(netlink: Netlink) -> list[Link]:
    """Every link of the socket's namespace."""
    return [_link(body) for _, body in netlink.dump(Request(RTM_GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0), "list links"))]


def find_link(netlink: Netlink, name: str) -> Link | None:
    """The link of that name; None when there is none."""
    try:
        return _link(netlink.get(get_link(name))[1])
    except OSError as error:
        if error.errno == 19:  # ENODEV
            return None
        raise


def addresses(netlink: Netlink, family: int = socket.AF_INET) -> list[Address]:
    """Every address of the family in the socket's namespace."""
    request = Request(RTM_GETADDR, 0, _IFADDR.pack(family, 0, 0, 0, 0), "list addresses")
    return [_address(body) for _, body in netlink.dump(request)]


def routes(netlink: Netlink, family: int = socket.AF_INET) -> list[Route]:
    """Every route of the family in every table of the socket's namespace, the local table's too."""
    request = Request(RTM_GETROUTE, 0, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), "list routes")
    return [_route(body) for _, body in netlink.dump(request)]


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes.parse(body, _IFINFO.size)
    info = attributes.parse(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_string(found.get(_IFLA_IFNAME, b"")),
        kind=_string(info.get(_IFLA_INFO_KIND, b"")),
        up=bool(flags & IFF_UP),
        master=_number(found.get(_IFLA_MASTER)),
        address=found.get(_IFLA_ADDRESS, b""),
        mtu=_number(found.get(_IFLA_MTU)),
    )


def _address(body: bytes) -> Address:
    family, prefix, _, _, index = _IFADDR.unpack_from(body)
    found = attributes.parse(body, _IFADDR.size)
    # On a point-to-point link IFA_ADDRESS is the other end's; IFA_LOCAL is absent with IPv6.
    return Address(index, family, found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b""), prefix)


def _route(body: bytes) -> Route:
    family, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes.parse(body, _ROUTE.size)
    return Route(
        family=family,
        table=_number(found.get(_RTA_TABLE)) or table,
        destination=found.get(_RTA_DST, b""),
        prefix=prefix,
        type=kind,
        output=_number(found.get(_RTA_OIF)),
        gateway=found.get(_RTA_GATEWAY, b""),
    )


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int(_U32.unpack(value)[0]) if value else 0
