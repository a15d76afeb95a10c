"""The systemd cgroup driver: a scope with its limits, changed, and gone with the container."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.linux import bpf
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import CPU, DeviceCgroup, LinuxResources, Memory, Pids, Process
from sampan.runtime.container import Container, Stdio
from sampan.runtime.plan import Options
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "cgroup2", "systemd", "program:busybox")

SYSTEMD = Options(systemd=True)


def shown(unit: str, name: str) -> str:
    command = ["systemctl", "show", "--value", "-p", name, unit]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Scoped:
    """A container in a scope."""

    def __init__(self, box: Box, unit: str = "box-one.scope", **changes: Any) -> None:
        self.box = box
        self.unit = unit
        self.path = f"/sampan.slice/sampan-test.slice/{unit}"
        changes.setdefault("cgroups_path", f"sampan-test.slice:box:{unit.removeprefix('box-').removesuffix('.scope')}")
        self.spec = box.spec("sleep", "100", **changes)

    def __enter__(self) -> Scoped:
        box = self.box
        self.container = Container.create(
            box.id, str(box.bundle), box.state_root, Stdio(), spec=self.spec, options=SYSTEMD
        )
        self.container.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.container.kill(signal.SIGKILL)
        os.waitpid(self.container.pid, 0)
        self.container.delete()
        assert not Cgroup(self.path).exists()
        assert shown(self.unit, "LoadState") == "not-found"
        assert os.listdir(self.box.state_root) == []

    def file(self, name: str) -> str:
        return pathlib.Path(f"/sys/fs/cgroup{self.path}/{name}").read_text().strip()

    def properties(self, *names: str) -> list[str]:
        return [shown(self.unit, name) for name in names]


def test_a_scope_has_the_limits_and_goes_with_the_container(tmp_path: pathlib.Path) -> None:
    limits = LinuxResources(
        devices=(DeviceCgroup(allow=False),), pids=Pids(limit=64), memory=Memory(limit=64 << 20),
        cpu=CPU(quota=50000, period=100000, shares=1024),
    )  # fmt: skip
    box = Box(tmp_path)
    with Scoped(box, resources=limits) as scoped:
        container = scoped.container
        assert container.pids() == [container.pid]
        assert pathlib.Path(f"/proc/{container.pid}/cgroup").read_text() == f"0::{scoped.path}\n"
        assert scoped.properties("ActiveState", "Slice", "Delegate") == ["active", "sampan-test.slice", "yes"]
        assert scoped.properties("MemoryMax", "TasksMax", "CPUQuotaPerSecUSec") == [str(64 << 20), "64", "500ms"]
        with pytest.raises(InvalidArgument, match=r"box-one\.scope"):
            Container.create(
                "other", str(box.bundle), box.state_root, Stdio(), spec=scoped.spec, options=SYSTEMD
            )  # fmt: skip
        assert container.pids() == [container.pid]
        again = Container.load(box.id, box.state_root)
        again.update(LinuxResources(memory=Memory(limit=32 << 20)))
        os.close(again.pidfd)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert (scoped.file("memory.max"), scoped.file("pids.max")) == (str(32 << 20), "64")


EVERYTHING = LinuxResources(
    memory=Memory(limit=64 << 20, swap=96 << 20, reservation=16 << 20), pids=Pids(limit=50),
    cpu=CPU(shares=512, quota=33333, period=100000, cpus="0", mems="0", burst=1000),
    unified={"memory.min": "4194304", "memory.high": "67108864", "cgroup.max.depth": "5"},
)  # fmt: skip
CHANGED = LinuxResources(
    memory=Memory(limit=48 << 20, swap=64 << 20, reservation=8 << 20), pids=Pids(limit=-1),
    cpu=CPU(shares=2048, quota=44444, cpus="0-1"), unified={"memory.high": "max"},
)  # fmt: skip


def test_every_limit_that_systemd_knows_outlasts_its_reload(tmp_path: pathlib.Path) -> None:
    def files(scoped: Scoped) -> dict[str, str]:
        names = (
            "memory.max", "memory.swap.max", "memory.low", "memory.min", "memory.high", "pids.max", "cpu.weight",
            "cpuset.cpus", "cpuset.mems", "cpu.max",
        )  # fmt: skip
        return {name: scoped.file(name) for name in names}

    with Scoped(Box(tmp_path), resources=EVERYTHING) as scoped:
        expected = {
            "memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(16 << 20),
            "memory.min": str(4 << 20), "memory.high": str(64 << 20), "pids.max": "50", "cpu.weight": "59",
            "cpuset.cpus": "0", "cpuset.mems": "0", "cpu.max": "33333 100000",
        }  # fmt: skip
        assert files(scoped) == expected
        assert (scoped.file("cpu.max.burst"), scoped.file("cgroup.max.depth")) == ("1000", "5")
        names = ("MemoryMax", "MemorySwapMax", "MemoryLow", "MemoryMin", "MemoryHigh", "TasksMax", "CPUWeight")
        amounts = [each << 20 for each in (64, 32, 16, 4, 64)]
        assert scoped.properties(*names) == [str(each) for each in (*amounts, 50, 59)]
        # systemd keeps whole percents.
        assert scoped.properties("CPUQuotaPerSecUSec", "AllowedCPUs", "AllowedMemoryNodes") == ["340ms", "0", "0"]
        scoped.container.update(CHANGED)
        expected |= {
            "memory.max": str(48 << 20), "memory.swap.max": str(16 << 20), "memory.low": str(8 << 20),
            "memory.high": "max", "pids.max": "max", "cpu.weight": "174", "cpuset.cpus": "0-1",
            "cpu.max": "44444 100000",
        }  # fmt: skip
        assert files(scoped) == expected
        assert scoped.properties("MemoryMax", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "AllowedCPUs") == [
            str(48 << 20), "infinity", "174", "450ms", "0-1",
        ]  # fmt: skip
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        subprocess.run(["systemctl", "set-property", "--runtime", scoped.unit, "Description=x"], check=False)
        found = files(scoped)
        assert found.pop("cpu.max") in ("44444 100000", "45000 100000")
        expected.pop("cpu.max")
        assert found == expected
        scoped.container.update(LinuxResources(cpu=CPU(idle=1)))
        assert (scoped.file("cpu.idle"), shown(scoped.unit, "CPUWeight")) == ("1", "idle")


def test_devices_outlast_systemds_reload(tmp_path: pathlib.Path) -> None:
    box = Box(tmp_path)
    with Scoped(box, resources=LinuxResources(devices=(DeviceCgroup(allow=False),))) as scoped:
        group = os.open(f"/sys/fs/cgroup{scoped.path}", os.O_RDONLY)
        before = bpf.attached(group)
        assert len(before) == 1
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        scoped.container.update(LinuxResources(pids=Pids(limit=9)))
        assert bpf.attached(group) == before
        os.close(group)


def test_an_update_that_the_kernel_refuses_is_not_told(tmp_path: pathlib.Path) -> None:
    with Scoped(Box(tmp_path), resources=LinuxResources(pids=Pids(limit=9))) as scoped:
        with pytest.raises(InvalidArgument, match=r"cpuset\.cpus"):
            scoped.container.update(LinuxResources(pids=Pids(limit=5), cpu=CPU(cpus="4000")))
        assert (scoped.file("pids.max"), shown(scoped.unit, "TasksMax")) == ("9", "9")


def test_a_unit_that_has_failed_gives_way(tmp_path: pathlib.Path) -> None:
    """One that ended badly is kept by systemd, if nobody said otherwise."""
    unit = "box-failed.scope"
    line = ["systemd-run", "--scope", f"--unit={unit}", "--slice=sampan-test.slice", "-p", "RuntimeMaxSec=1"]
    subprocess.run([*line, "sleep", "100"], capture_output=True, check=False)
    assert shown(unit, "ActiveState") == "failed"
    with Scoped(Box(tmp_path), unit) as scoped:
        assert scoped.properties("ActiveState") == ["active"]


def test_annotations_are_properties(tmp_path: pathlib.Path) -> None:
    annotations = {
        "org.systemd.property.TimeoutStopUSec": "uint64 5000000", "org.systemd.property.Description": "'a box'",
        "org.systemd.property.RuntimeMaxSec": "uint32 600", "other": "thing",
    }  # fmt: skip
    with Scoped(Box(tmp_path), annotations=annotations) as scoped:
        assert scoped.properties("TimeoutStopUSec", "Description", "RuntimeMaxUSec") == ["5s", "a box", "10min"]


def test_an_annotation_that_is_no_property_leaves_nothing(tmp_path: pathlib.Path) -> None:
    box = Box(tmp_path)
    for name, says in (("NoSuchThing", "NoSuchThing"), ("x", "invalid property name")):
        scoped = Scoped(box, annotations={f"org.systemd.property.{name}": "true"})
        with pytest.raises(InvalidArgument, match=says):
            scoped.__enter__()
        assert shown(scoped.unit, "LoadState") == "not-found"
        assert os.listdir(box.state_root) == []


def test_a_creation_that_fails_stops_the_scope(tmp_path: pathlib.Path) -> None:
    box = Box(tmp_path)
    scoped = Scoped(box, resources=LinuxResources(unified={"memory.nothing": "1"}))
    with pytest.raises(InvalidArgument, match=r"memory\.nothing"):
        scoped.__enter__()
    deadline = time.monotonic() + 30
    while shown(scoped.unit, "LoadState") != "not-found":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not Cgroup(scoped.path).exists()


def test_groups_below_go_with_the_scope(tmp_path: pathlib.Path) -> None:
    with Scoped(Box(tmp_path)) as scoped:
        below = pathlib.Path(f"/sys/fs/cgroup{scoped.path}/a/b")
        below.mkdir(parents=True)
        made = scoped.container.exec(Process(cwd="/", args=("sleep", "100"), env=("PATH=/bin",)), Stdio())
        (below / "cgroup.procs").write_text(str(made.pid))
        assert sorted(scoped.container.pids()) == sorted((scoped.container.pid, made.pid))
        made.end()


@pytest.mark.parametrize("path", ["/plain", "a:b", "nothing:a:b", "a--b.slice:c:d", "a.slice:b:../c", "a.slice:b:"])
def test_a_path_that_names_no_scope(tmp_path: pathlib.Path, path: str) -> None:
    box = Box(tmp_path)
    with pytest.raises(InvalidArgument):
        Container.create(
            box.id,
            str(box.bundle),
            box.state_root,
            Stdio(),
            spec=box.spec("true", cgroups_path=path),
            options=SYSTEMD,
        )
    assert not os.path.exists(box.state_root)
