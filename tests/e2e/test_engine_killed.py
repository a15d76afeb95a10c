"""The engine is killed in the middle of everything: what runs goes on, and the next engine knows what happened."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def test_output_attachment_and_status_survive(engine: Engine) -> None:
    docker = engine.docker
    count = "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 6"
    docker("run", "-d", "--name", "counts", "box", "sh", "-c", count, check=True)
    docker("run", "-d", "--name", "stays", "box", "sleep", "600", check=True)
    docker("run", "-d", "--name", "ends", "box", "sh", "-c", "sleep 0.7; exit 9", check=True)
    attached = subprocess.Popen(
        ["docker", "attach", "--no-stdin", "counts"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=engine.environment,
    )  # fmt: skip
    time.sleep(0.3)
    engine.stop(signal.SIGKILL)
    time.sleep(1)
    engine.start()
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends").stdout == "exited 9\n"
    assert docker("exec", "stays", "echo", "alive").stdout == "alive\n"
    assert docker("wait", "counts").stdout == "6\n"
    # No line is missing in the log, and none in what the client saw from its first line on.
    assert docker("logs", "counts").stdout == "".join(f"{number}\n" for number in range(400))
    seen = [int(line) for line in attached.communicate(timeout=20)[0].split()]
    assert seen == list(range(seen[0], 400))
    docker("rm", "-f", "counts", "stays", "ends", check=True)
    assert engine.left_over() == []


def test_a_restart_policy_holds_without_an_engine(engine: Engine) -> None:
    docker = engine.docker
    docker("run", "-d", "--name", "again", "--restart", "always", "box", "sh", "-c", "echo run; sleep 0.2", check=True)
    engine.stop(signal.SIGKILL)
    time.sleep(1.5)
    engine.start()
    state = json.loads(docker("inspect", "again").stdout)[0]
    assert state["State"]["Status"] in ("running", "restarting")
    assert state["RestartCount"] >= 2
    assert docker("logs", "again").stdout.count("run\n") >= 3
    docker("rm", "-f", "again", check=True)


def test_a_container_that_removes_itself_is_removed_by_the_next_engine(engine: Engine) -> None:
    docker = engine.docker
    docker("run", "-d", "--rm", "--name", "self", "box", "sleep", "0.5", check=True)
    engine.stop(signal.SIGKILL)
    time.sleep(1)
    engine.start()
    for _ in range(50):
        if not docker("ps", "-aq").stdout:
            break
        time.sleep(0.1)
    assert docker("ps", "-aq").stdout == ""
    assert engine.left_over() == []


def test_a_killed_shim_takes_its_container_along_and_no_other(engine: Engine) -> None:
    docker = engine.docker
    for name in ("victim", "other"):
        docker("run", "-d", "--name", name, "box", "sleep", "600", check=True)
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", "victim").stdout)
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        shim = int(file.read().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    assert docker("wait", "victim", check=True).stdout == "137\n"
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", "victim").stdout == (
        "exited the shim has died\n"
    )
    assert not pathlib.Path(f"/proc/{pid}/root/bin").exists()
    assert docker("exec", "other", "echo", "alive").stdout == "alive\n"
    # Nothing of the first run stands in the way of the next.
    docker("start", "victim", check=True)
    assert docker("exec", "victim", "echo", "again").stdout == "again\n"
    docker("rm", "-f", "victim", "other", check=True)
    assert engine.left_over() == []
