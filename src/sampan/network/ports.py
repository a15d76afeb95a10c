"""Host ports: which are taken, which to choose, and how one is reserved.

A host port is reserved by a socket that is bound and nothing more: published connections are redirected before they
would reach any socket. For TCP it is bound without SO_REUSEADDR and does not listen. That makes the kernel tell
everything that must be known, in both directions:

- a foreign program that listens on the port (on the same address or on all, IPv6 wildcard included): our bind fails;
- a foreign program that wants the port later: its bind fails, with SO_REUSEADDR as well, for both sockets would need
  it;
- another engine on this machine: the same;
- nothing is accepted that nobody would serve: were the rules flushed, a client is refused instead of hanging.

Only the kernel's own memory of closed connections (TIME_WAIT) and the living children of a listener that is gone
stand in such a bind's way without anyone holding the port. Then the socket binds with SO_REUSEADDR, listens for a
moment, which fails if anyone else holds the port after all, and goes back to being merely bound (shutdown of a
listening socket keeps its port), SO_REUSEADDR off again.

Conflicts between our own containers are found in the table below before any socket is made, as they need Docker's
wording.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from itertools import chain

from sampan.errors import InvalidArgument, ResourceExhausted
from sampan.network.endpoints import PortRequest
from sampan.network.firewall import ANY_ADDRESS, ANY_ADDRESS_6, PROTOCOLS

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_FALLBACK_RANGE = (49153, 65535)  # Docker's, where the kernel does not tell.


def parse_range(text: str, what: str = "port") -> tuple[int, int]:
    """`80` or `8000-8010`; empty is 0 to 0. Raises InvalidArgument."""
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    try:
        start = _port(first)
        end = _port(last) if dash else start
    except ValueError:
        raise InvalidArgument(f"invalid {what}: {text!r}") from None
    if end < start:
        raise InvalidArgument(f"invalid {what}: {text!r}: the range ends before it begins")
    return start, end


def _port(text: str) -> int:
    # int() would take blanks, signs, underscores and other scripts' digits too.
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def request(container_port: str, host_ip: str = "", host_port: str = "") -> PortRequest:
    """From the API's PortBindings: `80/tcp`, an address or nothing, and `8080`, `8000-8010` or nothing.

    Raises InvalidArgument.
    """
    number, slash, protocol = container_port.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    port, last = parse_range(number, "containerPort")
    if port == 0 or last != port:
        raise InvalidArgument(f"invalid containerPort: {container_port!r}")
    host_address = ""
    if host_ip:
        try:
            address = ip_address(host_ip)
        except ValueError:
            raise InvalidArgument(f"invalid IP address: {host_ip}") from None
        host_address = str(address)
    first, last = parse_range(host_port, "hostPort")
    return PortRequest(
        container_port=port, protocol=protocol, host_ip=host_address, host_port_first=first, host_port_last=last
    )


def ephemeral_range() -> tuple[int, int]:
    """The first and last port that the host gives to whoever does not care."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", "rb", buffering=0) as file:
            first, last = map(int, file.read(64).split())
    except (OSError, ValueError):
        return _FALLBACK_RANGE
    return (first, last) if 0 < first <= last < 65536 else _FALLBACK_RANGE


def reserve(protocol: str, host_ip: str, port: int) -> int | None:
    """A descriptor of a socket bound to the port; None where the kernel does not know the protocol, so that
    nobody else can have the port either. OSError: EADDRINUSE, EADDRNOTAVAIL."""
    try:
        family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
        fd = socket.socket(family, _KINDS[protocol] | socket.SOCK_CLOEXEC, PROTOCOLS[protocol])
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            fd.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            fd.bind((host_ip, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or protocol != "tcp":
                raise
            fd.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            fd.bind((host_ip, port))
            fd.listen(0)
            fd.shutdown(socket.SHUT_RDWR)
            fd.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        if protocol == "udp":
            # Nobody reads from it; what arrives while no rule redirects shall not take up memory.
            fd.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
    except BaseException:
        fd.close()
        raise
    return fd.detach()


class PortTable:
    """The host ports that our endpoints hold. Not thread safe."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], set[str]] = {}
        self._last = 0

    def add(self, protocol: str, host_ip: str, port: int) -> None:
        self._taken.setdefault((protocol, port), set()).add(host_ip)

    def remove(self, protocol: str, host_ip: str, port: int) -> None:
        addresses = self._taken.get((protocol, port))
        if addresses is not None:
            addresses.discard(host_ip)
            if not addresses:
                del self._taken[protocol, port]

    def conflicts(self, protocol: str, host_ip: str, port: int) -> bool:
        """Whether an endpoint holds the port on this address, on all of its family, or on any if this is all."""
        version = ":" in host_ip
        addresses = {each for each in self._taken.get((protocol, port), ()) if (":" in each) == version}
        anywhere = ANY_ADDRESS_6 if version else ANY_ADDRESS
        return bool(addresses) and (host_ip == anywhere or host_ip in addresses or anywhere in addresses)

    def choose(self, wanted: PortRequest, ip: str, addresses: Sequence[str] = ()) -> tuple[int, tuple[int, ...]]:
        """A host port for the request and its reservations; the port is entered in the table.

        `ip`: the container's, for the message. `addresses`: the host's, all to have the same port, if the request names
        none. Raises ResourceExhausted with Docker's words.
        """
        addresses = (wanted.host_ip,) if wanted.host_ip else addresses or (ANY_ADDRESS,)
        if wanted.host_port_first and wanted.host_port_first == wanted.host_port_last:
            port = wanted.host_port_first
            for host_ip in addresses:
                if self.conflicts(wanted.protocol, host_ip, port):
                    raise ResourceExhausted(f"Bind for {host_ip}:{port} failed: port is already allocated")
            try:
                return port, self._take(wanted.protocol, addresses, port)
            except OSError as error:
                raise _refused(error, wanted, addresses[0], str(port), ip) from None
        first, last = wanted.host_port_first, wanted.host_port_last
        if not first:
            first, last = ephemeral_range()
            start = self._last + 1 if first <= self._last < last else first
        else:
            start = first
        failure: OSError | None = None
        for port in chain(range(start, last + 1), range(first, start)):
            if any(self.conflicts(wanted.protocol, host_ip, port) for host_ip in addresses):
                continue
            try:
                reserved = self._take(wanted.protocol, addresses, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise _refused(error, wanted, addresses[0], str(port), ip) from None
                failure = error
                continue
            if not wanted.host_port_first:
                self._last = port
            return port, reserved
        if failure is not None:
            raise _refused(failure, wanted, addresses[0], f"{first}-{last}", ip)
        raise ResourceExhausted("all ports are allocated")

    def _take(self, protocol: str, addresses: Sequence[str], port: int) -> tuple[int, ...]:
        reserved: list[int] = []
        try:
            for host_ip in addresses:
                made = reserve(protocol, host_ip, port)
                reserved += [] if made is None else [made]
        except BaseException:
            close_all(reserved)
            raise
        for host_ip in addresses:
            self.add(protocol, host_ip, port)
        return tuple(reserved)


def _refused(error: OSError, wanted: PortRequest, host_ip: str, port: str, ip: str) -> ResourceExhausted:
    reason = os.strerror(error.errno or 0).lower()
    target = f"{ip}:{wanted.container_port}/{wanted.protocol}"
    return ResourceExhausted(f"failed to bind host port for {host_ip}:{port}:{target}: {reason}")


def close_all(descriptors: Iterable[int]) -> None:
    """Close reservations."""
    for fd in descriptors:
        os.close(fd)
