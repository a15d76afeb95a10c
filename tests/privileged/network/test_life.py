"""An endpoint's life, and what becomes of it when an engine is killed or someone else tidies up the host."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import Conflict, ResourceExhausted, Unavailable
from sampan.network.controller import NetworkController
from sampan.network.endpoints import PortRequest
from sampan.network.sandboxes import SandboxPool
from tests.privileged.network.lab import Lab, ask, inside, on_own_host, open_netns, run

pytestmark = pytest.mark.requires("root", "netns", "bridge", "veth", "nftables", "program:ip", "program:nft")


def veths() -> set[str]:
    return {link["ifname"] for link in json.loads(run("ip", "-j", "link")) if link["ifname"].startswith("veth")}


def until(condition: Callable[[], bool]) -> None:
    """The kernel takes namespaces down in its own time."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def published() -> list[Any]:
    """The elements of both maps."""
    listed = json.loads(run("nft", "-j", "list", "maps"))["nftables"]
    return [element for each in listed if "map" in each for element in each["map"].get("elem", ())]


def pins(lab: Lab) -> set[str]:
    return {f"{lab.settings.netns_dir}/{name}" for name in os.listdir(lab.settings.netns_dir)}


@on_own_host
def test_an_endpoint_leaves_nothing(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        web = lab.container("web", "8080:80", "80/udp")
        address = inside(web.path, lambda: run("ip", "-j", "addr", "show", "eth0"))
        links = inside(web.path, lambda: run("ip", "-j", "link", "show", "eth0"))
        assert {each["local"] for each in json.loads(address)[0]["addr_info"]} == {"172.17.0.2"}
        assert json.loads(links)[0]["address"] == "02:42:ac:11:00:02" == web.mac
        assert veths() == {web.host_interface}
        assert len(published()) == 2
        (tcp, udp) = lab.controller.bindings("web")
        assert (tcp.host_ip, tcp.host_port, tcp.container_port, tcp.protocol) == ("0.0.0.0", 8080, 80, "tcp")
        assert 32768 <= udp.host_port <= 60999
        assert lab.controller.network("bridge").endpoints == (web,)
        for server in lab.servers:
            server.close()
        lab.servers.clear()
        lab.controller.release("web")
        lab.controller.release("web")
        assert lab.controller.endpoint("web") is None
        assert lab.controller.bindings("web") == ()
        assert published() == []
        assert pins(lab) == set()
        until(lambda: not veths())
        assert lab.controller.allocate("bridge").ip == "172.17.0.3"


@on_own_host
def test_publishing_is_all_or_nothing(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        lab.container("one", "8080:80")
        two = lab.container("two")
        with pytest.raises(ResourceExhausted) as caught:
            lab.publish(two, "8081:81", "8080:80")
        assert caught.value.message == (
            f"driver failed programming external connectivity on endpoint two ({two.id}): "
            "Bind for 0.0.0.0:8080 failed: port is already allocated"
        )
        lab.serve("foreign", None, 8082, socket.SOCK_STREAM)
        with pytest.raises(ResourceExhausted) as caught:
            lab.publish(two, "8081:81", "8082:80")
        assert caught.value.message.endswith(
            f": failed to bind host port for 0.0.0.0:8082:{two.ip}:80/tcp: address already in use"
        )
        assert len(published()) == 1
        assert lab.controller.bindings("two") == ()
        lab.publish(two, "8081:81")
        assert ask(None, "127.0.0.1", 8081).startswith("two")


@on_own_host
def test_a_thousand_ports_are_one_rule_set(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        web = lab.container("web")
        rules = run("nft", "list", "table", "ip", "smplab").count("dnat")
        requests = [
            PortRequest(container_port=port, host_ip="127.0.0.1", host_port_first=port, host_port_last=port)
            for port in range(20000, 21000)
        ]
        done = lab.controller.publish(web, requests)
        lab.sockets += done.sockets
        assert [binding.host_port for binding in done.bindings] == list(range(20000, 21000))
        assert len(published()) == 1000
        assert run("nft", "list", "table", "ip", "smplab").count("dnat") == rules
        lab.serve("web", web.path, 20999, socket.SOCK_STREAM)
        assert ask(None, "127.0.0.1", 20999).startswith("web")
        lab.controller.release("web")
        assert published() == []


@on_own_host
def test_flushed_rules_are_restored(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        lab.container("web", "8080:80")
        pristine = run("nft", "list", "table", "ip", "smplab")
        for harm in ("flush ruleset", "flush table ip smplab", "flush map ip smplab ports", "delete table ip smplab"):
            lab.controller.repair()
            run("nft", harm)
            assert run("nft", "list", "ruleset") != pristine
            lab.controller.repair()
            assert run("nft", "list", "table", "ip", "smplab") == pristine
            assert ask(None, "127.0.0.1", 8080).startswith("web")
        run("nft", "flush ruleset")
        lab.container("next", "8081:80")  # Without anyone having called for a repair.
        assert ask(None, "127.0.0.1", 8080).startswith("web")
        assert ask(None, "127.0.0.1", 8081).startswith("next")
        run("nft", "flush ruleset")
        lab.controller.release("next")
        assert ask(None, "127.0.0.1", 8080).startswith("web")


@on_own_host
def test_a_bridge_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        web = lab.container("web", "8080:80")
        run("ip", "link", "del", "smplab0")
        next_one = lab.container("next")  # Attaching finds out by itself.
        assert ask(next_one.path, web.ip, 80) == f"web {next_one.ip}"
        run("ip", "link", "del", "smplab0")
        lab.controller.repair()
        assert ask(None, "127.0.0.1", 8080).startswith("web")


@on_own_host
def test_a_new_engine_keeps_the_living_and_removes_the_rest(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        web = lab.container("web", "8080:80")
        lab.container("dead", "8081:80")
        pooled = lab.controller.allocate("bridge")
        os.close(open_netns(pooled.path))
        os.close(open_netns(f"{lab.settings.netns_dir}/stray"))
        run("ip", "link", "add", f"{web.host_interface[:8]}stray", "type", "veth", "peer", "name", "vethother")
        run("ip", "link", "set", "vethother", "up")
        run("nft", "flush ruleset")
        run("ip", "link", "del", "smplab0")
        lab.controller.close()
        lab.controller = lab.open_controller()
        lab.controller.setup()
        lab.controller.adopt(["web"])
        assert pins(lab) == {web.path}
        assert veths() == {web.host_interface}
        assert len(published()) == 1
        assert lab.controller.endpoint("web") == web
        assert lab.controller.endpoint("dead") is None
        assert ask(None, "127.0.0.1", 8080).startswith("web")
        with pytest.raises(ResourceExhausted, match="already allocated"):
            lab.container("other", "8080:80")


@on_own_host
def test_killed_at_any_instruction(tmp_path: Path) -> None:
    chance = random.Random(7)
    with Lab(str(tmp_path)) as lab:
        web = lab.container("web", "8080:80")
        for _ in range(12):
            lab.controller.close()
            program = f"from tests.privileged.network.lab import churn; churn({lab.tmp!r})"
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as churning:
                assert churning.stdout is not None
                assert churning.stdout.readline() == b"ready\n"
                time.sleep(chance.uniform(0, 0.06))
                churning.send_signal(signal.SIGKILL)
            lab.controller = lab.open_controller()
            lab.controller.setup()
            lab.controller.adopt(["web"])
            assert veths() == {web.host_interface}
            assert pins(lab) == {web.path}
            assert len(published()) == 1
            assert lab.controller.network("bridge").endpoints == (web,)
        assert ask(None, "127.0.0.1", 8080).startswith("web")


@on_own_host
def test_an_attachment_that_fails_leaves_no_interface(tmp_path: Path) -> None:
    with Lab(str(tmp_path)) as lab:
        endpoint = lab.controller.allocate("bridge", "web")
        fd = open_netns(endpoint.path)
        inside(endpoint.path, lambda: run("ip", "link", "add", "eth0", "type", "bridge"))
        with pytest.raises(Unavailable, match="File exists"):
            lab.controller.attach(endpoint, fd)
        os.close(fd)
        assert veths() == set()
        lab.controller.discard(endpoint)
        assert pins(lab) == set()
        assert lab.controller.endpoint("web") is None


@on_own_host
def test_the_subnet_avoids_what_the_host_uses_and_follows_the_setting(tmp_path: Path) -> None:
    run("ip", "link", "add", "vpn0", "type", "bridge")
    run("ip", "link", "set", "vpn0", "up")
    run("ip", "route", "add", "172.16.0.0/14", "dev", "vpn0")
    with Lab(str(tmp_path)) as lab:
        assert lab.controller.network("bridge").subnet == "172.20.0.0/16"
        web = lab.container("web")
        lab.controller.close()
        lab.settings = lab.settings_for(lab.tmp, bridge_address="10.77.0.1/24")
        lab.controller = lab.open_controller()
        lab.controller.setup()
        # While a container has an address of the old subnet, it stays.
        lab.controller.adopt(["web"])
        assert lab.controller.network("bridge").gateway == web.gateway
        assert ask(None, web.ip, 80).startswith("web")
        lab.controller.adopt(())
        assert lab.controller.network("bridge").gateway == "10.77.0.1"
        web = lab.container("web", "8080:80")
        assert web.ip == "10.77.0.2"
        assert ask(None, "127.0.0.1", 8080) == "web 10.77.0.1"
        assert "172.20" not in run("ip", "addr", "show", "smplab0") + run("nft", "list", "ruleset")


@on_own_host
def test_a_subnet_that_another_interface_has_is_refused(tmp_path: Path) -> None:
    run("ip", "link", "add", "other0", "type", "bridge")
    run("ip", "address", "add", "10.77.0.9/16", "dev", "other0")
    with Lab(str(tmp_path)) as lab:
        lab.controller.close()
        lab.settings = lab.settings_for(lab.tmp, bridge_address="10.77.1.1/24")
        lab.controller = lab.open_controller()
        with pytest.raises(Conflict, match=r"address 10\.77\.1\.1/24: interface other0 has an address of that network"):
            lab.controller.setup()
        run("ip", "link", "delete", "other0")
        lab.controller.setup()
        assert lab.controller.network("bridge").gateway == "10.77.1.1"


@on_own_host
def test_ready_sandboxes(tmp_path: Path) -> None:
    async def opened(path: str) -> int:
        return await asyncio.to_thread(open_netns, path)

    async def scenario(lab: Lab, controller: NetworkController) -> None:
        pool = SandboxPool(controller, opened, opened, asyncio.to_thread, {"bridge": 2, "none": 1})
        first = await pool.take("bridge", "first")  # Not filled yet: made on the spot.
        pool.start()

        async def filled() -> None:
            while pool.ready("bridge") < 2 or pool.ready("none") < 1:
                await asyncio.sleep(0.01)

        async def restored(rules: str) -> None:
            while run("nft", "list", "ruleset") != rules:
                await asyncio.sleep(0.05)

        await asyncio.wait_for(filled(), 10)
        assert len(pins(lab)) == 4
        assert controller.network("bridge").endpoints == (first,)
        second = await pool.take("bridge", "second")
        assert pool.ready("bridge") == 1
        assert controller.endpoint("second") == second
        assert second.container_id == "second"
        # Wired already.
        lab.serve("second", second.path, 80, socket.SOCK_STREAM)
        assert await asyncio.to_thread(ask, first.path, second.ip, 80) == f"second {first.ip}"
        custom = await pool.take("bridge", "custom", mac="02:00:00:00:00:01")
        assert "02:00:00:00:00:01" in await asyncio.to_thread(inside, custom.path, lambda: run("ip", "link"))
        alone = await pool.take("none", "alone")
        assert alone.network == "none"
        await asyncio.wait_for(filled(), 10)
        lab.publish(second, "8080:80")
        await pool.release("second")
        assert published() == []
        await pool.release("first")
        before = run("nft", "list", "ruleset")
        run("nft", "flush ruleset")
        await asyncio.wait_for(restored(before), 10)
        await pool.release("nobody")
        await pool.close()
        assert pins(lab) == {custom.path, alone.path}

    with Lab(str(tmp_path)) as lab:
        asyncio.run(scenario(lab, lab.controller))


@on_own_host
def test_a_pool_that_cannot_fill_raises_where_it_is_asked(tmp_path: Path) -> None:
    async def refuse(path: str) -> int:
        raise Unavailable("no spawner")

    async def scenario(lab: Lab) -> None:
        pool = SandboxPool(lab.controller, refuse, refuse, asyncio.to_thread, {"bridge": 1})
        pool.start()
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="no spawner"):
            await pool.take("bridge", "web")
        await pool.close()
        assert lab.controller.endpoint("web") is None

    with Lab(str(tmp_path)) as lab:
        asyncio.run(scenario(lab))
        assert pins(lab) == set()
