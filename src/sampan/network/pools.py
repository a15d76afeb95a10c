"""Which subnet a new network gets: the first of the default pools that overlaps nothing which the host uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, IPv4Network

from sampan.errors import InvalidArgument, ResourceExhausted

# Docker's own, in its order: (range, prefix of the subnets cut from it). Docker has no more than these 31; the
# last two ranges are ours.
DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
    ("172.16.0.0/16", 24),
    ("10.192.0.0/12", 24),
)


def choose(used: Iterable[IPv4Network], pools: Sequence[tuple[str, int]] = DEFAULT_POOLS) -> IPv4Network:
    """The first free subnet. A default route among the used does not count: it overlaps everything.

    Raises ResourceExhausted when every pool is taken.
    """
    taken = [network for network in used if network.prefixlen]
    for pool, prefix in pools:
        for subnet in IPv4Network(pool).subnets(new_prefix=prefix):
            if not any(subnet.overlaps(network) for network in taken):
                return subnet
    raise ResourceExhausted("all predefined address pools have been fully subnetted")


def bridge_address(text: str) -> IPv4Interface:
    """dockerd's --bip: the bridge's own address with the prefix of its network. Raises InvalidArgument."""
    try:
        interface = IPv4Interface(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid bridge address {text!r}: {error}") from None
    network = interface.network
    if (
        "/" not in text
        or network.prefixlen > 30
        or interface.ip in (network.network_address, network.broadcast_address)
    ):
        raise InvalidArgument(f"invalid bridge address {text!r}: not a host's address with the prefix of its network")
    return interface
