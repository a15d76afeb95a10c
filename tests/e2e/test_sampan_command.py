"""Our own command, and the README's two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")


def test_run_gives_streams_and_status(engine: Engine) -> None:
    done = engine.sampan("run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert engine.sampan("run", "--rm", "-i", "box", "cat", stdin=b"in").stdout == "in"
    missing = engine.sampan("run", "--rm", "box", "nope")
    assert missing.returncode == 127
    assert missing.stderr.count("\n") == 1
    assert engine.sampan("run", "--nonsense", "box").returncode == 125
    assert engine.sampan("run", "--pull", "never", "nosuch", "true").returncode == 125


def test_a_container_from_create_to_rm(engine: Engine, tmp_path: object) -> None:
    sampan = engine.sampan
    cidfile = f"{tmp_path}/cid"
    made = sampan("create", "--name", "own", "--cidfile", cidfile, "-l", "k=v", "box", "sleep", "600", check=True)
    with open(cidfile) as file:
        assert file.read() == made.stdout.strip()
    assert sampan("start", "own").stdout == "own\n"
    assert sampan("ps", "--format", "{{.Names}} {{.State}}", "-f", "label=k=v").stdout == "own running\n"
    assert sampan("exec", "-e", "X=y", "own", "sh", "-c", "echo $X; exit 7").returncode == 7
    assert json.loads(sampan("inspect", "own").stdout)[0]["Name"] == "/own"
    assert sampan("inspect", "-f", "{{.Config.Labels}}", "own").stdout == "map[k:v]\n"
    assert sampan("rename", "own", "own2").returncode == 0
    assert sampan("stop", "-t", "0", "own2").stdout == "own2\n"
    assert sampan("wait", "own2").stdout == "137\n"
    assert sampan("rm", "own2").stdout == "own2\n"
    assert sampan("rm", "own2").stderr == "sampan: No such container: own2\n"


def test_a_signal_goes_through(engine: Engine) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sampan.cli.__main__", "run", "--rm", "box", "sh", "-c",
         "trap 'echo got; exit 4' TERM; echo ready; while true; do sleep 0.05; done"],
        stdout=subprocess.PIPE, env=engine.environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == b"got\n"
    assert process.returncode == 4


def test_an_image_of_this_machines_programs(engine: Engine) -> None:
    packed = engine.sampan("image", "from-host", "tools", "sh", "ls", check=True)
    assert packed.stdout.endswith("Loaded image: tools:latest\n")  # After its progress, where that takes long.
    assert "tmp" in engine.sampan("run", "--rm", "tools", "/bin/sh", "-c", "ls /").stdout
    assert "not found on the PATH" in engine.sampan("image", "from-host", "bad", "surely-not-there").stderr
    assert engine.sampan("rmi", "tools").returncode == 0


def test_a_full_log_is_followed_to_its_end(engine: Engine) -> None:
    engine.sampan("run", "-d", "--name", "log", "box", "sh", "-c", "echo one; sleep 0.5; echo two", check=True)
    assert engine.sampan("logs", "-f", "log").stdout == "one\ntwo\n"
    assert engine.sampan("logs", "-n", "1", "log").stdout == "two\n"
    engine.sampan("rm", "log", check=True)


def test_an_engine_on_demand(engine: Engine, short_dir: object) -> None:
    """Started without being asked for, it answers, and goes when it is idle."""
    root = str(short_dir)
    process = subprocess.Popen(
        [
            sys.executable, "-I", "-m", "sampan.engine", "--on-demand", "--idle-timeout", "1",
            "--data-root", f"{root}/data", "--exec-root", f"{root}/run", "--bip", "172.31.250.1/24",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(100):
        if os.path.exists(f"{root}/run/sampan.sock"):
            break
        time.sleep(0.05)
    assert process.wait(60) == 0
    from sampan.core.paths import Paths
    from tests.e2e.conftest import take_down

    take_down(Paths(f"{root}/data", f"{root}/run"), "172.31.250.1/24")
