"""The bridge of a network: make it, or mend it, until it is as it must be."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_network

from sampan.errors import Conflict
from sampan.linux.netlink import rtnl
from sampan.linux.netlink.socket import Netlink
from sampan.network.addresses import mac_address

_LINK_LOCAL = IPv6Interface("fe80::1/64")


def ensure(netlink: Netlink, name: str, address: IPv4Interface, mtu: int, address6: IPv6Interface | None = None) -> int:
    """Create the bridge where it is missing, give it these addresses and no others, set it up; return its index.

    Idempotent. Raises Conflict when a link of that name is something else, OSError from the kernel.
    """
    mac = mac_address(int(address.ip))
    link = rtnl.find_link(netlink, name)
    if link is None:
        with contextlib.suppress(FileExistsError):  # Someone was faster; what it is, is looked at below.
            netlink.request(rtnl.add_bridge(name, mac=mac, mtu=mtu))
        link = rtnl.find_link(netlink, name)
        if link is None:
            raise Conflict(f"bridge {name} was removed while it was set up")
    if link.kind != "bridge":
        raise Conflict(f"interface {name} exists and is not a bridge")
    _address(netlink, link.index, address)
    if not link.up or link.mtu != mtu or link.address != mac:
        netlink.request(rtnl.without_ipv6(link.index), rtnl.set_link(link.index, up=True, mtu=mtu, mac=mac))
    _sysctls(name)
    if address6 is not None:
        _sysctls_6(name)
        _address(netlink, link.index, address6)
        # Of a container that a forwarded packet goes to, the kernel asks by a link-local address, or not at all.
        _address(netlink, link.index, _LINK_LOCAL)
    return link.index


def _address(netlink: Netlink, index: int, address: IPv4Interface | IPv6Interface) -> None:
    wanted = address.packed, address.network.prefixlen
    present = False
    for found in rtnl.addresses(netlink, socket.AF_INET if address.version == 4 else socket.AF_INET6):
        if found.index != index or ip_address(found.address).is_link_local != address.is_link_local:
            continue
        if (found.address, found.prefix) == wanted:
            present = True
        else:
            netlink.request(rtnl.delete_address(index, found.address, found.prefix))
    if not present:
        netlink.request(rtnl.add_address(index, *wanted, replace=True))


def intact(netlink: Netlink, name: str, index: int) -> bool:
    """Whether the bridge with this index is still there and up."""
    link = rtnl.find_link(netlink, name)
    return link is not None and link.index == index and link.up


def other_subnets(netlink: Netlink, own_bridges: Collection[str]) -> list[IPv4Network]:
    """The IPv4 subnets of the host's addresses and routes, those of our own bridges left out."""
    found = _used(netlink, own_bridges, socket.AF_INET)
    return [each for each in found if isinstance(each, IPv4Network)]


def other_subnets_6(netlink: Netlink, own_bridges: Collection[str]) -> list[IPv6Network]:
    """The same for IPv6."""
    found = _used(netlink, own_bridges, socket.AF_INET6)
    return [each for each in found if isinstance(each, IPv6Network)]


def _used(netlink: Netlink, own_bridges: Collection[str], family: int) -> list[IPv4Network | IPv6Network]:
    own = {link.index for link in rtnl.links(netlink) if link.name in own_bridges}
    used = [
        ip_network((each.address, each.prefix), strict=False)
        for each in rtnl.addresses(netlink, family)
        if each.index not in own
    ]
    used += [
        ip_network((each.destination, each.prefix), strict=False)
        for each in rtnl.routes(netlink, family)
        if each.output not in own and each.destination
    ]
    return used


def other_holder(netlink: Netlink, own_bridges: Collection[str], subnet: IPv4Network | IPv6Network) -> str | None:
    """The name of an interface, no bridge of ours, that has an address of that subnet or of one around it."""
    names = {link.index: link.name for link in rtnl.links(netlink) if link.name not in own_bridges}
    for each in rtnl.addresses(netlink, socket.AF_INET if subnet.version == 4 else socket.AF_INET6):
        first, last = (int(end) for end in (subnet.network_address, subnet.broadcast_address))
        around = ip_network((each.address, each.prefix), strict=False)
        if each.index in names and int(around.network_address) <= last and first <= int(around.broadcast_address):
            return names[each.index]
    return None


def _sysctls(name: str) -> None:
    _write("/proc/sys/net/ipv4/ip_forward", "1")
    # A connection from 127.0.0.1 to a published port leaves by the bridge: without this the kernel drops packets
    # with a loopback address there. The firewall keeps the containers from making use of it.
    _write(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "1")
    # A container must not be able to give the host routes by router advertisements.
    _write(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", "0", optional=True)


def _sysctls_6(name: str) -> None:
    _write(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "0")
    if _holds("/proc/sys/net/ipv6/conf/all/forwarding", "1"):
        return
    # A host that forwards hears of no router any more, unless it is told to: its own way out must stay.
    for interface in os.listdir("/proc/sys/net/ipv6/conf"):
        path = f"/proc/sys/net/ipv6/conf/{interface}/accept_ra"
        if interface not in ("all", name) and _holds(path, "1"):
            _write(path, "2", optional=True)
    _write("/proc/sys/net/ipv6/conf/all/forwarding", "1")


def _write(path: str, value: str, *, optional: bool = False) -> None:
    """Write the setting where it differs: /proc/sys may be read-only and right already."""
    try:
        with open(path, "r+b", buffering=0) as file:
            if file.read(64).strip() == value.encode():
                return
            file.seek(0)
            file.write(value.encode())
    except FileNotFoundError:
        if not optional:
            raise
    except OSError as error:
        if not optional and not _holds(path, value):
            raise OSError(error.errno, f"set {path} to {value}: {error.strerror}") from None


def _holds(path: str, value: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(64).strip() == value.encode()
    except OSError:
        return False
