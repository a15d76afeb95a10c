"""The host's side of networks in the kernel: bridges, their ports, and whose addresses are whose."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Network, IPv6Network

from sampan.errors import Conflict, Unavailable
from sampan.linux.netlink import rtnl
from sampan.linux.netlink.socket import NETLINK_ROUTE, Netlink
from sampan.network import bridge
from sampan.network.definitions import Definition
from sampan.network.endpoints import Endpoint


class Links:
    """One NETLINK_ROUTE socket on the host, made by `open`. `lock` is held for the duration of an exchange. Raises
    OSError from the kernel, Unavailable before `open`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.namespace = -1
        """A descriptor of the host's network namespace."""
        self._socket: Netlink | None = None
        self._indexes: dict[str, int] = {}

    def open(self) -> None:
        """Idempotent."""
        with self.lock:
            if self._socket is None:
                self._socket = Netlink.open(NETLINK_ROUTE)
                self.namespace = self._socket.namespace()

    def close(self) -> None:
        with self.lock:
            if self._socket is not None:
                self._socket.close()
                os.close(self.namespace)
            self._socket, self.namespace = None, -1

    @property
    def _netlink(self) -> Netlink:
        if self._socket is None:
            raise Unavailable("the network is not set up")
        return self._socket

    def exists(self, name: str) -> bool:
        with self.lock:
            return rtnl.find_link(self._netlink, name) is not None

    def ensure(self, definition: Definition, ports: Collection[str]) -> None:
        """Make or mend the bridge, and put those of these ports back that lost it. Raises Conflict when the name is
        something else's."""
        with self.lock:
            index = bridge.ensure(
                self._netlink, definition.bridge, definition.interface, definition.mtu, definition.interface6
            )  # fmt: skip
            self._indexes[definition.bridge] = index
            if ports:
                for link in rtnl.links(self._netlink):
                    if link.name in ports and link.master != index:
                        self._make_port(definition, link.name, index)

    def intact(self, definition: Definition) -> bool:
        with self.lock:
            return bridge.intact(self._netlink, definition.bridge, self._indexes.get(definition.bridge, -1))

    def join(self, definition: Definition, name: str, repair: Callable[[], None]) -> None:
        """Make the link a port of the bridge; `repair` is called when there is no such bridge any more."""
        with self.lock:
            try:
                self._netlink.request(rtnl.without_ipv6(name=name))
                self._make_port(definition, name, self._indexes.get(definition.bridge, -1))
            except OSError:
                # The bridge has vanished, or another link has its index now.
                if self.intact(definition):
                    raise
                repair()

    def _make_port(self, definition: Definition, name: str, index: int) -> None:
        requests = [
            rtnl.set_link(name=name, up=True, master=index),
            # Where br_netfilter is active, a container that reaches its own published port is switched back to
            # itself, instead of being routed.
            rtnl.hairpin(name=name),
        ]
        if not definition.talking:
            # What a bridge switches meets our rules where br_netfilter shows it to them, which also switches what is
            # redirected to a port of the same bridge. Elsewhere the bridge itself must keep the ports apart.
            filtered = os.path.isdir("/proc/sys/net/bridge")
            requests.append(rtnl.filtered_bridge(index) if filtered else rtnl.isolated(name=name, on=True))
        self._netlink.request(*requests)

    def delete(self, name: str) -> None:
        """No error if it is gone."""
        with self.lock:
            self._indexes.pop(name, None)
            try:
                self._netlink.request(rtnl.delete_link(name=name))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise

    def delete_pairs(self, prefix: str, known: Collection[str]) -> None:
        """Interface pairs whose name begins so, but for the known ones."""
        with self.lock:
            for link in rtnl.links(self._netlink):
                if link.kind == "veth" and link.name.startswith(prefix) and link.name not in known:
                    self.delete(link.name)

    def used_subnets(self, own: Iterable[str]) -> list[IPv4Network]:
        """What the host has addresses and routes in, apart from these bridges."""
        with self.lock:
            return bridge.other_subnets(self._netlink, set(own))

    def used_subnets_6(self, own: Iterable[str]) -> list[IPv6Network]:
        with self.lock:
            return bridge.other_subnets_6(self._netlink, set(own))

    def add_child(self, definition: Definition, endpoint: Endpoint, namespace: int, index: int) -> None:
        """A link of the definition's parent, as the endpoint's interface in the namespace of the descriptor."""
        with self.lock:
            parent = rtnl.find_link(self._netlink, definition.parent)
            if parent is None and definition.bridge == definition.parent:
                self.add_dummy(definition.parent)
                parent = rtnl.find_link(self._netlink, definition.parent)
            if parent is None:
                raise OSError(errno.ENODEV, f"parent interface {definition.parent} is not there")
            self._netlink.request(
                rtnl.add_child(
                    endpoint.interface, kind=definition.driver, mode=definition.mode, flag=definition.flag,
                    parent=parent.index, namespace=namespace, index=index,
                    mac=bytes.fromhex(endpoint.mac.replace(":", "")), mtu=definition.mtu,
                )
            )  # fmt: skip

    def add_dummy(self, name: str) -> None:
        """A parent that leads nowhere."""
        with self.lock:
            self._netlink.request(rtnl.add_dummy(name))

    def check_free(self, subnet: IPv4Network | IPv6Network, own: Iterable[str], what: str) -> None:
        """Raises Conflict if an interface that is none of these bridges has an address of the subnet: the host would
        send what is meant for a container there."""
        with self.lock:
            if holder := bridge.other_holder(self._netlink, set(own), subnet):
                raise Conflict(f"{what}: interface {holder} has an address of that network")
