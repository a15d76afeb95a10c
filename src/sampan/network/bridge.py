"""The bridge of a network: make it, or mend it, until it is as it must be."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from ipaddress import IPv4Interface, IPv4Network

from sampan.errors import Conflict
from sampan.linux.netlink import rtnl
from sampan.linux.netlink.socket import Netlink
from sampan.network.addresses import mac_address


def ensure(netlink: Netlink, name: str, address: IPv4Interface, mtu: int) -> int:
    """Create the bridge where it is missing, give it this one IPv4 address, set it up; return its index.

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
    wanted = address.packed, address.network.prefixlen
    present = False
    for found in rtnl.addresses(netlink):
        if found.index != link.index:
            continue
        if (found.address, found.prefix) == wanted:
            present = True
        else:
            netlink.request(rtnl.delete_address(link.index, found.address, found.prefix))
    if not present:
        netlink.request(rtnl.add_address(link.index, *wanted, replace=True))
    if not link.up or link.mtu != mtu or link.address != mac:
        netlink.request(rtnl.without_ipv6(link.index), rtnl.set_link(link.index, up=True, mtu=mtu, mac=mac))
    _sysctls(name)
    return link.index


def intact(netlink: Netlink, name: str, index: int) -> bool:
    """Whether the bridge with this index is still there and up."""
    link = rtnl.find_link(netlink, name)
    return link is not None and link.index == index and link.up


def other_subnets(netlink: Netlink, own_bridges: Collection[str]) -> list[IPv4Network]:
    """The subnets of the host's addresses and routes, those of our own bridges left out."""
    own = {link.index for link in rtnl.links(netlink) if link.name in own_bridges}
    used = [
        IPv4Network((each.address, each.prefix), strict=False)
        for each in rtnl.addresses(netlink)
        if each.index not in own
    ]
    used += [
        IPv4Network((each.destination, each.prefix), strict=False)
        for each in rtnl.routes(netlink)
        if each.output not in own and each.destination
    ]
    return used


def other_holder(netlink: Netlink, own_bridges: Collection[str], subnet: IPv4Network) -> str | None:
    """The name of an interface, no bridge of ours, that has an address of that subnet or of one around it."""
    names = {link.index: link.name for link in rtnl.links(netlink) if link.name not in own_bridges}
    for each in rtnl.addresses(netlink):
        if each.index in names and IPv4Network((each.address, each.prefix), strict=False).overlaps(subnet):
            return names[each.index]
    return None


def _sysctls(name: str) -> None:
    _write("/proc/sys/net/ipv4/ip_forward", "1")
    # A connection from 127.0.0.1 to a published port leaves by the bridge: without this the kernel drops packets
    # with a loopback address there. The firewall keeps the containers from making use of it.
    _write(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "1")
    # A container must not be able to give the host routes by router advertisements.
    _write(f"/proc/sys/net/ipv6/conf/{name}/accept_ra", "0", optional=True)


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
