"""User-defined networks, by packets: who reaches whom on them, between them, and past them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound, SampanError, Unsupported
from sampan.network.definitions import NetworkRequest, SubnetRequest
from sampan.network.endpoints import Endpoint
from tests.privileged.network.lab import Lab, ask, host_state, inside, on_own_host, open_netns, run

pytestmark = pytest.mark.requires("root", "netns", "bridge", "veth", "nftables", "program:ip", "program:nft")

ICC = "com.docker.network.bridge.enable_icc"


def create(lab: Lab, name: str, **wanted: Any) -> str:
    own = {each: wanted.pop(each) for each in ("subnet", "ip_range", "gateway", "reserved") if each in wanted}
    subnets = wanted.pop("subnets", (SubnetRequest(**own),) if own else ())
    return lab.controller.create(NetworkRequest(name=name, subnets=subnets, **wanted)).id


def in_namespace(path: str, do: Callable[[int], Endpoint]) -> Endpoint:
    """With a netlink socket of the sandbox, as the spawner opens one."""
    fd = inside(path, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0).detach())
    try:
        return do(fd)
    finally:
        os.close(fd)


def connect(lab: Lab, container: Endpoint, network: str, **wanted: Any) -> Endpoint:
    return in_namespace(
        container.path, lambda fd: lab.controller.connect(container.container_id, network, fd, **wanted)
    )


def disconnect(lab: Lab, container: Endpoint, network: str) -> None:
    in_namespace(container.path, lambda fd: lab.controller.disconnect(container.container_id, network, fd))


def way_out(endpoint: Endpoint) -> str:
    return inside(endpoint.path, lambda: run("ip", "-4", "route", "show", "default")).strip()


@on_own_host
def test_networks_are_apart(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        create(lab, "front")
        create(lab, "back")
        one = lab.container("one", "8080:80", network="front")
        two = lab.container("two", network="front")
        far = lab.container("far", network="back")
        plain = lab.container("plain")
        assert one.ip == "172.18.0.2"
        assert far.ip == "172.19.0.2"
        assert ask(two.path, one.ip, 81) == f"one {two.ip}"
        for path in (far.path, plain.path, outside):
            assert ask(path, one.ip, 81, timeout=0.3) == "silent"
        assert ask(one.path, plain.ip, 81, timeout=0.3) == "silent"
        # What is published is there for all.
        assert ask(far.path, lab.HOST, 8080).startswith("one ")
        assert ask(one.path, lab.HOST, 8080) == f"one {one.gateway}"
        assert ask(outside, lab.HOST, 8080) == f"one {lab.OUTSIDE}"
        assert ask(None, "127.0.0.1", 8080) == f"one {one.gateway}"
        # Outwards under the host's address, which sees them as they are.
        assert ask(one.path, lab.OUTSIDE, 90) == f"outside {lab.HOST}"
        assert ask(None, one.ip, 81) == f"one {one.gateway}"


@on_own_host
def test_an_internal_network_has_no_way_out_and_none_in(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        create(lab, "inner", internal=True)
        create(lab, "open")
        one, two = lab.container("one", network="inner"), lab.container("two", network="inner")
        near = lab.container("near", network="open")
        assert ask(two.path, one.ip, 81) == f"one {two.ip}"
        assert way_out(one) == ""
        # Nor with a route of its own.
        gateway = lab.controller.network("inner").gateway
        inside(one.path, lambda: run("ip", "route", "add", "default", "via", gateway))
        for address, port in ((lab.OUTSIDE, 90), (near.ip, 81)):
            assert ask(one.path, address, port, timeout=0.3) == "silent"
        assert ask(outside, one.ip, 81, timeout=0.3) == "silent"
        assert lab.publish(one, "8080:80").bindings == ()


BRIDGE_NF = "/proc/sys/net/bridge/bridge-nf-call-iptables"


@pytest.mark.parametrize("bridge_nf", ["0", "1"] if os.path.exists(BRIDGE_NF) else ["0"])
@on_own_host
def test_without_icc_containers_meet_by_published_ports_alone(tmp_path: Path, bridge_nf: str) -> None:
    with Lab(str(tmp_path)) as lab:
        if os.path.exists(BRIDGE_NF):
            Path(BRIDGE_NF).write_text(bridge_nf)
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        create(lab, "quiet", options={ICC: "false"})
        one, two = lab.container("one", "8080:80", network="quiet"), lab.container("two", network="quiet")
        refused = ask(two.path, one.ip, 81, timeout=0.3)
        # Nor by way of the host, as a container that is sent there tries it.
        inside(two.path, lambda: run("ip", "route", "add", one.ip, "via", two.gateway))
        assert [refused, ask(two.path, one.ip, 81, timeout=0.3)] == ["silent", "silent"]
        assert ask(two.path, lab.HOST, 8080) == f"one {one.gateway}"
        assert ask(two.path, lab.OUTSIDE, 90) == f"outside {lab.HOST}"


@on_own_host
def test_without_masquerading_the_outside_sees_the_containers_address(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        lab.serve("outside", outside, 90, socket.SOCK_STREAM)
        create(lab, "routed", options={"com.docker.network.bridge.enable_ip_masquerade": "false"})
        one = lab.container("one", network="routed")
        assert ask(one.path, lab.OUTSIDE, 90) == f"outside {one.ip}"


@on_own_host
def test_options_of_the_driver(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        options = {
            "com.docker.network.bridge.name": "labbr9", "com.docker.network.driver.mtu": "1400",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
        }  # fmt: skip
        create(lab, "named", options=options, labels={"a": "b"}, attachable=True)
        one = lab.container("one", "8080:80", network="named")
        assert "mtu 1400" in run("ip", "link", "show", "labbr9")
        assert "mtu 1400" in inside(one.path, lambda: run("ip", "link", "show", "eth0"))
        assert ask(None, "127.0.0.1", 8080).startswith("one")
        assert ask(outside, lab.HOST, 8080) == "refused"
        info = lab.controller.network("named")
        assert (info.options, info.labels, info.attachable) == (options, {"a": "b"}, True)


@on_own_host
def test_addresses_as_asked_for(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        create(
            lab, "mine", subnet="10.5.0.0/24", ip_range="10.5.0.128/30", gateway="10.5.0.129",
            reserved={"router": "10.5.0.130"},
        )  # fmt: skip
        assert [lab.controller.allocate("mine", str(number)).ip for number in range(2)] == ["10.5.0.128", "10.5.0.131"]
        with pytest.raises(SampanError, match="no available IPv4 addresses"):
            lab.controller.allocate("mine")
        box = lab.controller.allocate("none", "box")
        os.close(open_netns(box.path))
        # A given one may be outside the range.
        made = connect(lab, box, "mine", ip="10.5.0.7", mac="02:42:00:00:00:07")
        assert (made.ip, made.gateway, made.mac) == ("10.5.0.7", "10.5.0.129", "02:42:00:00:00:07")
        other = lab.controller.allocate("none", "other")
        os.close(open_netns(other.path))
        for address in ("10.5.0.7", "10.5.0.130", "10.5.0.129", "10.5.0.0"):
            with pytest.raises(Forbidden, match="Address already in use"):
                connect(lab, other, "mine", ip=address)
        lab.controller.release("box")
        assert connect(lab, other, "mine", ip="10.5.0.7").ip == "10.5.0.7"


REFUSED: dict[str, tuple[dict[str, Any], type[SampanError], str]] = {
    "the same name": ({"name": "taken"}, Conflict, "network with name taken already exists"),
    "no name": ({"name": ""}, InvalidArgument, "name is empty"),
    "an odd name": ({"name": "a/b"}, InvalidArgument, "invalid network name"),
    "a name that is there": ({"name": "host"}, Forbidden, "operation is not permitted on predefined host network"),
    "overlap": ({"subnet": "10.9.1.0/24"}, Forbidden, "Pool overlaps with other one on this address space"),
    "the host's": ({"subnet": "192.0.0.0/16"}, Conflict, "interface outer0 has an address of that network"),
    "host bits": ({"subnet": "10.3.0.5/24"}, InvalidArgument, "it should be 10.3.0.0/24"),
    "no subnet": ({"gateway": "10.3.0.1"}, InvalidArgument, "no subnet is given"),
    "a far gateway": ({"subnet": "10.3.0.0/24", "gateway": "10.4.0.1"}, InvalidArgument, "invalid gateway 10.4.0.1"),
    "a far range": ({"subnet": "10.3.0.0/24", "ip_range": "10.4.0.0/28"}, InvalidArgument, "invalid ip-range"),
    "IPv6": ({"subnet": "fd00::/64"}, InvalidArgument, "needs IPv6 to be enabled"),
    "two of a kind": (
        {"subnets": (SubnetRequest(subnet="10.3.0.0/24"), SubnetRequest(subnet="10.4.0.0/24"))},
        Forbidden,
        "doesn't support multiple subnets",
    ),
    "a far IPv6 gateway": (
        {"subnet": "fd00::/64", "gateway": "fd01::1", "ipv6": True},
        InvalidArgument,
        "invalid gateway fd01::1",
    ),
    "the host's IPv6": ({"subnet": "2001:db8::/48", "ipv6": True}, Conflict, "outer0 has an address of that network"),
    "a bridge": ({"options": {"com.docker.network.bridge.name": "outer0"}}, Conflict, "outer0 exists already"),
    "the same bridge": ({"options": {"com.docker.network.bridge.name": "smplab0"}}, Forbidden, "same bridge name"),
    "a truth": ({"options": {ICC: "perhaps"}}, InvalidArgument, "failed to parse"),
    "an option": ({"options": {"com.docker.network.bridge.trusted_host_interfaces": "x"}}, Unsupported, "trusted"),
    "a driver": ({"driver": "overlay"}, Unsupported, "network driver overlay is not supported"),
    "no such driver": ({"driver": "weave"}, NotFound, "could not find plugin weave"),
    "no parent": (
        {"driver": "macvlan", "options": {"parent": "eth9"}},
        InvalidArgument,
        "parent interface eth9 is not there",
    ),
    "a mode": (
        {"driver": "macvlan", "options": {"parent": "outer0", "macvlan_mode": "odd"}},
        InvalidArgument,
        "odd",
    ),
    "another's option": ({"driver": "ipvlan", "options": {"macvlan_mode": "bridge"}}, Unsupported, "macvlan_mode"),
}


@on_own_host
def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        lab.add_outside()
        create(lab, "taken", subnet="10.9.0.0/16")
        before = host_state()
        for wanted, kind, words in REFUSED.values():
            with pytest.raises(kind, match=words):
                create(lab, **{"name": "new", **wanted})
        assert host_state() == before
        assert [each.name for each in lab.controller.networks()] == ["bridge", "host", "none", "taken"]


@on_own_host
def test_removal(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        links, rules = run("ip", "-br", "link"), run("nft", "list", "ruleset")
        create(lab, "brief")
        box = lab.container("box", network="brief")
        with pytest.raises(Forbidden, match="has active endpoints"):
            lab.controller.remove("brief")
        lab.controller.release("box")
        lab.controller.remove("brief")
        assert not os.path.exists(box.path)
        assert run("nft", "list", "ruleset") == rules
        assert [line.split()[0] for line in run("ip", "-br", "link").splitlines() if "veth" not in line] == [
            line.split()[0] for line in links.splitlines()
        ]
        with pytest.raises(Forbidden, match="bridge is a pre-defined network"):
            lab.controller.remove("bridge")


@on_own_host
def test_a_container_on_several_networks(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        create(lab, "beta")
        create(lab, "alpha")
        create(lab, "inner", internal=True)
        box = lab.container("box", "8080:80", "8080:80/udp")
        others = {name: lab.container(name, network=name) for name in ("beta", "alpha", "inner")}
        for number, name in enumerate(("inner", "beta", "alpha"), 1):
            made = connect(lab, box, name)
            assert made.interface == f"eth{number}"
            assert ask(others[name].path, made.ip, 81).startswith("box")
            assert ask(box.path, others[name].ip, 81) == f"{name} {made.ip}"
        # Of equals, the first name leads out, and the published ports with it.
        alpha = next(each for each in lab.controller.endpoints("box") if each.network == "alpha")
        assert f"via {alpha.gateway} dev eth3" in way_out(box)
        for udp in (False, True):
            assert ask(outside, lab.HOST, 8080, udp=udp) == f"box {lab.OUTSIDE}"
            assert ask(None, "127.0.0.1", 8080, udp=udp) == f"box {alpha.gateway}"
        disconnect(lab, box, "bridge")
        assert "eth0" not in inside(box.path, lambda: run("ip", "-br", "link"))
        disconnect(lab, box, "alpha")
        beta = next(each for each in lab.controller.endpoints("box") if each.network == "beta")
        assert f"via {beta.gateway} dev eth2" in way_out(box)
        assert ask(None, "127.0.0.1", 8080) == f"box {beta.gateway}"
        assert len(lab.controller.bindings("box")) == 2
        # Priority goes before the name; the freed interface is taken again.
        strong = connect(lab, box, "alpha", priority=3)
        assert strong.interface == "eth0"
        assert "dev eth0" in way_out(box)
        with pytest.raises(Forbidden, match="already exists in network alpha"):
            connect(lab, box, "alpha")
        for name in ("alpha", "beta", "inner"):
            disconnect(lab, box, name)
        assert way_out(box) == ""
        assert lab.controller.endpoints("box") == []
        assert os.path.exists(box.path)
        assert connect(lab, box, "beta").interface == "eth0"
        assert ask(box.path, others["beta"].ip, 81).startswith("beta")
        lab.controller.release("box")
        assert not os.path.exists(box.path)
        assert lab.controller.endpoint("box") is None


@on_own_host
def test_an_engine_that_comes_later_keeps_networks_and_places(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        outside = lab.add_outside()
        create(lab, "front", labels={"x": "y"}, internal=False)
        create(lab, "inner", internal=True)
        box = lab.container("box", "8080:80", network="front")
        made = connect(lab, box, "inner")
        mate = lab.container("mate", network="inner")
        gone = lab.container("gone", network="front")
        before = lab.controller.networks()
        lab.controller.close()
        run("nft", "flush", "ruleset")
        run("ip", "link", "del", f"br-{next(each.id for each in before if each.name == 'inner')[:12]}")
        lab.controller = lab.open_controller()
        lab.controller.setup()
        lab.controller.adopt(["box", "mate"])
        assert lab.controller.networks() == before
        assert lab.controller.endpoints("box") == [box, made]
        assert not os.path.exists(gone.path)
        assert ask(outside, lab.HOST, 8080) == f"box {lab.OUTSIDE}"
        assert ask(mate.path, made.ip, 81) == f"box {mate.ip}"
        assert ask(outside, made.ip, 81, timeout=0.3) == "silent"
        assert lab.controller.allocate("front").ip != box.ip


@on_own_host
def test_a_bridge_that_is_deleted_by_hand_comes_back(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        key = create(lab, "front")
        one, two = lab.container("one", network="front"), lab.container("two", network="front")
        run("ip", "link", "del", f"br-{key[:12]}")
        assert ask(two.path, one.ip, 81, timeout=0.3) == "silent"
        lab.controller.repair()
        assert ask(two.path, one.ip, 81) == f"one {two.ip}"
        run("ip", "link", "del", f"br-{key[:12]}")
        three = lab.container("three", network="front")
        assert ask(three.path, one.ip, 81) == f"one {three.ip}"


@on_own_host
def test_there_is_room_for_hundreds(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        for number in range(40):  # Docker ends at 30.
            create(lab, f"n{number}")
        subnets = {each.subnet for each in lab.controller.networks() if each.subnet}
        assert len(subnets) == 41
        assert "172.16.0.0/24" in subnets
