"""User and time namespaces: made, joined, entered by exec."""

from __future__ import annotations

import os
import pathlib
import shutil

import msgspec
import pytest

from sampan.errors import InvalidArgument
from sampan.oci.runtime import (
    IDMapping,
    IOPriority,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Scheduler,
    Spec,
    TimeOffset,
    User,
)
from sampan.runtime.container import Container, Stdio

pytestmark = pytest.mark.requires("root", "program:busybox")

KINDS = ("mount", "pid", "network", "ipc", "uts", "cgroup", "user")
MAP = (IDMapping(container_id=0, host_id=100000, size=1000),)


class Bundle:
    """A root of busybox that belongs to the mapped root, and a way to run its shell."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.root = directory / "rootfs"
        (self.root / "bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", self.root / "bin/busybox")
        (self.root / "bin/sh").symlink_to("busybox")
        for each in (self.root, self.root / "bin"):
            os.chown(each, 100000, 100000)
        self.state = str(directory / "state")
        self.shared = directory / "shared"
        self.shared.mkdir(mode=0o755)
        (self.shared / "bound-file").touch()

    def spec(self, script: str, linux: Linux, user: User | None = None) -> Spec:
        linux = msgspec.structs.replace(linux, cgroups_path=f"/sampan-ns-{os.getpid()}")
        return Spec(
            oci_version="1.2.0", root=Root(path="rootfs"), linux=linux,
            process=Process(cwd="/", args=("busybox", "sh", "-c", script), env=("PATH=/bin",), user=user or User()),
            mounts=(
                Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
                Mount(destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "mode=755")),
                Mount(destination="/bound", type="bind", source=str(self.shared), options=("rbind", "ro")),
            ),
        )  # fmt: skip

    def create(self, spec: Spec, stdout: int | None = None, name: str = "ns") -> Container:
        return Container.create(name, str(self.directory), self.state, Stdio(None, stdout, stdout), spec=spec)

    def run(self, script: str, linux: Linux, user: User | None = None) -> tuple[int, str]:
        reading, writing = os.pipe()
        with os.fdopen(reading) as output:
            try:
                container = self.create(self.spec(script, linux, user), writing)
            finally:
                os.close(writing)
            container.start()
            text = output.read()
        status = os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1])
        container.delete()
        return status, text


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> Bundle:
    return Bundle(tmp_path)


def _mapped(*kinds: str) -> Linux:
    return Linux(namespaces=tuple(Namespace(type=kind) for kind in kinds), uid_mappings=MAP, gid_mappings=MAP)


def test_root_in_the_container_is_nobody_on_the_host(bundle: Bundle) -> None:
    script = (
        "busybox id; busybox touch /made; busybox cat /proc/self/uid_map; busybox ls -ln /dev/null; busybox ls /bound"
    )
    status, text = bundle.run(script, _mapped(*KINDS))
    assert (status, text.splitlines()[0]) == (0, "uid=0 gid=0"), text
    assert text.splitlines()[1].split() == ["0", "100000", "1000"]
    assert "bound-file" in text  # Bound from a directory that only the host's root can enter.
    assert (bundle.root / "made").stat().st_uid == 100000


def test_another_user_of_the_namespace(bundle: Bundle) -> None:
    assert bundle.run("busybox id -u; busybox id -g", _mapped(*KINDS), User(uid=7, gid=8))[1].split() == ["7", "8"]
    with pytest.raises(InvalidArgument, match="uid: 5000 is not in"):
        bundle.run("true", _mapped(*KINDS), User(uid=5000))


def test_exec_and_another_container_join_it(bundle: Bundle) -> None:
    first = bundle.create(bundle.spec("busybox sleep 100", _mapped(*KINDS)))
    first.start()
    try:
        reading, writing = os.pipe()
        process = Process(cwd="/", args=("busybox", "cat", "/proc/self/uid_map"), env=("PATH=/bin",))
        run = first.exec(process, Stdio(None, writing, writing))
        os.close(writing)
        with os.fdopen(reading) as output:
            assert output.read().split() == ["0", "100000", "1000"]
        assert os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1]) == 0
        os.close(run.pidfd)
        at = f"/proc/{first.pid}/ns"
        linux = Linux(
            namespaces=(
                Namespace(type="mount"), Namespace(type="pid"), Namespace(type="user", path=f"{at}/user"),
                Namespace(type="network", path=f"{at}/net"), Namespace(type="ipc", path=f"{at}/ipc"),
            ),
        )  # fmt: skip
        linux = msgspec.structs.replace(linux, cgroups_path=f"/sampan-ns2-{os.getpid()}")
        wanted = os.readlink(f"{at}/net")
        spec = bundle.spec("busybox id -u; busybox readlink /proc/self/ns/net", linux)
        assert spec.linux is not None
        spec = msgspec.structs.replace(spec, linux=linux)
        reading, writing = os.pipe()
        second = bundle.create(spec, writing, "ns2")
        os.close(writing)
        second.start()
        with os.fdopen(reading) as output:
            assert output.read().split() == ["0", wanted]
        os.waitpid(second.pid, 0)
        second.delete()
    finally:
        first.kill(9)
        os.waitpid(first.pid, 0)
        first.delete()


def test_a_map_that_the_kernel_refuses_leaves_nothing(bundle: Bundle) -> None:
    lines = (IDMapping(container_id=0, host_id=0, size=1), IDMapping(container_id=0, host_id=5, size=1))
    bad = msgspec.structs.replace(_mapped(*KINDS), uid_mappings=lines)
    with pytest.raises(InvalidArgument, match="overlap"):
        bundle.run("true", bad)
    assert not os.path.exists(f"{bundle.state}/ns")


def test_a_time_namespace_has_its_own_uptime(bundle: Bundle) -> None:
    linux = Linux(
        namespaces=tuple(Namespace(type=kind) for kind in ("mount", "pid", "time")),
        time_offsets={"boottime": TimeOffset(secs=1_000_000), "monotonic": TimeOffset(secs=1_000_000)},
    )
    _, text = bundle.run("busybox cat /proc/uptime", linux)
    assert float(text.split()[0]) > 1_000_000


def test_a_scheduler_and_an_io_priority(bundle: Bundle) -> None:
    linux = Linux(namespaces=(Namespace(type="mount"), Namespace(type="pid")))
    spec = bundle.spec("busybox sleep 100", linux)
    assert spec.process is not None
    process = msgspec.structs.replace(
        spec.process, scheduler=Scheduler(policy="SCHED_BATCH", nice=5),
        io_priority=IOPriority(class_="IOPRIO_CLASS_IDLE"),
    )  # fmt: skip
    container = bundle.create(msgspec.structs.replace(spec, process=process))
    container.start()
    try:
        assert os.sched_getscheduler(container.pid) == os.SCHED_BATCH
        assert os.getpriority(os.PRIO_PROCESS, container.pid) == 5
    finally:
        container.kill(9)
        os.waitpid(container.pid, 0)
        container.delete()
