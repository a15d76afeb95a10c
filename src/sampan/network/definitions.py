"""What a user-defined bridge network is made of, and how a request for one is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError

import msgspec

from sampan.errors import Forbidden, InvalidArgument, NotFound, Unsupported
from sampan.network import pools
from sampan.network.endpoints import PREDEFINED
from sampan.network.firewall import ANY_ADDRESS, Segment

_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_BRIDGE = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_LATER = ("macvlan", "ipvlan", "overlay")


class NetworkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A network as asked for; `reserved`: addresses that no container gets, by a name of the user's."""

    name: str
    driver: str = "bridge"
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    reserved: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bridge network as it is kept. `address`: the bridge's, with the subnet's prefix. `host_ip`: where its ports are
    published if the request does not say."""

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

    @property
    def interface(self) -> IPv4Interface:
        return IPv4Interface(self.address)

    @property
    def subnet(self) -> IPv4Network:
        return self.interface.network

    @property
    def segment(self) -> Segment:
        """As the rules see it."""
        return Segment(self.bridge, self.subnet, self.talking, self.internal, self.masquerade)

    @property
    def kept_back(self) -> list[int]:
        """The addresses that containers don't get, as numbers."""
        return [int(self.interface.ip), *(int(IPv4Address(each)) for each in self.reserved.values())]


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
    if request.driver in _LATER:
        raise Unsupported(f"network driver {request.driver} is not supported")
    if request.driver != "bridge":
        raise NotFound(
            f'could not find plugin {request.driver} in v1 plugin registry: plugin "{request.driver}" not found'
        )
    _options(request.options)
    addresses(request)


def addresses(request: NetworkRequest) -> IPv4Interface | None:
    """The bridge's address that was asked for; None: any subnet will do. Raises InvalidArgument."""
    if not request.subnet:
        if request.ip_range or request.gateway or request.reserved:
            raise _bad("no subnet is given for the gateway, range or addresses")
        return None
    try:
        subnet = IPv4Network(request.subnet)
    except (AddressValueError, NetmaskValueError):
        if ":" in request.subnet:
            raise Unsupported(f"subnet {request.subnet}: IPv6 is not supported") from None
        raise InvalidArgument(
            f"invalid network config: invalid subnet {request.subnet}: invalid CIDR block notation"
        ) from None
    except ValueError:
        wanted = IPv4Network(request.subnet, strict=False)
        raise InvalidArgument(
            f"invalid network config: invalid subnet {request.subnet}: it should be {wanted}"
        ) from None
    if subnet.prefixlen > 30:
        raise InvalidArgument(
            f"invalid network config: invalid subnet {request.subnet}: it has no room for a container"
        )
    if request.ip_range:
        _part(request.ip_range, subnet)
    gateway = _member(request.gateway, subnet, "gateway") if request.gateway else IPv4Address(int(subnet[0]) + 1)
    for text in request.reserved.values():
        _member(text, subnet, "auxiliary address")
    return IPv4Interface((int(gateway), subnet.prefixlen))


def _bad(what: str) -> InvalidArgument:
    return InvalidArgument(f"invalid network config: {what}")


def _part(text: str, subnet: IPv4Network) -> None:
    try:
        part = IPv4Network(text, strict=False)
    except ValueError:
        raise _bad(f"invalid ip-range {text}: invalid CIDR block notation") from None
    if not part.subnet_of(subnet):
        raise InvalidArgument(
            f"invalid network config: invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"
        )


def _member(text: str, subnet: IPv4Network, what: str) -> IPv4Address:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise _bad(f"invalid {what} {text}: invalid address") from None
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArgument(
            f"invalid network config: invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
        )
    return address


def define(
    request: NetworkRequest, network_id: str, own: Iterable[Definition], used: Sequence[IPv4Network], mtu: int
) -> Definition:
    """The network for a request that `check` has passed. `own`: the networks that there are; `used`: what else on this
    host has a route. Raises Forbidden for an overlap, ResourceExhausted when no pool is free."""
    others = list(own)
    wanted = addresses(request)
    if wanted is None:
        subnet = pools.choose([*used, *(each.subnet for each in others)])
        wanted = IPv4Interface((int(subnet[0]) + 1, subnet.prefixlen))
    elif any(each.subnet.overlaps(wanted.network) for each in others):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    options = _options(request.options)
    bridge = options.get("name") or f"br-{network_id[:12]}"
    if any(each.bridge == bridge for each in others):
        raise Forbidden(f"networks have same bridge name: {bridge}")
    return Definition(
        bridge=bridge, address=str(wanted), configured=bool(request.subnet), ip_range=request.ip_range,
        reserved=request.reserved, internal=request.internal, attachable=request.attachable,
        talking=options.get("enable_icc", "true") == "true",
        masquerade=options.get("enable_ip_masquerade", "true") == "true",
        host_ip=options.get("host_binding_ipv4", ""), mtu=int(options.get("mtu", "") or mtu), labels=request.labels,
        options=request.options,
    )  # fmt: skip


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


def _options(given: dict[str, str]) -> dict[str, str]:
    """The bridge driver's options by their last word, truths as `true` and `false`. Raises InvalidArgument, and
    Unsupported for those that are not done: none is ignored."""
    result: dict[str, str] = {}
    for key, value in given.items():
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
                if not value.isdigit() or not 68 <= int(value) <= 65535:
                    raise InvalidArgument(f"failed to parse {key} value: {value}")
            case _:
                raise Unsupported(f"network option {key} is not supported")
        result[name] = value
    return result
