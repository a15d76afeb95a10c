"""What a container may do with devices, where its group is, and the volumes of others."""

from __future__ import annotations

import os
import pathlib

import pytest

from sampan.errors import InvalidArgument
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")

_OPEN = "mknod /tmp/device c 10 237 && : </tmp/device && echo opened"


def create(engine: Engine, **host: object) -> None:
    engine.client.call("POST", "/containers/create", {"Image": "box", "Cmd": ["x"], "HostConfig": host})


def test_a_kind_of_device(engine: Engine) -> None:
    run = ("run", "--rm", "--network", "none")
    assert "Operation not permitted" in engine.docker(*run, "box", "sh", "-c", _OPEN).stderr
    for words in (engine.docker, engine.sampan):
        done = words(*run, "--device-cgroup-rule", "c 10:237 r", "box", "sh", "-c", _OPEN)
        assert done.stdout == "opened\n", done.stderr
    for rule in ("c 10:237", "x 1:3 r", "c 1:3 q", "c 1:3 rwmr"):
        with pytest.raises(InvalidArgument, match=f"invalid device cgroup rule format: '{rule}'"):
            create(engine, DeviceCgroupRules=[rule])


def test_the_group_that_its_own_is_in(engine: Engine) -> None:
    try:
        for parent in ("/smp-mine/below", "smp-mine/below/"):
            engine.docker("run", "-d", "--name", "one", "--cgroup-parent", parent, "box", "sleep", "60", check=True)
            pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "one", check=True).stdout.strip()
            identifier = engine.docker("inspect", "-f", "{{.Id}}", "one", check=True).stdout.strip()
            groups = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            assert {each.split(":")[2] for each in groups if ":memory:" in each or (len(groups) == 1)} == {
                f"/smp-mine/below/{identifier}"
            }
            engine.docker("rm", "-f", "one", check=True)
            assert not list(pathlib.Path("/sys/fs/cgroup").glob(f"**/{identifier}"))
        with pytest.raises(InvalidArgument, match=r"invalid cgroup parent: /a/\.\./b"):
            create(engine, CgroupParent="/a/../b")
    finally:
        for found in sorted(pathlib.Path("/sys/fs/cgroup").glob("**/smp-mine/**/"), reverse=True):
            if found.is_dir():
                found.rmdir()


def test_throttles(engine: Engine, tmp_path: pathlib.Path) -> None:
    numbers = sorted(each.read_text().strip() for each in pathlib.Path("/sys/block").glob("*/dev"))[0]
    disk = f"/dev/smp-{os.getpid()}"
    os.mknod(disk, 0o60600, os.makedev(*map(int, numbers.split(":"))))
    try:
        words = ("--device-read-bps", f"{disk}:1mb", "--device-write-iops", f"{disk}:50")
        for command in (engine.docker, engine.sampan):
            command("run", "-d", "--name", "one", *words, "box", "sleep", "60", check=True)
            identifier = engine.docker("inspect", "-f", "{{.Id}}", "one", check=True).stdout.strip()
            v1 = pathlib.Path(f"/sys/fs/cgroup/blkio/sampan/{identifier}")
            if v1.exists():
                assert (v1 / "blkio.throttle.read_bps_device").read_text() == f"{numbers} {1 << 20}\n"
                assert (v1 / "blkio.throttle.write_iops_device").read_text() == f"{numbers} 50\n"
            else:
                limits = pathlib.Path(f"/sys/fs/cgroup/sampan/{identifier}/io.max").read_text()
                assert limits == f"{numbers} rbps={1 << 20} wbps=max riops=max wiops=50\n"
            engine.docker("rm", "-f", "one", check=True)
    finally:
        os.unlink(disk)
    for path, message in (("/dev/nosuch", "stat /dev/nosuch: no such file"), ("/dev/null", "is not a block device")):
        done = engine.docker("run", "--rm", "--device-read-bps", f"{path}:1mb", "box", "true")
        assert done.returncode in (125, 127)  # By Docker's words the command takes the first for a program.
        assert message in done.stderr


def test_the_volumes_of_another(engine: Engine, tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    engine.docker(
        "create", "--name", "data", "-v", "/anonymous", "-v", "named:/named", "-v", f"{tmp_path}:/host:ro", "--tmpfs",
        "/tmpfs", "box", "true", check=True,
    )  # fmt: skip
    script = "echo one >/anonymous/file; echo two >/named/file; touch /host/file 2>&- || ls -d /host /tmpfs 2>&-"
    engine.docker("run", "--name", "writer", "--volumes-from", "data", "-v", "own:/named", "box", "sh", "-c", script)
    script = "cat /anonymous/file; ls /named; touch /anonymous/other 2>&- || echo refused"
    shown = engine.sampan("run", "--rm", "--volumes-from", "data:ro", "box", "sh", "-c", script, check=True)
    assert shown.stdout == "one\nrefused\n"
    assert engine.docker("logs", "writer").stdout == "/host\n"
    engine.docker("rm", "-v", "writer", check=True)
    kept = engine.docker("inspect", "-f", '{{range .Mounts}}{{if eq .Destination "/anonymous"}}{{.Name}}{{end}}{{end}}',
                         "data", check=True).stdout.strip()  # fmt: skip
    assert kept in engine.docker("volume", "ls", "-q").stdout
    engine.docker("rm", "-v", "data", check=True)
    assert engine.docker("volume", "ls", "-q").stdout.split() == ["named", "own"]
    engine.docker("volume", "rm", "named", "own", check=True)
    with pytest.raises(InvalidArgument, match="No such container: nosuch"):
        create(engine, VolumesFrom=["nosuch"])
