"""User-defined networks, by the docker command and docker-py, unmodified."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from subprocess import run
from typing import Any

import docker
import pytest

from sampan.errors import SampanError
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")


@pytest.fixture(autouse=True)
def _no_networks(engine: Engine) -> Iterator[None]:
    yield
    with contextlib.suppress(SampanError):
        engine.remove_containers()
        engine.client.call("POST", "/networks/prune")


def inspected(engine: Engine, kind: str, name: str) -> Any:
    return json.loads(engine.docker(kind, "inspect", name, check=True).stdout)[0]


def said(engine: Engine, *words: str) -> str:
    return engine.docker(*words, check=True).stdout.strip()


def test_create_list_inspect_and_remove(engine: Engine) -> None:
    key = said(
        engine, "network", "create", "--subnet", "10.88.0.0/24", "--ip-range", "10.88.0.128/25", "--gateway",
        "10.88.0.254", "--aux-address", "router=10.88.0.129", "--label", "a=b", "--attachable", "-o",
        "com.docker.network.bridge.name=smpe2e9", "mine",
    )  # fmt: skip
    found = inspected(engine, "network", "mine")
    assert found["Id"] == key
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.88.0.0/24", "IPRange": "10.88.0.128/25", "Gateway": "10.88.0.254",
         "AuxiliaryAddresses": {"router": "10.88.0.129"}}
    ]  # fmt: skip
    assert (found["Labels"], found["Attachable"], found["Internal"]) == ({"a": "b"}, True, False)
    assert found["Options"] == {"com.docker.network.bridge.name": "smpe2e9"}
    assert said(engine, "network", "ls", "-q", "--no-trunc", "-f", "label=a=b", "-f", "type=custom") == key
    assert said(engine, "network", "ls", "-q", "--no-trunc", "-f", "dangling=true") == key
    run = ("run", "-d", "--network", "mine", "box", "sleep", "100")
    box = said(engine, *run)
    assert inspected(engine, "network", "mine")["Containers"][box]["IPv4Address"] == "10.88.0.128/24"
    assert said(engine, "network", "ls", "-q", "-f", "dangling=true") == ""
    refused = engine.docker("network", "rm", "mine")
    assert refused.returncode == 1
    assert 'network mine has active endpoints (name:"' in refused.stderr
    said(engine, "rm", "-f", box)
    assert said(engine, "network", "rm", "mine") == "mine"
    assert "network mine not found" in engine.docker("network", "inspect", "mine").stderr
    assert "network mine not found" in engine.docker(*run).stderr


def test_a_place_as_asked_for(engine: Engine) -> None:
    said(engine, "network", "create", "--subnet", "10.88.1.0/24", "mine")
    said(
        engine, "run", "-d", "--name", "placed", "--network", "mine", "--ip", "10.88.1.9", "--mac-address",
        "02:42:00:00:00:09", "--network-alias", "svc", "box", "sleep", "100",
    )  # fmt: skip
    place = inspected(engine, "container", "placed")["NetworkSettings"]["Networks"]["mine"]
    assert (place["IPAddress"], place["MacAddress"], place["Aliases"]) == ("10.88.1.9", "02:42:00:00:00:09", ["svc"])
    assert place["DNSNames"][:2] == ["placed", "svc"]
    shown = said(engine, "exec", "placed", "ip", "addr", "show", "eth0")
    assert "10.88.1.9/24" in shown
    assert "02:42:00:00:00:09" in shown
    taken = engine.docker("run", "--rm", "--network", "mine", "--ip", "10.88.1.9", "box", "true")
    assert (taken.returncode, "Address already in use" in taken.stderr) == (125, True)
    said(engine, "restart", "-t", "0", "placed")
    assert "10.88.1.9/24" in said(engine, "exec", "placed", "ip", "addr", "show", "eth0")
    said(engine, "network", "create", "any")
    for network, words in (
        ("any", "only when connecting to networks with user configured subnets"),
        ("bridge", "user specified IP address is supported on user defined networks only"),
    ):
        assert words in engine.docker("create", "--network", network, "--ip", "10.88.1.10", "box", "true").stderr
    assert "no configured subnet contains IP address 10.9.9.9" in engine.docker(
        "create", "--network", "mine", "--ip", "10.9.9.9", "box", "true"
    ).stderr  # fmt: skip


def test_several_networks(engine: Engine) -> None:
    for name in ("one", "two"):
        said(engine, "network", "create", name)
    said(
        engine, "run", "-d", "--name", "many", "--network", "name=two,alias=x", "--network", "name=one,gw-priority=1",
        "box", "sleep", "100",
    )  # fmt: skip
    places = inspected(engine, "container", "many")["NetworkSettings"]["Networks"]
    assert set(places) == {"one", "two"}
    assert said(engine, "exec", "many", "ip", "route").startswith(f"default via {places['one']['Gateway']} dev eth1")
    hosts = said(engine, "exec", "many", "cat", "/etc/hosts")
    assert places["one"]["IPAddress"] in hosts
    assert places["two"]["IPAddress"] in hosts
    said(engine, "network", "connect", "bridge", "many")
    assert "eth2" in said(engine, "exec", "many", "ip", "addr")
    again = engine.docker("network", "connect", "one", "many")
    assert "endpoint with name many already exists in network one" in again.stderr
    said(engine, "network", "disconnect", "one", "many")
    assert places["one"]["IPAddress"] not in said(engine, "exec", "many", "cat", "/etc/hosts")
    assert set(inspected(engine, "container", "many")["NetworkSettings"]["Networks"]) == {"two", "bridge"}
    # What was changed while it ran, and while it does not, is so at the next start.
    said(engine, "stop", "-t", "0", "many")
    said(engine, "network", "connect", "one", "many")
    said(engine, "network", "disconnect", "two", "many")
    said(engine, "start", "many")
    assert set(inspected(engine, "container", "many")["NetworkSettings"]["Networks"]) == {"one", "bridge"}
    assert "is not connected to network two" in engine.docker("network", "disconnect", "two", "many").stderr
    assert said(engine, "ps", "-q", "-f", "network=one") != ""


def test_published_ports_outlive_the_network_that_they_came_by(engine: Engine) -> None:
    for name in ("one", "two"):
        said(engine, "network", "create", name)
    serve = ("sh", "-c", "while true; do echo hello | nc -l -p 80; done")
    said(engine, "run", "-d", "--name", "web", "--network", "one", "-p", "80", "box", *serve)
    port = said(engine, "port", "web", "80/tcp").rpartition(":")[2]
    ask = ("run", "--rm", "--network", "host", "box", "sh", "-c", f"nc 127.0.0.1 {port} </dev/null")
    assert said(engine, *ask) == "hello"
    said(engine, "network", "connect", "two", "web")
    said(engine, "network", "disconnect", "one", "web")
    assert said(engine, *ask) == "hello"
    assert said(engine, "port", "web", "80/tcp").endswith(f":{port}")


def test_the_network_of_another_container(engine: Engine) -> None:
    said(engine, "network", "create", "mine")
    first = said(engine, "run", "-d", "--name", "first", "--network", "mine", "-h", "chief", "box", "sleep", "100")
    run = ("run", "--rm", "--network", "container:first", "box", "sh", "-c")
    place = inspected(engine, "container", "first")["NetworkSettings"]["Networks"]["mine"]
    assert place["IPAddress"] in said(engine, *run, "ip addr show eth0")
    assert said(engine, *run, "hostname; cat /etc/hostname") == "chief\nchief"
    assert said(engine, *run, "cat /etc/hosts") == said(engine, "exec", "first", "cat", "/etc/hosts")
    said(engine, "create", "--name", "second", "--network", "container:first", "box", "true")
    found = inspected(engine, "container", "second")
    assert found["HostConfig"]["NetworkMode"] == f"container:{first}"
    assert found["NetworkSettings"]["Networks"] == {}
    for option in (("-p", "80"), ("--expose", "80"), ("-h", "x"), ("--dns", "1.1.1.1"), ("--add-host", "a:1.1.1.1")):
        refused = engine.docker("create", "--network", "container:first", *option, "box", "true")
        assert (refused.returncode, "conflicting options" in refused.stderr) == (1, True), option
    said(engine, "stop", "-t", "0", "first")
    refused = engine.docker("start", "second")
    assert f"cannot join network of a non running container: {first}" in refused.stderr
    assert "No such container: nobody" in engine.docker("create", "--network", "container:nobody", "box", "true").stderr


def test_an_engine_that_was_killed_finds_networks_and_places(engine: Engine) -> None:
    said(engine, "network", "create", "mine")
    said(engine, "run", "-d", "--name", "placed", "--network", "mine", "box", "sleep", "100")
    said(engine, "network", "connect", "bridge", "placed")
    before = inspected(engine, "container", "placed")["NetworkSettings"], inspected(engine, "network", "mine")
    engine.stop(signal.SIGKILL)
    engine.start()
    assert (inspected(engine, "container", "placed")["NetworkSettings"], inspected(engine, "network", "mine")) == before
    said(engine, "network", "disconnect", "bridge", "placed")
    said(engine, "run", "--rm", "--network", "mine", "box", "true")


def test_docker_py(engine: Engine) -> None:
    client = docker.DockerClient(base_url=engine.host)
    try:
        pool = docker.types.IPAMPool(subnet="10.88.2.0/24", gateway="10.88.2.1")
        network = client.networks.create(
            "py", driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]), check_duplicate=True,
            internal=True, labels={"k": "v"},
        )  # fmt: skip
        with pytest.raises(docker.errors.APIError, match="network with name py already exists"):
            client.networks.create("py")
        box = client.containers.run("box", ["sleep", "100"], detach=True)
        network.connect(box, ipv4_address="10.88.2.77", aliases=["al"])
        network.reload()
        assert [each.id for each in network.containers] == [box.id]
        box.reload()
        assert box.attrs["NetworkSettings"]["Networks"]["py"]["IPAddress"] == "10.88.2.77"
        assert client.networks.list(names=["py"]) == [network]
        network.disconnect(box)
        assert client.networks.prune(filters={"label": "k=v"}) == {"NetworksDeleted": ["py"]}
    finally:
        client.close()


def test_events(engine: Engine) -> None:
    client = docker.DockerClient(base_url=engine.host)
    try:
        events = client.events(decode=True, filters={"type": "network"})
        said(engine, "network", "create", "mine")
        box = said(engine, "run", "-d", "--network", "mine", "box", "true")
        said(engine, "wait", box)
        said(engine, "rm", box)
        said(engine, "network", "rm", "mine")
        seen = [next(events) for _ in range(4)]
        events.close()
    finally:
        client.close()
    assert [each["Action"] for each in seen] == ["create", "connect", "disconnect", "destroy"]
    assert {each["Actor"]["Attributes"]["name"] for each in seen} == {"mine"}
    assert seen[1]["Actor"]["Attributes"]["container"] == box


def test_our_own_command(engine: Engine) -> None:
    made = engine.sampan(
        "network", "create", "--subnet", "10.88.1.0/24", "--gateway", "10.88.1.9", "--aux-address", "x=10.88.1.1",
        "--label", "a=b", "--internal", "own", check=True,
    ).stdout.strip()  # fmt: skip
    assert engine.sampan("network", "ls", "-q", "--no-trunc", "-f", "label=a=b").stdout == f"{made}\n"
    engine.sampan(
        "run", "-d", "--name", "one", "--network", "own", "--ip", "10.88.1.7", "--network-alias", "first", "box",
        "sleep", "600", check=True,
    )  # fmt: skip
    engine.sampan("run", "-d", "--name", "two", "box", "sleep", "600", check=True)
    engine.sampan("network", "connect", "--ip", "10.88.1.8", "own", "two", check=True)
    shown = inspected(engine, "network", "own")
    assert {each["Name"]: each["IPv4Address"] for each in shown["Containers"].values()} == {
        "one": "10.88.1.7/24", "two": "10.88.1.8/24",
    }  # fmt: skip
    assert (shown["Internal"], shown["IPAM"]["Config"][0]["Gateway"]) == (True, "10.88.1.9")
    assert "first" in inspected(engine, "container", "one")["NetworkSettings"]["Networks"]["own"]["Aliases"]
    assert "eth1" in said(engine, "exec", "two", "ip", "addr")
    engine.sampan("network", "disconnect", "own", "two", check=True)
    assert "eth1" not in said(engine, "exec", "two", "ip", "addr")
    refused = engine.sampan("network", "rm", "own", "none")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 2
    engine.sampan("rm", "-f", "one", "two", check=True)
    assert engine.sampan("network", "prune", "-f").stdout == "own\n"
    done = engine.sampan("network", "create", "--gateway", "10.88.1.9", "bad")
    assert (done.returncode, done.stderr) == (1, "sampan: --ip-range, --gateway and --aux-address need a --subnet\n")


def test_prune_by_age_and_label(engine: Engine) -> None:
    for name, label in (("old", "a=b"), ("other", "c=d")):
        said(engine, "network", "create", "--label", label, name)
    assert said(engine, "network", "prune", "-f", "--filter", "until=1h") == ""
    assert said(engine, "network", "prune", "-f", "--filter", "label=a", "--filter", "until=0s") == (
        "Deleted Networks:\nold"
    )
    refused = engine.docker("network", "prune", "-f", "--filter", "until=soon")
    assert refused.returncode == 1
    assert said(engine, "network", "ls", "-q", "-f", "name=other") != ""


def test_ipv6(engine: Engine) -> None:
    said(
        engine, "network", "create", "--ipv6", "--subnet", "10.88.6.0/24", "--subnet", "fd00:88::/64", "--gateway",
        "fd00:88::fe", "six",
    )  # fmt: skip
    found = inspected(engine, "network", "six")
    assert found["EnableIPv6"] is True
    assert found["IPAM"]["Config"] == [
        {"Subnet": "10.88.6.0/24", "Gateway": "10.88.6.1"}, {"Subnet": "fd00:88::/64", "Gateway": "fd00:88::fe"}
    ]  # fmt: skip
    serve = ("sh", "-c", "while true; do echo hello | nc -l -p 80; done")
    web = said(
        engine, "run", "-d", "--name", "web", "--network", "six", "--ip6", "fd00:88::77", "-p", "80", "box", *serve
    )
    place = inspected(engine, "container", "web")["NetworkSettings"]["Networks"]["six"]
    assert (place["GlobalIPv6Address"], place["GlobalIPv6PrefixLen"], place["IPv6Gateway"]) == (
        "fd00:88::77", 64, "fd00:88::fe"
    )  # fmt: skip
    assert inspected(engine, "network", "six")["Containers"][web]["IPv6Address"] == "fd00:88::77/64"
    assert "fd00:88::77" in said(engine, "exec", "web", "cat", "/etc/hosts")
    published = said(engine, "port", "web", "80/tcp").splitlines()
    assert len(published) == 2
    assert published[1].startswith("[::]:")
    port = published[1].rpartition(":")[2]
    ask = ("run", "--rm", "--network", "six", "box", "sh", "-c")
    assert said(engine, *ask, "nc web 80 </dev/null") == "hello"
    assert said(engine, *ask, "nc fd00:88::77 80 </dev/null") == "hello"
    assert said(engine, *ask, f"nc fd00:88::fe {port} </dev/null") == "hello"
    assert "fd00:88::77" in said(engine, *ask, "nslookup web")
    refused = engine.docker("run", "--rm", "--network", "six", "--ip6", "fd00:88::77", "box", "true")
    assert (refused.returncode, "Address already in use" in refused.stderr) == (125, True)
    # One's own subnet of the addresses that are routed nowhere, if none is given.
    said(engine, "network", "create", "--ipv6", "any")
    assert inspected(engine, "network", "any")["IPAM"]["Config"][1]["Subnet"].startswith("fd")
    assert "needs IPv6 to be enabled" in engine.docker("network", "create", "--subnet", "fd01::/64", "no").stderr
    made = engine.sampan("network", "create", "--ipv6", "--subnet", "fd02::/64", "own", check=True).stdout.strip()
    assert inspected(engine, "network", "own")["IPAM"]["Config"][1]["Subnet"] == "fd02::/64"
    assert made == inspected(engine, "network", "own")["Id"]


def test_sctp_and_a_thousand_ports(engine: Engine) -> None:
    said(
        engine, "run", "-d", "--name", "many", "-p", "127.0.0.1:21000-21999:21000-21999", "-p",
        "127.0.0.1:21000-21999:21000-21999/udp", "-p", "127.0.0.1:21000:21000/sctp", "box", "nc", "-l", "-p", "21999",
    )  # fmt: skip
    assert len(said(engine, "port", "many").splitlines()) == 2001
    assert said(engine, "port", "many", "21000/sctp") == "127.0.0.1:21000"
    ask = ("run", "--rm", "--network", "host", "box", "sh", "-c", "echo | nc 127.0.0.1 21999")
    said(engine, *ask)
    assert said(engine, "wait", "many") == "0"


@pytest.mark.requires("macvlan", "program:ip")
def test_macvlan(engine: Engine) -> None:
    run(["ip", "link", "add", "smpmv0", "type", "veth", "peer", "name", "smpmv1"], check=True)
    try:
        for name in ("smpmv0", "smpmv1"):
            run(["ip", "link", "set", name, "up"], check=True)
        create = ("network", "create", "-d", "macvlan", "--subnet", "10.88.9.0/24", "-o", "parent=smpmv0", "lan")
        said(engine, *create)
        found = inspected(engine, "network", "lan")
        assert (found["Driver"], found["Options"]) == ("macvlan", {"parent": "smpmv0"})
        said(engine, "run", "-d", "--name", "one", "--network", "lan", "box", "sh", "-c", "echo hello | nc -l -p 80")
        assert said(engine, "run", "--rm", "--network", "lan", "box", "sh", "-c", "nc one 80 </dev/null") == "hello"
        said(engine, "run", "-d", "--name", "two", "box", "sleep", "100")
        said(engine, "network", "connect", "lan", "two")
        assert "eth1" in said(engine, "exec", "two", "ip", "addr")
        engine.stop(signal.SIGKILL)
        engine.start()
        said(engine, "network", "disconnect", "lan", "two")
        assert "eth1" not in said(engine, "exec", "two", "ip", "addr")
        assert "parent interface nowhere is not there" in engine.docker(
            "network", "create", "-d", "macvlan", "-o", "parent=nowhere", "bad"
        ).stderr  # fmt: skip
    finally:
        run(["ip", "link", "del", "smpmv0"], check=True)
