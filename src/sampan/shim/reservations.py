"""The sockets that reserve a container's published ports, when these are changed while it runs."""

from __future__ import annotations

import os
import socket

_KINDS = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}


def place(descriptor: int) -> tuple[str, str, int] | None:
    """What the socket is bound to: protocol, address, port; None for what is no socket of IPv4."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as bound:
            if bound.family != socket.AF_INET:
                return None
            address, port = bound.getsockname()
            return _KINDS.get(bound.type, ""), address, port
    except OSError:
        return None


def release(held: list[int], places: tuple[tuple[str, str, int], ...]) -> None:
    """Close those that are bound to these places, and take them out of the list."""
    for descriptor in list(held):
        if place(descriptor) in places:
            held.remove(descriptor)
            os.close(descriptor)
