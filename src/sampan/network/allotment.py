"""Which addresses of which network are given out: an index over the endpoints' rows."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address, ip_network

import msgspec

from sampan.network.addresses import AddressPool, mac_address
from sampan.network.definitions import Definition
from sampan.network.endpoints import Endpoint
from sampan.network.firewall import FAMILIES, family_of


class Allotment:
    """Not thread safe."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int], AddressPool] = {}

    def take(
        self, network_id: str, definition: Definition, held: Iterable[Endpoint], last: int, ip: str, ip6: str
    ) -> tuple[str, str]:
        """An address of each family that the network has: these if they are not empty. `held`: the network's endpoints;
        `last`: the IPv4 address that was given out last. Raises ResourceExhausted, Forbidden for one in use."""
        if (network_id, FAMILIES[0]) not in self._pools:
            self._open(network_id, definition, list(held), last)
        given: list[tuple[AddressPool, int]] = []
        try:
            for family, wanted in zip(FAMILIES, (ip, ip6), strict=True):
                pool = self._pools.get((network_id, family))
                if pool is not None:
                    given.append((pool, _one(pool, wanted)))
        except BaseException:
            for pool, number in given:
                pool.release(number)
            raise
        found = [str(pool.subnet.network_address.__class__(number)) for pool, number in given]
        return found[0], found[1] if len(found) > 1 else ""

    def _open(self, network_id: str, definition: Definition, held: list[Endpoint], last: int) -> None:
        within = ip_network(definition.ip_range, strict=False) if definition.ip_range else None
        taken = [*definition.kept_back, *(int(ip_address(each.ip)) for each in held if each.ip)]
        self._pools[network_id, FAMILIES[0]] = AddressPool(definition.subnet, taken, last, within)
        if definition.subnet6 is not None:
            within = ip_network(definition.ip_range6, strict=False) if definition.ip_range6 else None
            taken = [*definition.kept_back6, *(int(ip_address(each.ip6)) for each in held if each.ip6)]
            self._pools[network_id, FAMILIES[1]] = AddressPool(definition.subnet6, taken, 0, within)

    def give_back(self, network_id: str, addresses: Iterable[str]) -> None:
        """No error if they were free."""
        for address in addresses:
            pool = self._pools.get((network_id, family_of(address)))
            if pool is not None:
                pool.release(int(ip_address(address)))

    def forget(self, network_id: str) -> None:
        """The network is gone, or has other addresses now."""
        for family in FAMILIES:
            self._pools.pop((network_id, family), None)


def _one(pool: AddressPool, wanted: str) -> int:
    if not wanted:
        return pool.allocate()
    number = int(ip_address(wanted))
    pool.take(number)
    return number


def placed(endpoint: Endpoint, definition: Definition, ip: str, ip6: str, mac: bytes) -> Endpoint:
    """With its addresses and what follows from them."""
    gateway, gateway6 = definition.gateways
    return msgspec.structs.replace(
        endpoint, ip=ip, prefix=definition.subnet.prefixlen, gateway=gateway,
        mac=(mac or mac_address(int(IPv4Address(ip)))).hex(":"), driver=definition.driver, ip6=ip6,
        prefix6=definition.subnet6.prefixlen if definition.subnet6 else 0, gateway6=gateway6,
    )  # fmt: skip
