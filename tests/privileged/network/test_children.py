"""Networks whose interfaces are children of one of the host's (macvlan, ipvlan), by packets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sampan.errors import Forbidden, Unavailable
from sampan.network.definitions import SubnetRequest
from sampan.network.endpoints import Endpoint
from tests.privileged.network.lab import Lab, ask, host_state, inside, on_own_host, open_netns, run
from tests.privileged.network.test_networks import connect, create, disconnect

pytestmark = pytest.mark.requires("root", "netns", "bridge", "veth", "nftables", "program:ip", "program:nft")

SUBNETS = (
    SubnetRequest(subnet="192.0.2.0/24", ip_range="192.0.2.128/25", gateway="192.0.2.99"),
    SubnetRequest(subnet="2001:db8::/64", ip_range="2001:db8::1:0/120", gateway="2001:db8::99"),
)


def links(path: str) -> list[str]:
    return [line.split()[0] for line in inside(path, lambda: run("ip", "-br", "link")).splitlines()]


@pytest.mark.requires("macvlan")
@on_own_host
def test_macvlan(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        lab.serve("outside", outside, 90, socket.SOCK_STREAM, "::")
        pristine = host_state()
        create(lab, "lan", driver="macvlan", subnets=SUBNETS, ipv6=True, options={"parent": "outer0"})
        assert host_state() == pristine
        info = lab.controller.network("lan")
        assert (info.driver, info.subnet, info.gateway) == ("macvlan", "192.0.2.0/24", "192.0.2.99")
        one, two = lab.container("one", network="lan"), lab.container("two", network="lan")
        assert (one.ip, two.ip, one.ip6) == ("192.0.2.128", "192.0.2.129", "2001:db8::1:0")
        # A machine of the outer network like any other, under its own addresses; but not for its own host.
        assert ask(one.path, lab.OUTSIDE, 90) == f"outside {one.ip}"
        assert ask(one.path, lab.OUTSIDE_6, 90) == f"outside {one.ip6}"
        assert ask(outside, one.ip, 80) == f"one {lab.OUTSIDE}"
        assert ask(two.path, one.ip, 80) == f"one {two.ip}"
        assert ask(two.path, one.ip6, 80) == f"one {two.ip6}"
        assert ask(None, one.ip, 80, timeout=0.5) == "silent"
        assert lab.publish(one, "8080:80").bindings == ()
        # It comes and goes with a container that is on another network, and by itself.
        box = lab.container("box", "8081:80")
        connect(lab, box, "lan", ip="192.0.2.200", mac="02:42:00:00:00:77", priority=5)
        assert ask(box.path, lab.OUTSIDE, 90) == "outside 192.0.2.200"
        assert ask(outside, "192.0.2.200", 80) == f"box {lab.OUTSIDE}"
        assert "default via 192.0.2.99 dev eth1" in inside(box.path, lambda: run("ip", "route"))
        with pytest.raises(Forbidden, match="MAC address 02:42:00:00:00:77 is already in use in network lan"):
            connect(lab, lab.container("next"), "lan", mac="02:42:00:00:00:77")
        disconnect(lab, box, "lan")
        assert not any(name.startswith("eth1") for name in links(box.path))
        assert ask(None, "127.0.0.1", 8081).startswith("box")
        lab.controller.close()
        lab.controller = lab.open_controller()
        lab.controller.setup()
        lab.controller.adopt(["one", "two", "box"])
        assert lab.controller.endpoint("one") == one
        with pytest.raises(Forbidden, match="already using parent interface outer0"):
            create(lab, "lan2", driver="macvlan", subnet="198.51.100.0/24", options={"parent": "outer0"})
        for name in ("one", "two"):
            lab.controller.release(name)
        lab.controller.remove("lan")
        assert not os.path.exists(one.path)


@pytest.mark.requires("macvlan")
@on_own_host
def test_a_private_macvlan_and_a_parent_that_has_gone(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        lab.add_outside()
        options = {"parent": "outer0", "macvlan_mode": "private"}
        create(lab, "lan", driver="macvlan", subnet="192.0.2.0/24", gateway="192.0.2.99", options=options)
        one, two = lab.container("one", network="lan"), lab.container("two", network="lan")
        assert ask(two.path, one.ip, 80, timeout=0.5) in ("silent", "unreachable")
        run("ip", "link", "del", "outer0")
        with pytest.raises(Unavailable, match="parent interface outer0 is not there"):
            lab.container("three", network="lan")
        lab.controller.release("three")
        assert lab.controller.endpoint("three") is None


def bare(lab: Lab, name: str) -> Endpoint:
    endpoint = lab.controller.allocate("none", name)
    os.close(open_netns(endpoint.path))
    return endpoint


@on_own_host
def test_what_a_kernel_cannot_make_leaves_nothing(tmp_path: Path) -> None:
    """This one's links of other kinds, or a MAC address that another child of the parent has."""
    with Lab(str(tmp_path)) as lab:
        lab.add_outside()
        create(lab, "lan", driver="ipvlan", subnet="192.0.2.0/24", options={"parent": "outer0", "ipvlan_mode": "l3"})
        box = lab.container("box")
        run("ip", "link", "add", "link", "outer0", "name", "own0", "type", "macvlan")  # No parent is of both kinds.
        with pytest.raises(Unavailable, match="create ipvlan eth1"):
            connect(lab, box, "lan")
        assert not any(name.startswith("eth1") for name in links(box.path))
        assert [each.network for each in lab.controller.endpoints("box")] == ["bridge"]


@pytest.mark.requires("ipvlan")
@pytest.mark.parametrize("mode", ["l2", "l3"])
@on_own_host
def test_ipvlan(tmp_path: Path, mode: str) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        subnet = "192.0.2.0/24" if mode == "l2" else "198.51.100.0/24"
        options = {"parent": "outer0", "ipvlan_mode": mode}
        create(lab, "lan", driver="ipvlan", subnet=subnet, options=options, gateway=str(subnet).replace("0/24", "99"))
        inside(outside, lambda: run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0"))
        one, two = lab.container("one", network="lan"), lab.container("two", network="lan")
        assert ask(one.path, lab.OUTSIDE, 90) == f"outside {one.ip}"
        assert ask(two.path, one.ip, 80) == f"one {two.ip}"
