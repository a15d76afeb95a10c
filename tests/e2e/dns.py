"""DNS spoken by the tests themselves, in any network namespace: questions over UDP and TCP, and a server."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator

from sampan.linux import namespaces

A, PTR, AAAA = 1, 12, 28


def inside(path: str, kind: socket.SocketKind) -> socket.socket:
    """A socket in the network namespace that is pinned there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(path, os.O_RDONLY)
    try:
        namespaces.setns(there, namespaces.CLONE_NEWNET)
        made = socket.socket(socket.AF_INET, kind)
        made.settimeout(10)
        return made
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(there)
        os.close(home)


def question(name: str, kind: int = A, number: int = 7) -> bytes:
    labels = b"".join(bytes((len(each),)) + each.encode() for each in name.split("."))
    return struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


class Answer:
    """The head of an answer, and the data of its records, which have the question's name."""

    def __init__(self, data: bytes) -> None:
        self.number, flags, _, count, _, _ = struct.unpack_from(">HHHHHH", data)
        self.code, self.truncated = flags & 15, bool(flags & 0x200)
        at = data.index(b"\0", 12) + 5
        self.records: list[bytes] = []
        for _ in range(count):
            size = struct.unpack_from(">HHHIH", data, at)[4]
            self.records.append(data[at + 12 : at + 12 + size])
            at += 12 + size

    @property
    def addresses(self) -> list[str]:
        return sorted(socket.inet_ntop(socket.AF_INET if len(e) == 4 else socket.AF_INET6, e) for e in self.records)


def ask(path: str, name: str, kind: int = A, *, stream: bool = False, server: str = "127.0.0.11") -> Answer:
    """From within the namespace."""
    data = question(name, kind)
    with inside(path, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as asking:
        asking.connect((server, 53))
        if not stream:
            asking.send(data)
            return Answer(asking.recv(65535))
        asking.sendall(len(data).to_bytes(2, "big") + data)
        with asking.makefile("rb") as answers:
            return Answer(answers.read(int.from_bytes(answers.read(2), "big")))


def _reply(data: bytes, known: dict[str, str], asked: list[str], *, stream: bool) -> bytes:
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    name = ".".join(labels)
    asked.append(name)
    address = known.get(name)
    flags = 0x8180 if address else 0x8183
    if address and name.startswith("long") and not stream:
        flags, address = flags | 0x200, None  # It says that it does not fit.
    if int.from_bytes(data[at + 1 : at + 3], "big") != A:
        address = None
    record = struct.pack(">HHHIH", 0xC00C, A, 1, 5, 4) + socket.inet_aton(address) if address else b""
    head = struct.pack(">HHHHHH", int.from_bytes(data[:2], "big"), flags, 1, int(bool(address)), 0, 0)
    return head + data[12 : at + 5] + record


@contextlib.contextmanager
def server(
    address: tuple[str, int], known: dict[str, str], datagrams: socket.socket, streams: socket.socket | None = None
) -> Iterator[list[str]]:
    """Answer on unbound sockets, which are closed at the end; gives the names that were asked for, to come."""
    asked: list[str] = []
    datagrams.settimeout(None)
    datagrams.bind(address)
    if streams is not None:
        streams.settimeout(None)
        streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        streams.bind(address)
        streams.listen()

    def by_datagram() -> None:
        while True:
            data, client = datagrams.recvfrom(65535)
            if not data:
                return
            datagrams.sendto(_reply(data, known, asked, stream=False), client)

    def by_stream() -> None:
        assert streams is not None
        with contextlib.suppress(OSError):
            while True:
                connection = streams.accept()[0]
                with connection, connection.makefile("rb") as questions:
                    data = questions.read(int.from_bytes(questions.read(2), "big"))
                    said = _reply(data, known, asked, stream=True)
                    connection.sendall(len(said).to_bytes(2, "big") + said)

    threads = [threading.Thread(target=by_datagram, daemon=True)]
    if streams is not None:
        threads.append(threading.Thread(target=by_stream, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        datagrams.sendto(b"", datagrams.getsockname())  # Nobody but it hears of a close.
        if streams is not None:
            streams.shutdown(socket.SHUT_RDWR)
            streams.close()
        for thread in threads:
            thread.join(10)
        datagrams.close()
