"""Networks with IPv6, by packets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sampan.errors import Forbidden, ResourceExhausted, Unsupported
from sampan.network.definitions import SubnetRequest
from tests.privileged.network.lab import Lab, ask, inside, on_own_host, run
from tests.privileged.network.test_networks import connect, create, disconnect

pytestmark = pytest.mark.requires("root", "netns", "bridge", "veth", "nftables", "program:ip", "program:nft")


@on_own_host
def test_who_reaches_whom(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM, "::")
        create(lab, "six", ipv6=True)
        create(lab, "other", ipv6=True)
        create(lab, "shut", ipv6=True, internal=True)
        one, two = lab.container("one", network="six"), lab.container("two", network="six")
        far, shut = lab.container("far", network="other"), lab.container("shut", network="shut")
        assert one.ip6.startswith("fd")
        assert (one.prefix6, one.gateway6.endswith("::1"), shut.gateway6) == (64, True, "")
        for udp in (False, True):
            assert ask(two.path, one.ip6, 80, udp=udp) == f"one {two.ip6}"
            assert ask(None, one.ip6, 80, udp=udp) == f"one {one.gateway6}"
        # Outwards under the host's address; from outside and between networks there is no way.
        assert ask(one.path, lab.OUTSIDE_6, 90) == f"outside {lab.HOST_6}"
        assert ask(outside, one.ip6, 80, timeout=0.3) == "silent"
        assert ask(far.path, one.ip6, 80, timeout=0.3) == "silent"
        assert ask(shut.path, lab.OUTSIDE_6, 90, timeout=0.3) == "unreachable"
        inside(shut.path, lambda: run("ip", "-6", "route", "add", "default", "via", str(_first(shut.ip6))))
        assert ask(shut.path, lab.OUTSIDE_6, 90, timeout=0.3) == "silent"
        # IPv4 is there as ever.
        assert ask(two.path, one.ip, 80) == f"one {two.ip}"


def _first(address: str) -> str:
    return f"{address.rpartition('::')[0]}::1"


@on_own_host
def test_published_ports(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        create(lab, "six", ipv6=True)
        web = lab.container(
            "web", "8080:80", "8080:80/udp", f"[{lab.HOST_6}]:8081:81", "0.0.0.0:8082:81", network="six"
        )
        other = lab.container("other", network="six")
        assert {(each.host_ip, each.host_port) for each in lab.controller.bindings("web")} == {
            ("0.0.0.0", 8080), ("::", 8080), (lab.HOST_6, 8081), ("0.0.0.0", 8082)
        }  # fmt: skip
        for udp in (False, True):
            assert ask(outside, lab.HOST_6, 8080, udp=udp) == f"web {lab.OUTSIDE_6}"
            assert ask(outside, lab.HOST, 8080, udp=udp) == f"web {lab.OUTSIDE}"
            assert ask(None, lab.HOST_6, 8080, udp=udp) == f"web {lab.HOST_6}"
            assert ask(other.path, lab.HOST_6, 8080, udp=udp) == f"web {web.gateway6}"
            assert ask(web.path, lab.HOST_6, 8080, udp=udp) == f"web {web.gateway6}"
        assert ask(None, "::1", 8080) == "refused"
        assert ask(outside, lab.HOST_6, 8081) == f"web {lab.OUTSIDE_6}"
        assert ask(outside, lab.HOST, 8081) == "refused"
        assert ask(outside, lab.HOST_6, 8082) == "refused"
        with pytest.raises(ResourceExhausted, match=r"Bind for ::|Bind for 0\.0\.0\.0"):
            lab.publish(other, "8080:80")
        plain = lab.container("plain")
        with pytest.raises(Unsupported, match="the network bridge has no IPv6"):
            lab.publish(plain, "[::]:9000:80")
        # Flushed, killed, taken down: as with IPv4.
        pristine = run("nft", "list", "table", "ip6", "smplab")
        run("nft", "flush", "ruleset")
        lab.controller.repair()
        assert run("nft", "list", "table", "ip6", "smplab") == pristine
        lab.controller.close()
        lab.controller = lab.open_controller()
        lab.controller.setup()
        lab.controller.adopt(["web", "other", "plain"])
        assert lab.controller.endpoint("web") == web
        assert ask(outside, lab.HOST_6, 8080) == f"web {lab.OUTSIDE_6}"
        for fd in lab.sockets:
            os.close(fd)
        lab.sockets.clear()
        for name in ("web", "other"):
            lab.controller.release(name)
        assert ask(outside, lab.HOST_6, 8080) == "refused"
        lab.controller.remove("six")
        assert "ip6 smplab" not in run("nft", "list", "tables")


@on_own_host
def test_addresses_as_asked_for_and_changes(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM, "::")
        subnets = (
            SubnetRequest(subnet="10.8.0.0/24"),
            SubnetRequest(
                subnet="fd00:8::/64", gateway="fd00:8::fe", ip_range="fd00:8::100/126", reserved={"x": "fd00:8::101"}
            ),
        )
        create(lab, "six", ipv6=True, subnets=subnets)
        info = lab.controller.network("six")
        assert (info.subnet6, info.gateway6, info.reserved6) == ("fd00:8::/64", "fd00:8::fe", {"x": "fd00:8::101"})
        found = [lab.container(f"c{number}", network="six") for number in range(3)]
        assert [each.ip6 for each in found] == ["fd00:8::100", "fd00:8::102", "fd00:8::103"]
        with pytest.raises(ResourceExhausted, match="no available IPv6 addresses"):
            lab.container("c3", network="six")
        # What was given of the other family is free again.
        lab.controller.release("c1")
        assert lab.container("c1", network="six").ip == "10.8.0.6"
        box = lab.container("box")
        with pytest.raises(Forbidden, match="Address already in use"):
            connect(lab, box, "six", ip6="fd00:8::100")
        assert ask(box.path, lab.OUTSIDE_6, 90, timeout=0.3) == "unreachable"
        made = connect(lab, box, "six", ip6="fd00:8::77", priority=1)
        assert made.ip6 == "fd00:8::77"
        assert ask(box.path, lab.OUTSIDE_6, 90) == f"outside {lab.HOST_6}"
        assert ask(box.path, "fd00:8::100", 80) == "c0 fd00:8::77"
        disconnect(lab, box, "six")
        assert ask(box.path, lab.OUTSIDE_6, 90, timeout=0.3) == "unreachable"


@on_own_host
def test_a_host_that_learns_its_way_by_ipv6_keeps_it(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        lab.add_outside()
        create(lab, "six", ipv6=True)
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "1\n"
        assert Path("/proc/sys/net/ipv6/conf/outer0/accept_ra").read_text() == "2\n"
        # A container's word is not taken for a router's.
        bridge = f"br-{lab.controller.network('six').id[:12]}"
        assert Path(f"/proc/sys/net/ipv6/conf/{bridge}/accept_ra").read_text() == "0\n"
