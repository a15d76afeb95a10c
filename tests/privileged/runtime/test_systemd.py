"""The systemd cgroup driver: a scope with its limits, changed, and gone with the container."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess

import pytest

from sampan.errors import InvalidArgument
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import CPU, DeviceCgroup, LinuxResources, Memory, Pids
from sampan.runtime.container import Container, Stdio
from sampan.runtime.plan import Options
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "cgroup2", "systemd", "program:busybox")

SYSTEMD = Options(systemd=True)


def shown(unit: str, name: str) -> str:
    command = ["systemctl", "show", "--value", "-p", name, unit]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_scope_has_the_limits_and_goes_with_the_container(tmp_path: pathlib.Path) -> None:
    box = Box(tmp_path)
    limits = LinuxResources(
        devices=(DeviceCgroup(allow=False),), pids=Pids(limit=64), memory=Memory(limit=64 << 20),
        cpu=CPU(quota=50000, period=100000, shares=1024),
    )  # fmt: skip
    spec = box.spec("sleep", "100", cgroups_path="sampan-test.slice:box:one", resources=limits)
    unit, path = "box-one.scope", "/sampan.slice/sampan-test.slice/box-one.scope"
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec, options=SYSTEMD)
    try:
        container.start()
        assert container.pids() == [container.pid]
        assert pathlib.Path(f"/proc/{container.pid}/cgroup").read_text() == f"0::{path}\n"
        assert (shown(unit, "ActiveState"), shown(unit, "Slice")) == ("active", "sampan-test.slice")
        assert (shown(unit, "MemoryMax"), shown(unit, "TasksMax")) == (str(64 << 20), "64")
        assert (shown(unit, "CPUQuotaPerSecUSec"), shown(unit, "Delegate")) == ("500ms", "yes")
        with pytest.raises(InvalidArgument, match=r"box-one\.scope"):
            Container.create("other", str(box.bundle), box.state_root, Stdio(), spec=spec, options=SYSTEMD)
        assert container.pids() == [container.pid]
        again = Container.load(box.id, box.state_root)
        again.update(LinuxResources(memory=Memory(limit=32 << 20)))
        os.close(again.pidfd)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert pathlib.Path(f"/sys/fs/cgroup{path}/memory.max").read_text() == f"{32 << 20}\n"
        assert pathlib.Path(f"/sys/fs/cgroup{path}/pids.max").read_text() == "64\n"
    finally:
        container.kill(signal.SIGKILL)
        os.waitpid(container.pid, 0)
        container.delete()
    assert not Cgroup(path).exists()
    assert os.listdir(box.state_root) == []


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
    assert os.listdir(box.state_root) == []
