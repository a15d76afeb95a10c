"""Packets that really flow: who reaches what, and whom the reached one sees."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest

from tests.privileged.network.lab import Lab, ask, client, inside, on_own_host, run

pytestmark = pytest.mark.requires("root", "netns", "bridge", "veth", "nftables", "program:ip", "program:nft")


BRIDGE_NF = "/proc/sys/net/bridge/bridge-nf-call-iptables"


# With br_netfilter, what the bridge switches between two of its ports meets the host's IP rules too.
@pytest.mark.parametrize("bridge_nf", ["0", "1"] if os.path.exists(BRIDGE_NF) else ["0"])
@on_own_host
def test_a_published_port_is_reached_from_everywhere(tmp_path: Path, bridge_nf: str) -> None:
    with Lab(str(tmp_path)) as lab:
        if os.path.exists(BRIDGE_NF):
            with open(BRIDGE_NF, "w") as file:
                file.write(bridge_nf)
        outside = lab.add_outside()
        web = lab.container("web", "8080:80", "8080:80/udp", "8081:81")
        other = lab.container("other")
        for udp in (False, True):
            # From 127.0.0.1 the container could not answer, so it sees the bridge; everyone else as they are.
            assert ask(None, "127.0.0.1", 8080, udp=udp) == f"web {web.gateway}"
            assert ask(None, lab.HOST, 8080, udp=udp) == f"web {lab.HOST}"
            assert ask(None, web.gateway, 8080, udp=udp) == f"web {web.gateway}"
            assert ask(outside, lab.HOST, 8080, udp=udp) == f"web {lab.OUTSIDE}"
            # On its own bridge the answer must come back by way of the host.
            assert ask(other.path, lab.HOST, 8080, udp=udp) == f"web {web.gateway}"
            assert ask(other.path, web.gateway, 8080, udp=udp) == f"web {web.gateway}"
            assert ask(web.path, lab.HOST, 8080, udp=udp) == f"web {web.gateway}"
        assert ask(outside, lab.HOST, 8081) == f"web {lab.OUTSIDE}"
        assert ask(outside, lab.HOST, 8082) == "refused"
        assert ask(other.path, web.ip, 81) == f"web {other.ip}"


@on_own_host
def test_what_is_not_published_is_not_reached_from_outside(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        web = lab.container("web", "8080:80")
        other = lab.container("other")
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        assert ask(outside, web.ip, 81, timeout=0.3) == "silent"
        # Nor a published one past its publication, by its inner address.
        assert ask(outside, web.ip, 80, timeout=0.3) == "silent"
        # Between containers, from the host, and outwards all is open; outwards under the host's address.
        assert ask(other.path, web.ip, 81) == f"web {other.ip}"
        assert ask(None, web.ip, 81) == f"web {web.gateway}"
        assert ask(web.path, lab.OUTSIDE, 90) == f"outside {lab.HOST}"


@on_own_host
def test_a_host_address_limits_a_port_to_itself(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        run("ip", "addr", "add", "192.0.2.2/24", "dev", "outer0")
        lab.container("one", "192.0.2.2:8080:80", "127.0.0.1:8081:80")
        lab.container("two", "192.0.2.1:8080:80")
        assert ask(outside, "192.0.2.2", 8080) == f"one {lab.OUTSIDE}"
        assert ask(outside, "192.0.2.1", 8080) == f"two {lab.OUTSIDE}"
        assert ask(None, "127.0.0.1", 8081).startswith("one")
        assert ask(None, "127.0.0.1", 8080) == "refused"
        assert ask(outside, "192.0.2.1", 8081) == "refused"


@on_own_host
def test_a_port_of_the_host_is_not_reached_through_loopback_addresses(tmp_path: Path) -> None:
    """The bridge routes 127.0.0.0/8, for published ports; a container must not profit from it."""
    with Lab(str(tmp_path)) as lab:
        hostile = lab.container("hostile")
        lab.serve("private", None, 9999, socket.SOCK_STREAM, "127.0.0.1")

        def forge() -> None:
            run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
            run("ip", "route", "add", "127.0.0.1", "via", hostile.gateway, "src", hostile.ip)
            with open("/proc/sys/net/ipv4/conf/eth0/route_localnet", "w") as file:
                file.write("1")

        inside(hostile.path, forge)
        assert ask(hostile.path, "127.0.0.1", 9999, timeout=0.3) == "silent"
        # That it is the rule which holds: without it, the door is open.
        run("nft", "flush", "chain", "ip", "smplab", "raw")
        assert ask(hostile.path, "127.0.0.1", 9999) == f"private {hostile.ip}"


@on_own_host
def test_an_unlasting_publication(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.container("web", "8080:80")
        assert ask(outside, lab.HOST, 8080).startswith("web")
        os.close(lab.sockets.pop())
        lab.controller.release("web")
        assert ask(outside, lab.HOST, 8080) == "refused"
        lab.container("next", "8080:81")
        assert ask(outside, lab.HOST, 8080).startswith("next")


@on_own_host
def test_a_udp_flow_follows_its_port_to_the_next_container(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("host", None, 5353, socket.SOCK_DGRAM)
        with client(outside, socket.SOCK_DGRAM) as asking:
            asking.connect((lab.HOST, 5353))

            def say() -> str:
                for _ in range(3):
                    asking.send(b"?")
                    with contextlib.suppress(TimeoutError):
                        return asking.recv(100).decode().split()[0]
                return "silent"

            assert say() == "host"
            lab.servers.pop().close()
            lab.container("one", "5353:80/udp")
            assert say() == "one"
            os.close(lab.sockets.pop())
            lab.controller.release("one")
            lab.container("two", "5353:80/udp")
            assert say() == "two"


@on_own_host
def test_beside_docker(tmp_path: Path) -> None:
    """Docker drops what is forwarded unless a rule accepts it, and has a chain for others' rules."""
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        docker = tmp_path / "docker.nft"
        docker.write_text(
            "table ip filter {\n chain DOCKER-USER { }\n"
            " chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }\n}\n"
        )
        run("nft", "-f", str(docker))
        web = lab.container("web", "8080:80")
        assert ask(outside, lab.HOST, 8080, timeout=0.3) == "silent"
        lab.controller.repair()
        lab.controller.repair()
        assert ask(outside, lab.HOST, 8080) == f"web {lab.OUTSIDE}"
        assert ask(outside, web.ip, 81, timeout=0.3) == "silent"
        assert run("nft", "list", "chain", "ip", "filter", "DOCKER-USER").count("smplab0") == 4
        lab.controller.teardown()
        assert "smplab" not in run("nft", "list", "ruleset")


@on_own_host
def test_network_none_has_loopback_alone(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        alone = lab.container("alone", network="none")
        assert ask(alone.path, "127.0.0.1", 80) == "alone 127.0.0.1"
        links = inside(alone.path, lambda: run("ip", "-br", "link"))
        assert [line.split()[0] for line in links.splitlines()] == ["lo"]
        assert (alone.ip, alone.mac, alone.host_interface) == ("", "", "")


@on_own_host
def test_the_users_own_chain_comes_first_and_stays(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.container("web", "8080:80", "8081:81")
        # What docs/how-to/networks.md says.
        run(
            "nft", "add", "rule", "inet", "smplab_user", "forward", "ct", "status", "dnat", "meta", "l4proto",
            "tcp", "ct", "original", "proto-dst", "8080", "ip", "saddr", "!=", "198.51.100.0/24", "drop",
        )  # fmt: skip
        assert ask(outside, lab.HOST, 8080, timeout=0.3) == "silent"
        assert ask(outside, lab.HOST, 8081) == f"web {lab.OUTSIDE}"
        kept = run("nft", "list", "table", "inet", "smplab_user")
        run("nft", "flush", "table", "ip", "smplab")
        lab.controller.repair()
        lab.container("next", "8082:80")
        lab.controller.close()
        lab.controller = lab.open_controller()
        lab.controller.setup()
        lab.controller.adopt(["web", "next"])
        assert run("nft", "list", "table", "inet", "smplab_user") == kept
        run("nft", "delete", "table", "inet", "smplab_user")
        lab.controller.repair()
        assert "hook forward priority -10" in run("nft", "list", "table", "inet", "smplab_user").replace(
            "filter - ", "-"
        )
        assert ask(outside, lab.HOST, 8080) == f"web {lab.OUTSIDE}"


def crc32c(data: bytes) -> int:
    """SCTP's checksum (RFC 3309)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def sctp_init(source: int, destination: int) -> bytes:
    """The first packet of an association (RFC 9260): a header and an INIT chunk."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 0x5678)
    head = struct.pack(">HHI", source, destination, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


@on_own_host
def test_sctp(tmp_path: Path) -> None:
    """By packets of our own: this needs no SCTP in the kernel, which redirects it all the same."""
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        web = lab.container("web", "8080:80/sctp")
        assert lab.controller.bindings("web")[0].protocol == "sctp"

        def raw() -> socket.socket:
            return socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)

        with inside(web.path, raw) as taking, inside(outside, raw) as sending:
            taking.settimeout(0.5)
            for port, arrives in ((8081, False), (8080, True)):
                for _ in range(8):
                    sending.sendto(sctp_init(5555, port), (lab.HOST, 0))
                    try:
                        data, (peer, _) = taking.recvfrom(2000)
                    except TimeoutError:
                        if not arrives:
                            break
                        continue
                    assert arrives
                    assert (peer, struct.unpack_from(">HH", data, 20)) == (lab.OUTSIDE, (5555, 80))
                    break
                else:
                    pytest.fail("nothing arrives")
