"""The sockets that reserve a container's published ports, when these are changed while it runs."""

from __future__ import annotations

import os
import socket
import stat

_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", 132: "sctp"}


def place(descriptor: int) -> tuple[str, str, int] | None:
    """What the socket is bound to: protocol, address, port; None for what is no socket of IP."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    try:
        with socket.socket(fileno=os.dup(descriptor)) as bound:
            if bound.family not in (socket.AF_INET, socket.AF_INET6):
                return None
            address, port = bound.getsockname()[:2]
            return _PROTOCOLS.get(bound.proto, ""), address, port
    except OSError:
        return None


def release(held: list[int], places: tuple[tuple[str, str, int], ...]) -> None:
    """Close those that are bound to these places, and take them out of the list."""
    for descriptor in list(held):
        if place(descriptor) in places:
            held.remove(descriptor)
            os.close(descriptor)
