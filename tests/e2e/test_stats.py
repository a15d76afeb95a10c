"""What containers use, as the docker command, docker-py and our own command read it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import Any

import docker
import pytest

from sampan.errors import InvalidArgument
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")

_BUSY = "while true; do :; done"
_MEMBERS = {
    "name", "id", "read", "preread", "pids_stats", "blkio_stats", "num_procs", "storage_stats", "cpu_stats",
    "precpu_stats", "memory_stats", "networks",
}  # fmt: skip


def test_one_that_is_busy(engine: Engine) -> None:
    run = ("run", "-d", "--name", "busy", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "box", "sh", "-c", _BUSY)
    engine.docker(*run, check=True)
    client = docker.DockerClient(base_url=engine.host)
    found = client.containers.get("busy").stats(stream=False)
    assert set(found) == _MEMBERS
    assert found["name"] == "/busy"
    assert found["pids_stats"] == {"current": 1, "limit": 50}
    assert found["memory_stats"]["limit"] == 64 << 20
    assert 0 < found["memory_stats"]["usage"] < 64 << 20
    used, before = found["cpu_stats"], found["precpu_stats"]
    used_share = _share(before, used)
    assert 0.3 < used_share < 0.7, used_share  # It may use half a CPU.
    assert used["throttling_data"]["throttled_periods"] > 0
    assert used["online_cpus"] == len(os.sched_getaffinity(0))
    assert found["read"] > found["preread"] > "2026"
    assert set(found["networks"]["eth0"]) == {
        f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "dropped")
    }
    shown = engine.docker("stats", "--no-stream", "busy", check=True).stdout.splitlines()[1].split()
    ours = engine.sampan("stats", "--no-stream", "busy", check=True).stdout.splitlines()[1].split()
    for row in (shown, ours):
        assert row[1] == "busy"
        assert 30 < float(row[2].removesuffix("%")) < 70
        assert row[5] == "64MiB"
        assert row[-1] == "1"
    assert len(shown) == len(ours)


def _share(before: dict[str, Any], now: dict[str, Any]) -> float:
    passed = now["system_cpu_usage"] - before["system_cpu_usage"]
    return float((now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]) / passed * now["online_cpus"])


def test_what_it_sends_is_what_it_has_sent(engine: Engine) -> None:
    receive = "sleep 600 | nc -l -p 80 >/dev/null"
    engine.docker("run", "-d", "--name", "receiver", "box", "sh", "-c", receive, check=True)
    ip = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "receiver", check=True).stdout.strip()
    send = f"sleep 0.5; dd if=/dev/zero bs=1024 count=512 2>&- | nc {ip} 80; sleep 60"
    engine.docker("run", "-d", "--name", "sender", "box", "sh", "-c", send, check=True)
    for _ in range(50):
        found = engine.client.call("GET", "/containers/sender/stats?stream=0&one-shot=1")
        if found["networks"]["eth0"]["tx_bytes"] > 512 << 10:
            break
        time.sleep(0.1)
    assert 512 << 10 < found["networks"]["eth0"]["tx_bytes"] < 1 << 20
    assert found["networks"]["eth0"]["rx_bytes"] < 100_000


def test_the_stream(engine: Engine) -> None:
    """An answer a second, each with the one before, past the container's end and until it is removed."""
    engine.docker("run", "-d", "--name", "one", "--network", "none", "box", "sleep", "600", check=True)
    looks = []
    for each in engine.client.messages("GET", "/containers/one/stats"):
        looks.append(each)
        if len(looks) == 2:
            engine.docker("stop", "-t", "0", "one", check=True)
        if len(looks) > 2 and not each["memory_stats"]:
            engine.docker("rm", "one", check=True)
    assert looks[0]["preread"] == "0001-01-01T00:00:00Z"
    assert looks[1]["preread"] == looks[0]["read"]
    assert looks[1]["precpu_stats"] == looks[0]["cpu_stats"]
    assert "networks" not in looks[0]
    assert looks[-1]["memory_stats"] == {}
    assert {each["name"] for each in looks} == {"/one"}


def test_one_that_does_not_run(engine: Engine) -> None:
    engine.docker("create", "--name", "never", "box", "true", check=True)
    found = engine.client.call("GET", "/containers/never/stats?stream=0")
    assert found["cpu_stats"] == found["precpu_stats"] == {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }  # fmt: skip
    assert found["blkio_stats"]["io_service_bytes_recursive"] is None
    form = ("stats", "--no-stream", "-a", "--format", "{{.Name}} {{.MemUsage}}")
    assert engine.docker(*form).stdout == engine.sampan(*form).stdout == "never 0B / 0B\n"
    assert engine.sampan("stats", "--no-stream").stdout.split("\n")[1:] == [""]
    with pytest.raises(InvalidArgument, match="cannot have stream=true and one-shot=true"):
        engine.client.call("GET", "/containers/never/stats?one-shot=1")
    unknown = engine.sampan("stats", "--no-stream", "nosuch")
    assert (unknown.returncode, unknown.stderr) == (1, "sampan: No such container: nosuch\n")


def test_the_command_goes_on(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "one", "box", "sleep", "600", check=True)
    words = [sys.executable, "-m", "sampan.cli.__main__", "stats", "--format", "json", "one"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=engine.environment) as process:
        assert process.stdout is not None
        rows = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.kill()
    for row in rows:
        assert set(row) == {"Container", "ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"}
        assert re.fullmatch(r"\d[\d.]*(B|KiB|MiB) / \d[\d.]*GiB", row["MemUsage"])
