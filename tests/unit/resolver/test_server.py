"""The resolver's loop, in a thread, with servers on loopback in the place of the host's."""

from __future__ import annotations

import os
import pathlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest

from sampan.resolver import control
from sampan.resolver.opener import Opener
from sampan.resolver.server import Server
from sampan.resolver.upstream import HostServers, parse
from tests.e2e import dns
from tests.e2e.dns import Answer, question


class _Here:
    """Opens where it is asked."""

    def open(self, namespace: int, family: int, kind: int) -> socket.socket:
        assert os.fstat(namespace)
        return socket.socket(family, kind)


def bound(kind: socket.SocketKind, address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind((address, port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


class Lab:
    """`resolv_conf`: the host's. `port`: that of all servers."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.resolv_conf = directory / "resolv.conf"
        with bound(socket.SOCK_DGRAM) as probe:
            self.port = probe.getsockname()[1]
        self._path = str(directory / "names.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self._path)
        self.listener.listen()
        server = Server(self.listener, cast(Opener, _Here()), HostServers(str(self.resolv_conf), self.port))
        self.thread = threading.Thread(target=server.run, daemon=True)
        self.thread.start()
        self.places: dict[str, tuple[str, int]] = {}
        self.lives: dict[str, socket.socket] = {}
        self.connection = self.connect()

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(10)
        made.connect(self._path)
        received = control.receive(made)
        assert received is not None
        self.serving = cast(control.Serving, received[0]).sandboxes
        return made

    def serve(self, serve: control.Serve) -> None:
        """With sockets of its own."""
        life, its = socket.socketpair()
        with bound(socket.SOCK_DGRAM) as datagrams, bound(socket.SOCK_STREAM) as streams, its:
            self.places[serve.sandbox] = datagrams.getsockname()
            self.places[f"{serve.sandbox} stream"] = streams.getsockname()
            self.lives[serve.sandbox] = life
            space = os.open("/proc/self/ns/net", os.O_RDONLY)
            control.send(self.connection, serve, [datagrams.fileno(), streams.fileno(), space, its.fileno()])
            os.close(space)

    def ask(self, sandbox: str, name: str, *, stream: bool = False) -> Answer:
        data = question(name)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as asking:
            asking.settimeout(20)
            asking.connect(self.places[f"{sandbox} stream" if stream else sandbox])
            if not stream:
                asking.send(data)
                return Answer(asking.recv(65535))
            asking.sendall(len(data).to_bytes(2, "big") + data)
            with asking.makefile("rb") as answers:
                return Answer(answers.read(int.from_bytes(answers.read(2), "big")))


@pytest.fixture
def lab(short_dir: pathlib.Path) -> Iterator[Lab]:
    made = Lab(short_dir)
    try:
        yield made
    finally:
        made.connection.close()
        for each in made.lives.values():
            each.close()
        made.thread.join(20)
        made.listener.close()
        assert not made.thread.is_alive()


def place(address: str, *names: str) -> tuple[control.Place, ...]:
    return (control.Place("mine", (address,), names),)


def test_the_hosts_servers_one_after_the_other_and_as_they_change(lab: Lab) -> None:
    lab.serve(control.Serve(sandbox="a", places=place("10.0.0.2", "one")))
    assert lab.ask("a", "out.example").code == 2  # There is no file.
    # The first is not there, and the second does not know.
    lab.resolv_conf.write_text("nameserver 127.0.0.66\nnameserver 127.0.0.67 # the other\n")
    with ExitStack() as servers:

        def server(address: str, known: dict[str, str]) -> list[str]:
            kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            sockets = [socket.socket(socket.AF_INET, each) for each in kinds]
            return servers.enter_context(dns.server((address, lab.port), known, *sockets))

        asked = server("127.0.0.67", {"out.example": "192.0.2.1", "long.example": "192.0.2.2"})
        for stream in (False, True):
            assert lab.ask("a", "out.example", stream=stream).addresses == ["192.0.2.1"]
            assert lab.ask("a", "one", stream=stream).addresses == ["10.0.0.2"]
            assert lab.ask("a", "nobody.example", stream=stream).code == 3
        assert lab.ask("a", "long.example").truncated
        assert lab.ask("a", "long.example", stream=True).addresses == ["192.0.2.2"]
        assert "one" not in asked
        server("127.0.0.68", {"out.example": "192.0.2.3"})
        lab.resolv_conf.with_name("new").write_text("nameserver 127.0.0.68\n")
        os.rename(lab.resolv_conf.with_name("new"), lab.resolv_conf)
        assert lab.ask("a", "out.example").addresses == ["192.0.2.3"]
        # Nothing is asked for a sandbox from which nothing leads out, and its own servers go before the host's.
        lab.serve(control.Serve(sandbox="b", places=place("10.0.0.3", "two"), forward=False))
        assert lab.ask("b", "out.example").code == 2
        assert lab.ask("b", "one").addresses == ["10.0.0.2"]


def test_changes_and_ends(lab: Lab) -> None:
    for name, address in (("a", "10.0.0.2"), ("b", "10.0.0.3"), ("c", "10.0.0.4")):
        lab.serve(control.Serve(sandbox=name, places=place(address, name), forward=False))
    assert lab.ask("a", "b").addresses == ["10.0.0.3"]
    control.send(lab.connection, control.Serve(sandbox="b", places=place("10.0.0.9", "bb"), forward=False))
    assert lab.ask("a", "b").code == 2
    assert lab.ask("a", "bb").addresses == lab.ask("b", "bb").addresses == ["10.0.0.9"]
    # The next engine hears who is served, and says who still is.
    lab.connection.close()
    lab.connection = lab.connect()
    assert set(lab.serving) == {"a", "b", "c"}
    control.send(lab.connection, control.Settle(sandboxes=("a", "c")))
    assert lab.ask("a", "bb").code == 2
    # While an engine is there, it is the one to say so; while none is, a shim that has ended is enough.
    lab.lives["c"].close()
    assert lab.ask("a", "c").addresses == ["10.0.0.4"]
    lab.connection.close()
    while lab.ask("a", "c").addresses:
        pass
    assert lab.thread.is_alive()


def test_a_resolv_conf() -> None:
    text = "# nameserver 1.1.1.1\nnameserver 10.0.0.1 # x\n;\nsearch a\nnameserver\n nameserver fe80::1%eth0\n"
    assert parse(text) == ("10.0.0.1", "fe80::1%eth0")
