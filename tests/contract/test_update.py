"""`update`: the limits of a container, changed while it is there. What is asked for is read back from its cgroup."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from tests.contract.box import Box

pytestmark = pytest.mark.requires("cgroup1")

MEMORY = 64 << 20


def knob(box: Box, name: str) -> str:
    """What a file of the container's cgroup says. (`cpu.shares` is of the controller cpu, `pids.max` of pids, …)"""
    controller = name.partition(".")[0]
    return pathlib.Path(f"/sys/fs/cgroup/{controller}{box.group}/{box.id}/{name}").read_text().strip()


def update(box: Box, *flags: str) -> None:
    assert box.call("update", *flags, box.id).succeeded().out == ""


FLAGS = [
    (["--memory", str(MEMORY)], "memory.limit_in_bytes", str(MEMORY)),
    (["--memory-reservation", str(MEMORY)], "memory.soft_limit_in_bytes", str(MEMORY)),
    (["--memory", str(MEMORY), "--memory-swap", str(2 * MEMORY)], "memory.memsw.limit_in_bytes", str(2 * MEMORY)),
    (["--cpu-share", "512"], "cpu.shares", "512"),
    (["--cpu-quota", "50000"], "cpu.cfs_quota_us", "50000"),
    (["--cpu-period", "50000"], "cpu.cfs_period_us", "50000"),
    (["--cpu-quota=20000", "--cpu-period=40000"], "cpu.cfs_quota_us", "20000"),
    (["--pids-limit", "33"], "pids.max", "33"),
    (["--cpuset-cpus", "0"], "cpuset.cpus", "0"),
    (["--cpuset-mems", "0"], "cpuset.mems", "0"),
]


@pytest.mark.parametrize(("flags", "name", "value"), FLAGS, ids=[" ".join(each[0]) for each in FLAGS])
def test_flags(running: Box, flags: list[str], name: str, value: str) -> None:
    assert knob(running, name) != value or name == "cpuset.mems"
    update(running, *flags)
    assert knob(running, name) == value


def test_what_is_not_named_stays(box: Box) -> None:
    resources = {
        "cpu": {"shares": 300, "quota": 30000, "period": 60000},
        "pids": {"limit": 30},
        "memory": {"limit": MEMORY},
    }
    box.launch("sleep", "1000", linux={"resources": resources})
    update(box, "--pids-limit", "31")
    update(box, "--cpu-share", "301")
    names = ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "pids.max", "memory.limit_in_bytes")
    assert [knob(box, name) for name in names] == ["301", "30000", "60000", "31", str(MEMORY)]
    update(box)
    assert [knob(box, name) for name in names] == ["301", "30000", "60000", "31", str(MEMORY)]


WHOLE = {
    "memory": {"limit": MEMORY, "reservation": MEMORY // 2, "swap": 2 * MEMORY},
    "cpu": {"shares": 700, "quota": 20000, "period": 100000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 44},
    "blockIO": {"weight": 0},
    "unknown": {"a": 1},
}


def _check_whole(box: Box) -> None:
    assert {
        name: knob(box, name)
        for name in (
            "memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.shares",
            "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "pids.max",
        )
    } == {
        "memory.limit_in_bytes": str(MEMORY), "memory.soft_limit_in_bytes": str(MEMORY // 2),
        "memory.memsw.limit_in_bytes": str(2 * MEMORY), "cpu.shares": "700", "cpu.cfs_quota_us": "20000",
        "cpu.cfs_period_us": "100000", "cpuset.cpus": "0", "pids.max": "44",
    }  # fmt: skip


def test_resources_from_standard_input(box: Box) -> None:
    """containerd's way."""
    box.launch()
    box.call("update", "--resources", "-", box.id, input=json.dumps(WHOLE).encode()).succeeded()
    _check_whole(box)


@pytest.mark.parametrize("flag", ["--resources", "-r"])
def test_resources_from_a_file(box: Box, flag: str) -> None:
    """podman's way."""
    box.launch()
    path = box.directory / "resources.json"
    path.write_text(json.dumps(WHOLE))
    flags = [f"--resources={path}"] if flag == "--resources" else [flag, str(path)]
    box.call("update", *flags, box.id).succeeded()
    _check_whole(box)


def test_limits_up_and_down(box: Box) -> None:
    """On cgroup v1 the limit of memory with swap may never be below that of memory, also on the way."""
    box.launch()
    for size in (MEMORY, 4 * MEMORY, 2 * MEMORY, MEMORY):
        resources = {"memory": {"limit": size, "swap": size}}
        box.call("update", "--resources", "-", box.id, input=json.dumps(resources).encode()).succeeded()
        assert knob(box, "memory.limit_in_bytes") == knob(box, "memory.memsw.limit_in_bytes") == str(size)


def test_no_limit(box: Box) -> None:
    box.launch("sleep", "1000", linux={"resources": {"pids": {"limit": 30}, "cpu": {"quota": 20000}}})
    for flag, name, value in (("--cpu-quota", "cpu.cfs_quota_us", "-1"), ("--pids-limit", "pids.max", "max")):
        outcome = box.call("update", flag, "-1", box.id)
        if box.runtime.differs("plain-numbers"):
            outcome.refused("", crun=name)
        else:
            assert outcome.succeeded()
            assert knob(box, name) == value


def test_sizes_with_units(box: Box) -> None:
    box.launch()
    for text, size in (("1g", 1 << 30), ("192M", 192 << 20), ("131072k", 128 << 20), ("64mb", MEMORY)):
        outcome = box.call("update", "--memory", text, box.id)
        if box.runtime.differs("plain-numbers"):
            outcome.refused("", crun="cannot parse")
        else:
            assert outcome.succeeded()
            assert knob(box, "memory.limit_in_bytes") == str(size)


def test_in_other_states(box: Box) -> None:
    box.create()
    pid = box.pid
    update(box, "--pids-limit", "55")
    assert (box.status, knob(box, "pids.max")) == ("created", "55")
    box.start()
    box.call("pause", box.id).succeeded()
    update(box, "--pids-limit", "56")
    assert (box.status, knob(box, "pids.max")) == ("paused", "56")
    box.call("resume", box.id).succeeded()
    box.end(pid)
    outcome = box.call("update", "--pids-limit", "57", box.id)
    if box.runtime.differs("update-of-nothing"):
        outcome.succeeded()
    else:
        outcome.refused("container not running", crun="")


BAD = [
    (["--cpuset-cpus", "99"], "numerical result out of range", "Numerical result out of range"),
    (["--cpuset-cpus", "x"], "invalid argument", "Invalid argument"),
    (["--memory", "1"], "current usage", "Device or resource busy"),
    (["--memory", "x"], "invalid size", "cannot parse"),
    (["--cpu-quota", "x"], "", ""),
    (["--pids-limit", "x"], "", ""),
    (["--resources", "/nope"], "no such file or directory", "No such file or directory"),
]


@pytest.mark.parametrize(("flags", "says", "crun"), BAD, ids=[" ".join(each[0]) for each in BAD])
def test_what_cannot_be(running: Box, flags: list[str], says: str, crun: str) -> None:
    names = ("memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max", "cpuset.cpus")
    before = [knob(running, name) for name in names]
    running.call("update", *flags, running.id).refused(says, crun=crun)
    assert [knob(running, name) for name in names] == before
    assert os.path.exists(f"/proc/{running.pid}")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"memory": {"limit": "x"}}', '{"cpu": []}'])
def test_resources_that_do_not_read(running: Box, text: str) -> None:
    before = knob(running, "memory.limit_in_bytes")
    outcome = running.call("update", "--resources", "-", running.id, input=text.encode())
    if outcome.status == 0 and text.startswith(("[", '{"')):
        assert running.runtime.differs("lax-types")
    else:
        assert outcome.status == 1
    assert knob(running, "memory.limit_in_bytes") == before
