"""Names of containers on user-defined networks, asked for by programs in containers."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator

import docker
import pytest

from sampan.errors import SampanError
from tests.e2e import dns
from tests.e2e.conftest import Engine
from tests.e2e.test_networks import inspected, said

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")


@pytest.fixture(autouse=True)
def _networks(engine: Engine) -> Iterator[None]:
    said(engine, "network", "create", "mine")
    yield
    with contextlib.suppress(SampanError):
        engine.remove_containers()
        engine.client.call("POST", "/networks/prune")


def run(engine: Engine, name: str, *options: str, network: str = "mine") -> str:
    """A container that sleeps; its address."""
    said(engine, "run", "-d", "--name", name, "--network", network, *options, "box", "sleep", "600")
    return address(engine, name, network)


def address(engine: Engine, name: str, network: str = "mine") -> str:
    found: str = inspected(engine, "container", name)["NetworkSettings"]["Networks"][network]["IPAddress"]
    return found


def looked_up(engine: Engine, container: str, name: str, *options: str) -> list[str]:
    """The addresses, or names, that a program in the container gets, sorted."""
    done = engine.docker("exec", container, "nslookup", *options, name)
    lines = done.stdout.partition("\n\n")[2].splitlines()
    found = [line.split()[1] for line in lines if line.startswith("Address:")]
    return sorted([*found, *(line.partition("name = ")[2] for line in lines if "name = " in line)])


def resolvers(engine: Engine) -> list[int]:
    """Our resolver's process, found by the socket that it listens at."""
    inode = next(
        (line.split()[6] for line in pathlib.Path("/proc/net/unix").read_text().splitlines()
         if line.endswith(engine.paths.names)),
        "",
    )  # fmt: skip
    found: list[int] = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.joinpath("comm").read_text() != "sampan-names\n":
                continue
            links = [os.readlink(each) for each in path.joinpath("fd").iterdir()]
            if inode and f"socket:[{inode}]" in links:
                found.append(int(path.name))
    return found


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def test_names_aliases_and_ids(engine: Engine) -> None:
    one = run(engine, "one", "--network-alias", "first", "--network-alias", "Both", "-h", "chief")
    two = run(engine, "two", "--network-alias", "both")
    short = inspected(engine, "container", "one")["Id"][:12]
    for name in ("one", "ONE", "first", "chief", short, "one.mine"):
        assert looked_up(engine, "two", name) == [one], name
    assert looked_up(engine, "two", "both") == sorted([one, two])
    assert looked_up(engine, "one", "two") == [two]
    assert looked_up(engine, "two", one) == ["one.mine"]
    assert said(engine, "exec", "two", "cat", "/etc/resolv.conf").splitlines()[0] == "nameserver 127.0.0.11"
    assert "ndots:0" in said(engine, "exec", "two", "cat", "/etc/resolv.conf")
    # What has gone is not found, and neither is what is elsewhere.
    said(engine, "rm", "-f", "one")
    assert looked_up(engine, "two", "both") == [two]
    assert looked_up(engine, "two", "one") == []
    run(engine, "apart", network="bridge")
    assert looked_up(engine, "two", "apart") == []
    assert "127.0.0.11" not in said(engine, "exec", "apart", "cat", "/etc/resolv.conf")


def sandbox(engine: Engine, name: str) -> str:
    found: str = inspected(engine, "container", name)["NetworkSettings"]["SandboxKey"]
    return found


def test_every_kind_of_question(engine: Engine) -> None:
    one = run(engine, "one", "--network-alias", "both")
    run(engine, "two", "--network-alias", "both")
    inside = sandbox(engine, "two")
    for stream in (False, True):
        assert dns.ask(inside, "one", stream=stream).addresses == [one]
        assert dns.ask(inside, "OnE.mine", stream=stream).addresses == [one]
        # A name that is known has no address of IPv6, which is no failure.
        empty = dns.ask(inside, "one", dns.AAAA, stream=stream)
        assert (empty.code, empty.records) == (0, [])
        pointer = dns.ask(inside, ".".join([*reversed(one.split(".")), "in-addr", "arpa"]), dns.PTR, stream=stream)
        assert pointer.records == [b"\3one\4mine\0"]
    firsts = {dns.Answer(dns_raw(inside, "both")).records[0] for _ in range(60)}
    assert len(firsts) == 2  # By turns.


def dns_raw(path: str, name: str) -> bytes:
    with dns.inside(path, socket.SOCK_DGRAM) as asking:
        asking.connect(("127.0.0.11", 53))
        asking.send(dns.question(name))
        return asking.recv(65535)


def test_what_is_no_question_harms_nobody(engine: Engine) -> None:
    one = run(engine, "one")
    inside = sandbox(engine, "one")
    with dns.inside(inside, socket.SOCK_DGRAM) as asking, dns.inside(inside, socket.SOCK_STREAM) as stream:
        asking.connect(("127.0.0.11", 53))
        whole = dns.question("one")
        for data in (b"", b"\0", whole[:20], whole[:12], b"\xff" * 512, whole[:2] + b"\x80" + whole[3:], b"\0" * 9000):
            asking.send(data)
        stream.connect(("127.0.0.11", 53))
        stream.sendall(b"\xff\xff" + whole)  # And never the rest.
        assert dns.ask(inside, "one").addresses == [one]
        assert dns.ask(inside, "one", stream=True).addresses == [one]


def test_connect_disconnect_and_rename(engine: Engine) -> None:
    one = run(engine, "one")
    said(engine, "network", "create", "other")
    run(engine, "late", network="bridge")
    assert looked_up(engine, "late", "one") == []
    said(engine, "network", "connect", "--alias", "nick", "mine", "late")
    late = address(engine, "late")
    assert said(engine, "exec", "late", "cat", "/etc/resolv.conf").startswith("nameserver 127.0.0.11\n")
    assert looked_up(engine, "late", "one") == [one]
    assert looked_up(engine, "one", "late") == looked_up(engine, "one", "nick") == [late]
    # What somebody wrote there stays.
    said(engine, "network", "disconnect", "mine", "late")
    assert looked_up(engine, "one", "nick") == looked_up(engine, "late", "one") == []
    said(engine, "exec", "late", "sh", "-c", "echo nameserver 10.1.1.1 >/etc/resolv.conf")
    said(engine, "network", "connect", "other", "late")
    assert said(engine, "exec", "late", "cat", "/etc/resolv.conf") == "nameserver 10.1.1.1"
    # On two networks, each is known where it is.
    said(engine, "network", "connect", "other", "one")
    assert dns.ask(sandbox(engine, "late"), "one").addresses == [address(engine, "one", "other")]
    said(engine, "rename", "one", "uno")
    assert looked_up(engine, "uno", "uno") == [one]
    assert dns.ask(sandbox(engine, "late"), "one").addresses == []


def test_a_restart_and_a_shared_alias(engine: Engine) -> None:
    one = run(engine, "one", "--network-alias", "both")
    two = run(engine, "two", "--network-alias", "both")
    said(engine, "stop", "-t", "0", "one")
    assert looked_up(engine, "two", "both") == [two]
    run(engine, "three")
    said(engine, "start", "one")
    again = address(engine, "one")
    assert looked_up(engine, "two", "both") == sorted([again, two])
    said(engine, "restart", "-t", "0", "two")
    assert looked_up(engine, "two", "one") == [again]
    # A container that ends and begins anew by its policy keeps its place.
    said(engine, "run", "-d", "--name", "again", "--restart", "always", "--network", "mine", "box", "sleep", "600")
    place = address(engine, "again")
    os.kill(int(said(engine, "inspect", "-f", "{{.State.Pid}}", "again")), signal.SIGKILL)
    assert until(lambda: said(engine, "inspect", "-f", "{{.RestartCount}} {{.State.Restarting}}", "again") == "1 false")
    assert looked_up(engine, "again", "one") == [again]
    assert looked_up(engine, "one", "again") == [place]
    assert one != two


def test_names_while_the_engine_is_away(engine: Engine) -> None:
    one = run(engine, "one")
    run(engine, "two")
    run(engine, "short")
    inside, pid = sandbox(engine, "two"), int(said(engine, "inspect", "-f", "{{.State.Pid}}", "short"))
    before = resolvers(engine)
    assert len(before) == 1
    engine.stop(signal.SIGKILL)
    try:
        for stream in (False, True):
            assert dns.ask(inside, "one", stream=stream).addresses == [one]
        # One that ends meanwhile is not there any more.
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: not dns.ask(inside, "short").addresses)
    finally:
        engine.start()
    assert resolvers(engine) == before
    assert looked_up(engine, "two", "one") == [one]
    three = run(engine, "three")
    assert looked_up(engine, "two", "three") == [three]
    said(engine, "rm", "-f", "one")
    assert looked_up(engine, "two", "one") == []


def test_a_resolver_that_is_killed(engine: Engine) -> None:
    one = run(engine, "one")
    run(engine, "two", "--network-alias", "nick")
    (pid,) = resolvers(engine)
    os.kill(pid, signal.SIGKILL)
    inside = sandbox(engine, "two")

    def answers() -> bool:
        try:
            return dns.ask(inside, "one").addresses == [one]
        except OSError:
            return False

    assert until(answers)
    assert resolvers(engine) not in ([], [pid])
    assert looked_up(engine, "one", "nick") == [address(engine, "two")]
    run(engine, "three")
    assert looked_up(engine, "three", "one") == [one]
    # Killed while the engine is away, it is there again when the engine is.
    (pid,) = resolvers(engine)
    engine.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    engine.start()
    assert looked_up(engine, "three", "one") == [one]


def test_it_ends_with_the_last_who_needs_it(engine: Engine) -> None:
    run(engine, "one")
    pid = int(said(engine, "inspect", "-f", "{{.State.Pid}}", "one"))
    (resolver,) = resolvers(engine)
    engine.stop()
    try:
        assert pathlib.Path(f"/proc/{resolver}").exists()
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: not pathlib.Path(f"/proc/{resolver}").exists())
    finally:
        engine.start()


def test_servers_of_its_own(engine: Engine) -> None:
    said(engine, "network", "create", "--subnet", "10.88.7.0/24", "fixed")
    said(engine, "network", "create", "--subnet", "10.88.8.0/24", "--internal", "closed")
    known = {"out.example": "192.0.2.7", "long.example": "192.0.2.8"}
    sockets = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    with dns.server(("10.88.7.1", 53), known, *sockets) as asked:
        run(
            engine, "own", "--dns", "10.88.7.1", "--dns-search", "example", "--dns-option", "timeout:3", network="fixed"
        )  # fmt: skip
        lines = said(engine, "exec", "own", "cat", "/etc/resolv.conf").splitlines()
        assert lines == ["nameserver 127.0.0.11", "search example", "options timeout:3 ndots:0"]
        inside = sandbox(engine, "own")
        assert dns.ask(inside, "out.example").addresses == ["192.0.2.7"]
        assert dns.ask(inside, "own").addresses == [address(engine, "own", "fixed")]
        assert dns.ask(inside, "nobody.example").code == 3
        assert dns.ask(inside, "long.example").truncated
        assert dns.ask(inside, "long.example", stream=True).addresses == ["192.0.2.8"]
        assert set(asked) == {"out.example", "nobody.example", "long.example"}
        # Nothing leads out of an internal network, neither a name.
        run(engine, "shut", "--dns", "10.88.7.1", network="closed")
        run(engine, "silent", network="closed")
        for name in ("shut", "silent"):
            assert dns.ask(sandbox(engine, name), "out.example").code == 2, name
        assert "own" not in asked


def test_a_container_that_serves_port_53_itself(engine: Engine) -> None:
    one = run(engine, "one")
    two = run(engine, "two")
    known = {"served.example": "192.0.2.9"}
    own = sandbox(engine, "one")
    sockets = (dns.inside(own, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    with dns.server(("0.0.0.0", 53), known, *sockets):
        for stream in (False, True):
            # By its own address and by 127.0.0.1 it is the container's; only 127.0.0.11 is the resolver's.
            for server, inside in ((one, sandbox(engine, "two")), ("127.0.0.1", own), (one, own)):
                assert dns.ask(inside, "served.example", stream=stream, server=server).addresses == ["192.0.2.9"]
            assert dns.ask(own, "two", stream=stream).addresses == [two]


def test_docker_py_and_a_c_library(engine: Engine) -> None:
    engine.sampan("image", "from-host", "getent", shutil.which("getent") or "/usr/bin/getent", check=True)
    client = docker.DockerClient(base_url=engine.host)
    try:
        server = client.containers.run("box", ["sleep", "600"], name="server", network="mine", detach=True)
        ask = {"name": "asks", "network": "mine", "remove": True}
        words = client.containers.run("getent", ["getent", "ahosts", "server"], **ask).decode().split()
        server.reload()
        assert words[0] == server.attrs["NetworkSettings"]["Networks"]["mine"]["IPAddress"]
        back = client.containers.run("getent", ["getent", "hosts", words[0]], **ask).decode().split()
        assert back == [words[0], "server.mine"]
    finally:
        client.close()


def test_our_own_command(engine: Engine) -> None:
    engine.sampan("run", "-d", "--name", "one", "--network", "mine", "box", "sleep", "600", check=True)
    done = engine.sampan("run", "--rm", "--network", "mine", "box", "nslookup", "one", check=True)
    assert address(engine, "one") in done.stdout
