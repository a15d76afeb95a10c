"""`update`: what a container is made of is changed, it keeps its files, and Docker's own command works as ever."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import time
from typing import Any

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "veth", "nftables", "program:docker", "program:busybox")

SERVE = "while :; do echo hello | nc -l -p 80; done"


def inspected(engine: Engine, name: str = "web") -> Any:
    return json.loads(engine.docker("inspect", name, check=True).stdout)[0]


def ports(engine: Engine) -> dict[str, list[str]]:
    shown = inspected(engine)["NetworkSettings"]["Ports"]
    return {port: [each["HostPort"] for each in bound] for port, bound in shown.items() if bound}


def free_ports(count: int) -> list[int]:
    """Not of those that the kernel gives to whoever does not care."""
    found: list[int] = []
    for port in range(20000, 30000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def answers(port: int) -> bool:
    """Whether somebody who is not us serves that port of the loopback's."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                if connection.recv(10) == b"hello\n":
                    return True
        except OSError:  # Between two of nc's.
            time.sleep(0.1)
    return False


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def test_published_ports_change_while_it_runs(engine: Engine) -> None:
    one, two, three = free_ports(3)
    engine.docker("run", "-d", "--name", "web", "-p", f"127.0.0.1:{one}:80", "box", "sh", "-c", SERVE, check=True)
    pid = inspected(engine)["State"]["Pid"]
    assert answers(one)

    engine.sampan("update", "-p", f"127.0.0.1:{two}:80", "web", check=True)
    assert ports(engine) == {"80/tcp": [str(one), str(two)]}
    assert answers(one)
    assert answers(two)
    assert not is_free(two)

    engine.sampan("update", "--publish-rm", "80", "-p", f"127.0.0.1:{three}:80", "web", check=True)
    assert ports(engine) == {"80/tcp": [str(three)]}
    assert answers(three)
    assert is_free(one)
    assert is_free(two)
    assert inspected(engine)["State"]["Pid"] == pid

    # What is not to be had changes nothing.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one))
        taken.listen()
        done = engine.sampan("update", "-p", f"127.0.0.1:{two}:80", "-p", f"127.0.0.1:{one}:80", "web")
        assert done.returncode == 1
        assert "address already in use" in done.stderr
    assert ports(engine) == {"80/tcp": [str(three)]}
    assert is_free(two)
    assert list(inspected(engine)["HostConfig"]["PortBindings"]) == ["80/tcp"]
    assert len(inspected(engine)["HostConfig"]["PortBindings"]["80/tcp"]) == 1
    assert answers(three)

    # It stays so, whoever comes and goes.
    engine.stop(signal.SIGKILL)
    assert answers(three)
    assert not is_free(three)
    engine.start()
    assert ports(engine) == {"80/tcp": [str(three)]}
    engine.docker("restart", "-t", "0", "web", check=True)
    assert ports(engine) == {"80/tcp": [str(three)]}
    assert answers(three)
    # The same port of the host's, to another one of the container's.
    engine.sampan("update", "--publish-rm", "80", "-p", f"127.0.0.1:{three}:81", "web", check=True)
    assert ports(engine) == {"81/tcp": [str(three)]}
    engine.sampan("update", "--publish-rm", "81", "web", check=True)
    assert ports(engine) == {}
    engine.docker("rm", "-f", "web", check=True)
    assert is_free(three)
    assert engine.left_over() == []


def test_what_it_is_made_of_changes_at_its_next_start(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    say = "echo kept >> /data/own; echo $ONE $TWO; sleep 600"
    words = ["-e", "ONE=1", "-v", "/anonymous", "--tmpfs", "/scratch", "--label", "tier=front", "--label", "old=1"]
    engine.docker("run", "-d", "--name", "web", *words, "box", "sh", "-c", say, check=True)
    volume = inspected(engine)["Mounts"][0]["Name"]
    done = engine.sampan(
        "update", "-e", "TWO=2", "-e", "ONE=one", "-l", "tier=back", "--label-rm", "old", "-v", f"{tmp_path}:/in:ro",
        "--mount-add", "type=volume,source=named,target=/data/volume", "--mount-rm", "/scratch", "web", check=True,
    )  # fmt: skip
    assert "from the container's next start on" in done.stderr
    engine.sampan(
        "update",
        "--env-rm",
        "PATH",
        "-e",
        "THREE=3",
        "--args",
        "sh -c 'echo $ONE $TWO $THREE; sleep 600'",
        "web",
        check=True,
    )
    # What runs is as it was, and says so.
    now = inspected(engine)
    assert "ONE=1" in now["Config"]["Env"]
    assert now["AtNextStart"]["Env"][-2:] == ["TWO=2", "THREE=3"]
    assert now["Config"]["Labels"] == {"tier": "back"}
    assert {each["Destination"] for each in now["Mounts"]} == {"/anonymous", "/scratch"} - (
        {"/scratch"} if len(now["Mounts"]) == 1 else set()
    )
    assert engine.docker("exec", "web", "ls", "/in").returncode != 0
    # A volume that it will have is not to be taken away from it.
    assert engine.docker("volume", "rm", "named").returncode != 0

    engine.docker("restart", "-t", "0", "web", check=True)
    now = inspected(engine)
    assert "AtNextStart" not in now
    assert now["Config"]["Cmd"] == ["sh", "-c", "echo $ONE $TWO $THREE; sleep 600"]
    deadline = time.monotonic() + 10
    while "one 2 3" not in engine.docker("logs", "web").stdout and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.docker("logs", "web").stdout.splitlines() == ["1", "one 2 3"]
    assert engine.docker("exec", "web", "cat", "/in/in").stdout == "from the host\n"
    assert engine.docker("exec", "web", "touch", "/in/x").returncode != 0
    assert engine.docker("exec", "web", "cat", "/data/own").stdout == "kept\n"
    by_place = {each["Destination"]: each.get("Name") for each in now["Mounts"]}
    assert by_place["/anonymous"] == volume
    assert by_place["/data/volume"] == "named"
    engine.docker("rm", "-fv", "web", check=True)
    engine.docker("volume", "rm", "named", check=True)
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_one_that_does_not_run_is_changed_at_once(engine: Engine) -> None:
    engine.docker("create", "--name", "web", "-e", "A=1", "box", "sh", "-c", "echo $A $B", check=True)
    engine.sampan("update", "-e", "B=2", "-v", "filled:/data", "web", check=True)
    assert "B=2" in inspected(engine)["Config"]["Env"]
    assert engine.docker("start", "-a", "web").stdout == "1 2\n"
    # A new volume gets what the image has there, as at a creation.
    engine.sampan("update", "--args", "cat /data/file", "web", check=True)
    assert engine.docker("start", "-a", "web").stdout == "from the image\n"
    engine.sampan("update", "--entrypoint", "echo said", "--args", "", "web", check=True)
    assert engine.docker("start", "-a", "web").stdout == "said\n"
    engine.docker("rm", "web", check=True)
    engine.docker("volume", "rm", "filled", check=True)


def test_an_edit_waits_for_the_next_engine_too(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "web", "box", "sleep", "600", check=True)
    engine.sampan("update", "--args", "echo edited", "web", check=True)
    engine.stop(signal.SIGKILL)
    engine.start()
    assert inspected(engine)["Config"]["Cmd"] == ["sleep", "600"]
    engine.docker("stop", "-t", "0", "web", check=True)
    assert engine.docker("start", "-a", "web").stdout == "edited\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env-add", "=x"], "invalid environment variable: =x"),
        (["--args", ""], "no command specified"),
        (["--args", "'"], 'invalid argument "\'" for --args'),
        (["-v", "a:b:c:d"], "invalid volume specification: 'a:b:c:d'"),
        (["--mount-add", "type=bind,source=/nope,target=/x"], "bind source path does not exist: /nope"),
        (["--mount-rm", "/x"], "nothing that was asked for is mounted at /x"),
        (["--publish-rm", "80"], "port 80/tcp is not published"),
        (["-p", "99999:1"], "invalid hostPort: 99999"),
        (["--restart", "sometimes"], "invalid restart policy: unknown policy 'sometimes'"),
        (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
    ],
)
def test_what_is_refused_changes_nothing(engine: Engine, words: list[str], message: str) -> None:
    engine.docker("run", "-d", "--name", "web", "box", "sleep", "600", check=True)
    before = inspected(engine)
    done = engine.sampan("update", *words, "-l", "new=1", "web")
    assert done.returncode == 1
    assert message in done.stderr
    assert inspected(engine) == before


def test_on_the_hosts_network_nothing_is_published(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "web", "--network", "host", "box", "sleep", "600", check=True)
    done = engine.sampan("update", "-p", "20001:80", "web")
    assert "conflicting options: port publishing and network mode host" in done.stderr


def test_dockers_own(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "web", "-e", "A=1", "-p", "127.0.0.1::80", "box", "sleep", "600", check=True)
    before = inspected(engine)
    assert (
        engine.docker(
            "update", "--memory", "64m", "--memory-swap", "64m", "--restart", "on-failure:2", "web", check=True
        ).stdout
        == "web\n"
    )
    now = inspected(engine)
    assert now["HostConfig"]["Memory"] == 64 << 20
    assert now["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert now["Config"] == before["Config"]
    assert now["NetworkSettings"]["Ports"] == before["NetworkSettings"]["Ports"]
    done = engine.docker("update", "--memory", "128m", "web")
    assert "Memory limit should be smaller than already set memoryswap limit, update the memoryswap" in done.stderr
    engine.docker("update", "--cpus", "0.5", "web", check=True)
    done = engine.docker("update", "--cpu-quota", "20000", "web")
    assert "CPU Quota cannot be updated as NanoCPUs has already been set" in done.stderr
    group = pathlib.Path(f"/sys/fs/cgroup/memory/sampan/{now['Id']}/memory.limit_in_bytes")
    if os.path.exists(group):
        assert group.read_text().strip() == str(64 << 20)
