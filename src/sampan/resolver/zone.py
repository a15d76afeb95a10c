"""The names of containers on user-defined networks, and what a sandbox may know of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from random import shuffle

from sampan.resolver import message
from sampan.resolver.control import Place, Serve
from sampan.resolver.message import Query

_ANY = 255


class Zone:
    """By network: names with the addresses of each sandbox, and addresses with a name. Read by several threads, changed
    by one."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Place, ...]] = {}
        self._names: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
        self._pointers: dict[str, dict[str, str]] = {}

    def put(self, sandbox: str, places: tuple[Place, ...]) -> None:
        """Instead of what was known of it."""
        self.remove(sandbox)
        self._places[sandbox] = places
        for network, addresses, names in ((each.network, each.addresses, each.names) for each in places):
            known = self._names.setdefault(network, {})
            for name in names:
                known.setdefault(_plain(name), {})[sandbox] = addresses
            for address in addresses:
                self._pointers.setdefault(network, {})[address] = f"{names[0]}.{network}" if names else ""

    def remove(self, sandbox: str) -> None:
        """No error if it is not known."""
        for place in self._places.pop(sandbox, ()):
            known = self._names.get(place.network, {})
            for name in map(_plain, place.names):
                holders = known.get(name, {})
                holders.pop(sandbox, None)
                if not holders:
                    known.pop(name, None)
            pointers = self._pointers.get(place.network, {})
            for address in place.addresses:
                # It may be another one's by now.
                if pointers.get(address, "") == (f"{place.names[0]}.{place.network}" if place.names else ""):
                    pointers.pop(address, None)
            if not known:
                self._names.pop(place.network, None)
            if not pointers:
                self._pointers.pop(place.network, None)

    def addresses(self, networks: Iterable[str], name: str) -> list[str] | None:
        """Of a name on the first of these networks that knows it; None: none does. Each name is known with the
        network's name behind it too."""
        for network in networks:
            known = self._names.get(network, {})
            found = known.get(name)
            if found is None and name.endswith(suffix := f".{network.lower()}"):
                found = known.get(name.removesuffix(suffix))
            if found is not None:
                return [address for addresses in list(found.values()) for address in addresses]
        return None

    def pointer(self, networks: Iterable[str], address: str) -> str:
        """The name of an address; empty if none is known."""
        return next((found for each in networks if (found := self._pointers.get(each, {}).get(address, ""))), "")


def _plain(name: str) -> str:
    return name.lower().rstrip(".")


def answer(zone: Zone, serve: Serve, query: Query, *, stream: bool = False) -> bytes | None:
    """To the question of a sandbox about a container's name or address; None: others have to be asked.

    A name that is known has an answer, if an empty one, to whatever is asked about it: were AAAA passed on, the answer
    would be that there is no such name, which asking libraries take for an answer to A too.
    """
    networks = [each.network for each in serve.places]
    if query.of_class not in (message.IN, message.ANY_CLASS):
        return None
    if address := message.pointed_at(query.name):
        name = zone.pointer(networks, address)
        if not name:
            return None
        records = [(message.PTR, message.encode_name(name))] if query.kind in (message.PTR, _ANY) else []
        return message.reply(query, records, stream=stream)
    found = zone.addresses(networks, query.name)
    if found is None and query.name in serve.links:
        found = zone.addresses(networks, _plain(serve.links[query.name]))
    if found is None:
        return None
    shuffle(found)  # What many have in common is shared among them.
    packed = [ip_address(each).packed for each in found]
    records = [(message.A if len(each) == 4 else message.AAAA, each) for each in packed]
    return message.reply(query, [each for each in records if query.kind in (each[0], _ANY)], stream=stream)
