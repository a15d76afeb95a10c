"""Address management of one subnet: who may have which address next.

Round robin, as Docker does it: an address that was given back is not given out again before all others have been, so
that neither a neighbour's ARP cache nor a connection of the former owner meets the new one. What is allocated is in the
database, one row an endpoint; this is the index over those rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from itertools import chain

from sampan.errors import Forbidden, InvalidArgument, ResourceExhausted


class AddressPool:
    """The host addresses of a subnet without its network and broadcast address. Not thread safe."""

    def __init__(
        self, subnet: IPv4Network | IPv6Network, taken: Iterable[int] = (), last: int = 0,
        within: IPv4Network | IPv6Network | None = None,
    ) -> None:  # fmt: skip
        """`taken`: the gateway's and what endpoints hold; `last`: the address that was given out last. All as
        numbers; those outside the subnet are ignored. `within`: the part that addresses are given out of."""
        self.subnet = subnet
        self._first = int(subnet.network_address) + 1
        self._end = int(subnet.broadcast_address)
        part = within or subnet
        self._from = max(self._first, int(part.network_address))
        self._to = min(self._end, int(part.broadcast_address) + 1)
        self._taken = {number for number in taken if self._first <= number < self._end}
        self._next = last + 1

    def allocate(self) -> int:
        """The next free address. Raises ResourceExhausted."""
        start = self._next if self._from <= self._next < self._to else self._from
        for number in chain(range(start, self._to), range(self._from, start)):
            if number not in self._taken:
                self._taken.add(number)
                self._next = number + 1
                return number
        kind = f"IPv{self.subnet.version}"
        raise ResourceExhausted(f"no available {kind} addresses on this network's address pools: {self.subnet}")

    def take(self, number: int) -> None:
        """One address in particular. Raises Forbidden if it is not free or not in the subnet."""
        if not self._first <= number < self._end or number in self._taken:
            raise Forbidden("Address already in use")
        self._taken.add(number)

    def release(self, number: int) -> None:
        """Give it back; no error if it was free."""
        self._taken.discard(number)

    def __contains__(self, number: int) -> bool:
        return number in self._taken

    def __len__(self) -> int:
        return len(self._taken)


def mac_address(number: int) -> bytes:
    """The hardware address that belongs to an IPv4 address: 02:42 and its four bytes. As it follows from the
    address, a neighbour's cache stays right when the address changes hands."""
    return b"\x02\x42" + number.to_bytes(4, "big")


def parse_mac(text: str) -> bytes:
    """The six bytes of a hardware address, in colon or hyphen form. Raises InvalidArgument, also for a group's."""
    try:
        mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1:  # The lowest bit of the first byte marks a group's address.
        raise InvalidArgument(f"invalid MAC address {text}")
    return mac
