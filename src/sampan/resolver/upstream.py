"""The servers that other names are asked of: those of the host, as its resolv.conf says at the moment, or a sandbox's
own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sampan.resolver import message

PORT = 53
_RESOLV_CONF = "/etc/resolv.conf"

Open = Callable[[int, int], socket.socket]
"""A new socket of this family and kind."""


class Server(NamedTuple):
    """`port` is another one in tests alone."""

    address: str
    port: int = PORT


class HostServers:
    """Read again whenever the file has changed: by editing, by another file in its place, or by a link to another."""

    def __init__(self, path: str = _RESOLV_CONF, port: int = PORT) -> None:
        self._path = path
        self._port = port
        self._seen: tuple[int, int, int] | None = None
        self._servers: tuple[Server, ...] = ()

    def current(self) -> tuple[Server, ...]:
        """In the file's order."""
        try:
            found = os.stat(self._path)
            seen = found.st_ino, found.st_mtime_ns, found.st_size
            if seen != self._seen:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = tuple(Server(each, self._port) for each in parse(file.read()))
                self._seen = seen
        except OSError:
            return self._servers  # It is being replaced right now, or gone: the last word counts.
        return self._servers


def parse(text: str) -> tuple[str, ...]:
    """The name servers of a resolv.conf."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) > 1 and words[0] == "nameserver":
            found.append(words[1])
    return tuple(found)


def on_host(family: int, kind: int) -> socket.socket:
    """Where this process is."""
    return socket.socket(family, kind | socket.SOCK_CLOEXEC)


def connect(server: Server, kind: socket.SocketKind, opened: Open, timeout: float = 0) -> socket.socket:
    """A socket to the server: from a port of its own, so that nobody can guess where an answer is awaited. 0: it does
    not block. Raises OSError."""
    # As bytes: for a string the codec of international names would be imported, which nobody may read.
    family, _, _, _, address = socket.getaddrinfo(
        server.address.encode(), server.port, type=kind, flags=socket.AI_NUMERICHOST
    )[0]  # fmt: skip
    made = opened(family, kind)
    try:
        made.settimeout(timeout)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def ask_by_stream(servers: Sequence[Server], data: bytes, opened: Open, timeout: float) -> bytes | None:
    """The first answer over TCP, if possible one that is no failure; None: nobody gives any. Blocks."""
    failure: bytes | None = None
    for server in servers:
        try:
            with connect(server, socket.SOCK_STREAM, opened, timeout) as asking:
                asking.sendall(len(data).to_bytes(2, "big") + data)
                said = read_message(asking)
        except OSError:
            continue
        if len(said) >= message.SHORTEST and not message.failed(said):
            return said
        failure = said
    return failure


def read_message(connection: socket.socket) -> bytes:
    """One message with its length before it. Raises OSError, also at the end of the stream."""
    length = int.from_bytes(_exactly(connection, 2), "big")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the stream has ended")
        data += more
    return data
