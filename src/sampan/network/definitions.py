"""What a user-defined network is made of, and how a request for one is read. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_network,
)

import msgspec

from sampan.errors import Forbidden, InvalidArgument, NotFound, ResourceExhausted, Unsupported
from sampan.linux.netlink.rtnl import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES
from sampan.network import pools
from sampan.network.endpoints import PREDEFINED
from sampan.network.firewall import ANY_ADDRESS, Segment

_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_BRIDGE = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
CHILDREN = ("macvlan", "ipvlan")
"""The drivers whose interfaces are children of one of the host's."""


class SubnetRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A subnet as asked for; `reserved`: addresses that no container gets, by a name of the user's."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    reserved: dict[str, str] = {}


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A network as asked for; of each family of addresses there is one subnet at most."""

    name: str
    driver: str = "bridge"
    subnets: tuple[SubnetRequest, ...] = ()
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network as it is kept. `address`: the bridge's, or a router's outside, with the subnet's prefix; `address6` is
    empty without IPv6. `host_ip`: where its ports are published if the request does not say. `bridge`: the interface
    that is made for it. `parent`, `mode` and `flag` are those of drivers with children; `mtu` 0 is the parent's."""

    bridge: str
    address: str
    configured: bool = False
    ip_range: str = ""
    reserved: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    talking: bool = True
    masquerade: bool = True
    host_ip: str = ""
    mtu: int = 1500
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    address6: str = ""
    configured6: bool = False
    ip_range6: str = ""
    reserved6: dict[str, str] = {}
    driver: str = "bridge"
    parent: str = ""
    mode: str = ""
    flag: str = "bridge"

    @property
    def interface(self) -> IPv4Interface:
        return IPv4Interface(self.address)

    @property
    def interface6(self) -> IPv6Interface | None:
        return IPv6Interface(self.address6) if self.address6 else None

    @property
    def subnet(self) -> IPv4Network:
        return self.interface.network

    @property
    def subnet6(self) -> IPv6Network | None:
        return self.interface6.network if self.interface6 else None

    @property
    def gateways(self) -> tuple[str, str]:
        """What leads out of it, by IPv4 and IPv6; empty: nothing does, or all of it."""
        if self.internal or self.routed:
            return "", ""
        return str(self.interface.ip), str(self.interface6.ip) if self.interface6 else ""

    @property
    def routed(self) -> bool:
        """Its parent routes: there is no router to name."""
        return self.mode in ("l3", "l3s")

    @property
    def segment(self) -> Segment:
        """As the rules see it."""
        return Segment(self.bridge, self.subnet, self.talking, self.internal, self.masquerade, self.subnet6)

    @property
    def kept_back(self) -> list[int]:
        """The addresses that containers don't get, as numbers."""
        return [int(self.interface.ip), *(int(IPv4Address(each)) for each in self.reserved.values())]

    @property
    def kept_back6(self) -> list[int]:
        own = [int(self.interface6.ip)] if self.interface6 else []
        return [*own, *(int(IPv6Address(each)) for each in self.reserved6.values())]


def check(request: NetworkRequest) -> None:
    """Raises InvalidArgument, Forbidden, NotFound (the driver) and Unsupported, in Docker's words where it has any."""
    if not request.name.strip():
        raise InvalidArgument("invalid network name: name is empty")
    if request.name in (*PREDEFINED, "default"):
        raise Forbidden(f"operation is not permitted on predefined {request.name} network ")
    if not _NAME.fullmatch(request.name):
        raise InvalidArgument(f"invalid network name: {request.name}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if request.driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{request.driver}" network is allowed')
    if request.driver == "overlay":
        raise Unsupported(f"network driver {request.driver} is not supported")
    if request.driver not in ("bridge", *CHILDREN):
        raise NotFound(
            f'could not find plugin {request.driver} in v1 plugin registry: plugin "{request.driver}" not found'
        )
    _options(request.driver, request.options)
    wanted = [each for each in map(addresses, request.subnets) if each]
    for version in (4, 6):
        if sum(each.version == version for each in wanted) > 1:
            raise Forbidden(f"{request.driver} driver doesn't support multiple subnets")
    if any(each.version == 6 for each in wanted) and not request.ipv6:
        raise InvalidArgument("invalid network config: an IPv6 subnet needs IPv6 to be enabled (--ipv6)")


def addresses(request: SubnetRequest) -> IPv4Interface | IPv6Interface | None:
    """The gateway's address that was asked for; None: any subnet will do. Raises InvalidArgument."""
    if not request.subnet:
        if request.ip_range or request.gateway or request.reserved:
            raise _bad("no subnet is given for the gateway, range or addresses")
        return None
    try:
        subnet = ip_network(request.subnet, strict=False)
    except ValueError:
        raise _bad(f"invalid subnet {request.subnet}: invalid CIDR block notation") from None
    if str(subnet) != request.subnet:
        try:
            ip_network(request.subnet)
        except ValueError:
            raise _bad(f"invalid subnet {request.subnet}: it should be {subnet}") from None
    if subnet.prefixlen > subnet.max_prefixlen - 2:
        raise _bad(f"invalid subnet {request.subnet}: it has no room for a container")
    if request.ip_range:
        _part(request.ip_range, subnet)
    gateway = _member(request.gateway, subnet, "gateway") if request.gateway else subnet[1]
    for text in request.reserved.values():
        _member(text, subnet, "auxiliary address")
    if isinstance(gateway, IPv4Address):
        return IPv4Interface((int(gateway), subnet.prefixlen))
    return IPv6Interface((int(gateway), subnet.prefixlen))


def _bad(what: str) -> InvalidArgument:
    return InvalidArgument(f"invalid network config: {what}")


def _part(text: str, subnet: IPv4Network | IPv6Network) -> None:
    try:
        part = ip_network(text, strict=False)
    except ValueError:
        raise _bad(f"invalid ip-range {text}: invalid CIDR block notation") from None
    if part.version != subnet.version or part[0] not in subnet or part.prefixlen < subnet.prefixlen:
        raise _bad(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")


def _member(text: str, subnet: IPv4Network | IPv6Network, what: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise _bad(f"invalid {what} {text}: invalid address") from None
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise _bad(f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address")
    return address


def define(
    request: NetworkRequest, network_id: str, own: Iterable[Definition], used: Sequence[IPv4Network], mtu: int,
    used6: Sequence[IPv6Network] = (),
) -> Definition:  # fmt: skip
    """The network for a request that `check` has passed. `own`: the networks that there are; `used`, `used6`: what else
    on this host has a route. Raises Forbidden for an overlap, ResourceExhausted when no pool is free."""
    others = list(own)
    options = _options(request.driver, request.options)
    first = SubnetRequest()
    second = SubnetRequest()
    wanted: IPv4Interface | None = None
    wanted6: IPv6Interface | None = None
    for subnet in request.subnets:
        asked = addresses(subnet)
        if isinstance(asked, IPv6Interface):
            wanted6, second = asked, subnet
        elif asked is not None:
            wanted, first = asked, subnet
    if wanted is None:
        chosen = pools.choose([*used, *(each.subnet for each in others)])
        wanted = IPv4Interface((int(chosen[0]) + 1, chosen.prefixlen))
    own6 = [each.subnet6 for each in others if each.subnet6]
    if wanted6 is None and request.ipv6:
        wanted6 = local_subnet(network_id, [*used6, *own6])
    if any(each.subnet.overlaps(wanted.network) for each in others) or (
        wanted6 is not None and any(each.overlaps(wanted6.network) for each in own6)
    ):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    common = {
        "address": str(wanted), "configured": bool(first.subnet), "ip_range": first.ip_range,
        "reserved": first.reserved, "address6": str(wanted6 or ""), "configured6": bool(second.subnet),
        "ip_range6": second.ip_range, "reserved6": second.reserved, "internal": request.internal,
        "attachable": request.attachable, "labels": request.labels, "options": request.options,
        "driver": request.driver,
    }  # fmt: skip
    if request.driver in CHILDREN:
        return _child(request, network_id, others, options, common)
    bridge = options.get("name") or f"br-{network_id[:12]}"
    if any(each.bridge == bridge for each in others):
        raise Forbidden(f"networks have same bridge name: {bridge}")
    return msgspec.convert(
        {
            **common, "bridge": bridge, "talking": options.get("enable_icc", "true") == "true",
            "masquerade": options.get("enable_ip_masquerade", "true") == "true",
            "host_ip": options.get("host_binding_ipv4", ""), "mtu": int(options.get("mtu", "") or mtu),
        },
        Definition,
    )  # fmt: skip


def _child(
    request: NetworkRequest, network_id: str, others: list[Definition], options: dict[str, str],
    common: dict[str, object],
) -> Definition:  # fmt: skip
    """Without a parent there is one that leads nowhere, made for the network."""
    own = f"dm-{network_id[:12]}"
    parent = options.get("parent", "") or own
    if any(each.driver == request.driver and each.parent == parent for each in others):
        raise Forbidden(f"another network is already using parent interface {parent}")
    default = "bridge" if request.driver == "macvlan" else "l2"
    made = {
        **common, "bridge": own if parent == own else "", "parent": parent, "mtu": int(options.get("mtu", "0")),
        "mode": options.get("mode", default), "flag": options.get("flag", "bridge"), "masquerade": False,
        "internal": request.internal or parent == own,
    }  # fmt: skip
    return msgspec.convert(made, Definition)


def local_subnet(seed: str, used: Iterable[IPv6Network]) -> IPv6Interface:
    """A /64 of this network's own, of the addresses that are routed nowhere (RFC 4193, whose 40 random bits and subnet
    number the seed gives). Raises ResourceExhausted."""
    taken = list(used)
    for attempt in range(64):
        digest = hashlib.sha256(f"{seed} {attempt}".encode()).digest()
        network = IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        if not any(network.overlaps(each) for each in taken if each.prefixlen):
            return IPv6Interface((int(network[0]) + 1, 64))
    raise ResourceExhausted("all predefined IPv6 address pools have been fully subnetted")


def default_bridge(bridge: str, address: IPv4Interface, mtu: int) -> Definition:
    """The network `bridge`, which is there without anyone's request."""
    options = {
        f"{_BRIDGE}default_bridge": "true",
        f"{_BRIDGE}enable_icc": "true",
        f"{_BRIDGE}enable_ip_masquerade": "true",
        f"{_BRIDGE}host_binding_ipv4": ANY_ADDRESS,
        f"{_BRIDGE}name": bridge,
        _MTU: str(mtu),
    }
    return Definition(bridge=bridge, address=str(address), mtu=mtu, options=options)


def _options(driver: str, given: dict[str, str]) -> dict[str, str]:
    """The driver's options by their last word, truths as `true` and `false`. Raises InvalidArgument, and Unsupported
    for those that are not done: none is ignored."""
    result: dict[str, str] = {}
    for key, value in given.items():
        if driver in CHILDREN:
            name, checked = _child_option(driver, key, value)
        else:
            name, checked = _bridge_option(key, value)
        result[name] = checked
    return result


def _bridge_option(key: str, value: str) -> tuple[str, str]:
    name = "mtu" if key == _MTU else key.removeprefix(_BRIDGE) if key.startswith(_BRIDGE) else ""
    match name:
        case "name":
            if not _INTERFACE.fullmatch(value) or value in (".", ".."):
                raise InvalidArgument(f"invalid value for {key}: {value!r} is no interface's name")
        case "enable_icc" | "enable_ip_masquerade":
            if value.lower() not in (*_TRUE, *_FALSE):
                raise InvalidArgument(f"failed to parse {key} value: {value}")
            value = "true" if value.lower() in _TRUE else "false"
        case "host_binding_ipv4":
            try:
                value = str(IPv4Address(value))
            except ValueError:
                raise InvalidArgument(f"failed to parse {key} value: {value}: invalid address") from None
            value = "" if value == ANY_ADDRESS else value
        case "mtu":
            _check_mtu(key, value)
        case _:
            raise Unsupported(f"network option {key} is not supported")
    return name, value


def _child_option(driver: str, key: str, value: str) -> tuple[str, str]:
    if key == "parent":
        if not _INTERFACE.fullmatch(value):
            raise InvalidArgument(f"invalid value for {key}: {value!r} is no interface's name")
        return key, value
    if key == _MTU:
        _check_mtu(key, value)
        return "mtu", value
    modes: Iterable[str]
    match driver, key:
        case ("macvlan", "macvlan_mode"):
            name, modes = "mode", MACVLAN_MODES
        case ("ipvlan", "ipvlan_mode"):
            name, modes = "mode", IPVLAN_MODES
        case ("ipvlan", "ipvlan_flag"):
            name, modes = "flag", IPVLAN_FLAGS
        case _:
            raise Unsupported(f"network option {key} is not supported")
    if value not in modes:
        raise InvalidArgument(f'requested {key} "{value}" is not valid: one of {", ".join(modes)} is')
    return name, value


def _check_mtu(key: str, value: str) -> None:
    if not (value.isascii() and value.isdigit()) or not 68 <= int(value) <= 65535:
        raise InvalidArgument(f"failed to parse {key} value: {value}")
