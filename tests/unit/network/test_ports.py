from __future__ import annotations

import os
import socket

import pytest

from sampan.errors import InvalidArgument, ResourceExhausted
from sampan.network import ports
from sampan.network.endpoints import PortRequest
from sampan.network.ports import PortTable


def test_requests_as_the_api_writes_them() -> None:
    assert ports.request("80/tcp") == PortRequest(container_port=80)
    assert ports.request("53/UDP", "127.0.0.1", "5353") == PortRequest(
        container_port=53, protocol="udp", host_ip="127.0.0.1", host_port_first=5353, host_port_last=5353
    )
    assert ports.request("80", "", "8000-8010") == PortRequest(
        container_port=80, host_port_first=8000, host_port_last=8010
    )


@pytest.mark.parametrize(
    ("container", "ip", "host"),
    [
        ("0/tcp", "", ""),
        ("80-90/tcp", "", ""),
        ("80/icmp", "", ""),
        ("/tcp", "", ""),
        ("80/tcp", "", "65536"),
        ("80/tcp", "", "90-80"),
        ("80/tcp", "", " 80"),
        ("80/tcp", "", "٨٠"),
        ("80/tcp", "", "-80"),
        ("80/tcp", "1.2.3", ""),
        ("80/tcp", "localhost", ""),
    ],
)
def test_bad_requests(container: str, ip: str, host: str) -> None:
    with pytest.raises(InvalidArgument):
        ports.request(container, ip, host)


def test_addresses_of_ipv6() -> None:
    assert ports.request("80/tcp", "::1", "80").host_ip == "::1"
    table = PortTable()
    table.add("tcp", "0.0.0.0", 9000)
    assert table.conflicts("tcp", "127.0.0.1", 9000)
    assert not table.conflicts("tcp", "::", 9000)
    table.add("tcp", "::1", 9000)
    assert table.conflicts("tcp", "::", 9000)
    assert not table.conflicts("tcp", "fd00::1", 9000)


def test_the_same_port_of_both_families() -> None:
    table = PortTable()
    either = PortRequest(container_port=80)
    port, reserved = table.choose(either, "172.17.0.2", ("0.0.0.0", "::"))
    try:
        assert len(reserved) == 2
        assert table.conflicts("tcp", "::1", port)
        with socket.socket(socket.AF_INET6) as foreign, pytest.raises(OSError, match="Address already in use"):
            foreign.bind(("::1", port))
        with socket.socket(socket.AF_INET6) as foreign:
            # A port that is free on one of them alone is not taken.
            foreign.bind(("::1", 0))
            held = foreign.getsockname()[1]
            with pytest.raises(ResourceExhausted, match="failed to bind host port"):
                table.choose(
                    PortRequest(container_port=80, host_port_first=held, host_port_last=held), "", ("0.0.0.0", "::")
                )
            with socket.socket() as free:
                free.bind(("0.0.0.0", held))
    finally:
        ports.close_all(reserved)


def wanted(port: int, last: int = 0, protocol: str = "tcp", ip: str = "127.0.0.1") -> PortRequest:
    return PortRequest(
        container_port=80, protocol=protocol, host_ip=ip, host_port_first=port, host_port_last=last or port
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_between_containers() -> None:
    table = PortTable()
    table.add("tcp", "127.0.0.1", 8080)
    with pytest.raises(ResourceExhausted, match=r"^Bind for 127\.0\.0\.1:8080 failed: port is already allocated$"):
        table.choose(wanted(8080), "172.17.0.2")
    with pytest.raises(ResourceExhausted, match=r"^Bind for 0\.0\.0\.0:8080 failed: port is already allocated$"):
        table.choose(wanted(8080, ip=""), "172.17.0.2")
    assert not table.conflicts("tcp", "127.0.0.2", 8080)
    assert not table.conflicts("udp", "127.0.0.1", 8080)
    table.add("tcp", "0.0.0.0", 8081)
    assert table.conflicts("tcp", "127.0.0.2", 8081)
    table.remove("tcp", "0.0.0.0", 8081)
    assert not table.conflicts("tcp", "127.0.0.2", 8081)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_foreign_listener(reuse: bool) -> None:
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        table = PortTable()
        with pytest.raises(ResourceExhausted) as caught:
            table.choose(wanted(port), "172.17.0.2")
        assert caught.value.message == (
            f"failed to bind host port for 127.0.0.1:{port}:172.17.0.2:80/tcp: address already in use"
        )
        assert not table.conflicts("tcp", "127.0.0.1", port)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_nobody_binds_a_reserved_port_and_nothing_is_accepted(kind: socket.SocketKind) -> None:
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    table = PortTable()
    port, (fd,) = table.choose(wanted(free_port(), protocol=protocol), "172.17.0.2")
    try:
        with socket.socket(socket.AF_INET, kind) as foreign:
            foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="Address already in use"):
                foreign.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                with pytest.raises(ConnectionRefusedError):
                    foreign.connect(("127.0.0.1", port))
        with pytest.raises(OSError, match="Address already in use"):
            ports.reserve(protocol, "127.0.0.1", port)
    finally:
        os.close(fd)


def test_connections_that_outlive_their_listener_do_not_hold_the_port() -> None:
    with socket.socket() as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted, _ = listener.accept()
        listener.close()
        accepted.close()  # The server closes first, so TIME_WAIT stays on its port.
        client.recv(1)
    with socket.socket() as plain, pytest.raises(OSError, match="Address already in use"):
        plain.bind(("127.0.0.1", port))
    fd = ports.reserve("tcp", "127.0.0.1", port)
    assert fd is not None
    try:
        # As strong as any other reservation.
        with pytest.raises(OSError, match="Address already in use"):
            ports.reserve("tcp", "127.0.0.1", port)
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", port))
    finally:
        os.close(fd)


def test_a_range_takes_its_first_free_port() -> None:
    first = free_port()
    table = PortTable()
    table.add("udp", "127.0.0.1", first)
    port, (fd,) = table.choose(wanted(first, min(first + 20, 65535), "udp"), "172.17.0.2")
    os.close(fd)
    assert first < port <= first + 20


def test_a_full_range() -> None:
    table = PortTable()
    for port in range(9000, 9003):
        table.add("tcp", "0.0.0.0", port)
    with pytest.raises(ResourceExhausted, match="all ports are allocated"):
        table.choose(wanted(9000, 9002), "172.17.0.2")


def test_ephemeral_ports_go_round() -> None:
    table = PortTable()
    first, last = ports.ephemeral_range()
    one, (fd_one,) = table.choose(PortRequest(container_port=80, host_ip="127.0.0.1"), "172.17.0.2")
    table.remove("tcp", "127.0.0.1", one)
    two, (fd_two,) = table.choose(PortRequest(container_port=80, host_ip="127.0.0.1"), "172.17.0.2")
    for fd in (fd_one, fd_two):
        os.close(fd)
    assert first <= one <= last
    assert first <= two <= last
    assert one != two
