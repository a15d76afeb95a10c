"""An ordinary user's containers: without a cgroup, where he may make none and asks for nothing that needs one; in one,
where he may."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from sampan.errors import SampanError
from sampan.linux import process
from sampan.linux.cgroup import Cgroup, hierarchies
from sampan.oci.runtime import LinuxResources, Memory, Pids, Process, Spec
from sampan.runtime import scope  # noqa: F401 - before the fork: the user may not read the modules
from sampan.runtime.container import Container, Stdio
from sampan.runtime.events import stats_document
from sampan.runtime.plan import Options

pytestmark = pytest.mark.requires("root", "program:busybox")

MIB = 1 << 20
ROOTLESS = Options(rootless=True)
UID = 54321


def as_user(uid: int, work: Callable[[], object], environment: dict[str, str] | None = None) -> Any:
    """What the work gives, done by an ordinary user; SampanError's message as a string."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            process.prctl(process.PR_SET_DUMPABLE, 1)
            os.environ.update(environment or {})
            try:
                result = work()
            except SampanError as error:
                result = f"{type(error).__name__}: {error.message}"
            os.write(writing, json.dumps(result).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


class Own:
    """A user's bundle."""

    def __init__(self, directory: pathlib.Path, uid: int = UID) -> None:
        self.uid = uid
        self.bundle = directory / "bundle"
        self.state_root = str(directory / "state")
        (self.bundle / "rootfs/bin").mkdir(parents=True)
        for name in ("dev", "proc"):
            (self.bundle / "rootfs" / name).mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", self.bundle / "rootfs/bin/busybox")
        os.chmod(directory, 0o755)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, uid, uid)

    def spec(self, resources: LinuxResources | None = None, path: str = "", **annotations: str) -> Spec:
        mapping = [{"containerID": 0, "hostID": self.uid, "size": 1}]
        linux: dict[str, Any] = {
            "namespaces": [{"type": each} for each in ("user", "pid", "mount", "ipc", "uts")],
            "uidMappings": mapping, "gidMappings": mapping, "cgroupsPath": path,
        }  # fmt: skip
        document = {
            "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": linux, "annotations": annotations,
            "process": {
                "args": ["/bin/busybox", "sleep", "1000"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["A=b"]
            },
            "mounts": [
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/proc", "type": "proc", "source": "proc"},
            ],
        }  # fmt: skip
        made = msgspec.convert(document, Spec)
        assert made.linux is not None
        return msgspec.structs.replace(made, linux=msgspec.structs.replace(made.linux, resources=resources))

    def run(self, spec: Spec, options: Options, look: Callable[[Container], object]) -> object:
        """What there is to be seen of the container while it runs; then it is deleted."""
        container = Container.create("own", str(self.bundle), self.state_root, Stdio(), spec=spec, options=options)
        try:
            container.start()
            return look(container)
        finally:
            container.kill(signal.SIGKILL)
            os.waitpid(container.pid, 0)
            container.delete()


@pytest.fixture
def own(short_dir: pathlib.Path) -> Iterator[Own]:
    made = Own(short_dir)
    yield made
    if os.path.isdir(made.state_root):
        assert [each for each in os.listdir(made.state_root) if not each.startswith(".")] == []


def groups(pid: int) -> list[str]:
    return pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()


def test_without_the_right_to_make_a_group_there_is_none(own: Own) -> None:
    def look(container: Container) -> dict[str, Any]:
        with pytest.raises(SampanError, match="no cgroup"):
            container.pause()
        with pytest.raises(SampanError, match="could not be made"):
            container.update(LinuxResources(pids=Pids(limit=5)))
        made = container.exec(Process(cwd="/", args=("/bin/busybox", "true"), env=("A=b",)), Stdio())
        again = Container.load("own", own.state_root)
        return {
            "places": container.record.cgroup_places, "pids": container.pids() == [container.pid],
            "own": groups(container.pid) == groups(os.getpid()), "paused": container.paused,
            "oom": container.oom_count(), "exec": os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1]),
            "again": again.status, "stats": json.loads(stats_document("own", container.stats()))["data"]["pids"],
        }  # fmt: skip

    assert as_user(own.uid, lambda: own.run(own.spec(), ROOTLESS, look)) == {
        "places": {}, "pids": True, "own": True, "paused": False, "oom": 0, "exec": 0, "again": "running", "stats": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "path", "options"),
    [
        (LinuxResources(pids=Pids(limit=5)), "", ROOTLESS),
        (LinuxResources(memory=Memory(limit=64 * MIB)), "", ROOTLESS),
        (None, "/own", ROOTLESS),
        (None, "own", ROOTLESS),
        (None, "", Options()),
    ],
)
def test_what_needs_a_group_is_refused_without(
    own: Own, resources: LinuxResources | None, path: str, options: Options
) -> None:
    said = as_user(own.uid, lambda: own.run(own.spec(resources, path), options, lambda _: "made"))
    assert said.startswith("InvalidArgument: cgroup: ")
    assert "permission denied" in said or "the cgroup could not be made" in said


@pytest.mark.requires("cgroup1")
def test_only_the_trees_that_the_user_has(own: Own) -> None:
    """v1: a tree whose group is the user's is used, the others are not."""
    above = f"/sampan-own-{os.getpid()}"
    roots = hierarchies().roots
    held = Cgroup(above, {roots["pids"]: above})
    held.create()
    os.chown(held.directories[0], own.uid, own.uid)
    for name in ("tasks", "cgroup.procs"):
        os.chown(f"{held.directories[0]}/{name}", own.uid, own.uid)

    def look(container: Container) -> dict[str, Any]:
        with pytest.raises(SampanError, match="cannot set a memory limit"):
            container.update(LinuxResources(memory=Memory(limit=64 * MIB)))
        container.update(LinuxResources(pids=Pids(limit=6)))
        return {
            "places": container.record.cgroup_places, "pids": container.pids() == [container.pid],
            "limit": container.stats().pids_limit,
        }  # fmt: skip

    def work() -> object:
        held.join()
        return own.run(own.spec(LinuxResources(pids=Pids(limit=5))), ROOTLESS, look)

    try:
        assert as_user(own.uid, work) == {"places": {roots["pids"]: f"{above}/own"}, "pids": True, "limit": 6}
        assert not Cgroup(f"{above}/own", {roots["pids"]: f"{above}/own"}).exists()
    finally:
        held.kill()
        held.delete()


@pytest.mark.requires("cgroup2")
def test_a_group_that_is_delegated(own: Own) -> None:
    """v2: below a group that is the user's, and out of it."""
    above = Cgroup(f"/sampan-own-{os.getpid()}")
    leaf = Cgroup(f"{above.path}/here")
    above.create()
    leaf.create()
    for group in (above, leaf):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(f"{group.directories[0]}/{name}", own.uid, own.uid)

    def look(container: Container) -> dict[str, Any]:
        container.update(LinuxResources(pids=Pids(limit=6)))
        made = container.exec(Process(cwd="/", args=("/bin/busybox", "true"), env=("A=b",)), Stdio())
        status = os.waitpid(made.pid, 0)[1]
        return {"group": groups(container.pid), "limit": container.stats().pids_limit, "exec": status}

    def inside() -> object:
        pathlib.Path(leaf.directories[0], "cgroup.procs").write_text("0")
        return own.run(own.spec(LinuxResources(pids=Pids(limit=5))), ROOTLESS, look)

    def outside() -> object:
        return own.run(own.spec(path=f"{above.path}/own"), ROOTLESS, look)

    try:
        # This process is put there first, as the user may not move it from the root's group.
        pathlib.Path(leaf.directories[0], "cgroup.procs").write_text("0")
        assert as_user(own.uid, inside) == {"group": [f"0::{above.path}/own"], "limit": 6, "exec": 0}
        pathlib.Path("/sys/fs/cgroup/cgroup.procs").write_text("0")
        assert "no permission to put processes there" in as_user(own.uid, outside)
        assert not Cgroup(f"{above.path}/own").exists()
    finally:
        pathlib.Path("/sys/fs/cgroup/cgroup.procs").write_text("0")
        above.kill()
        above.delete()


# --- With a user's systemd ------------------------------------------------------------------------------------


@pytest.fixture
def user(short_dir: pathlib.Path) -> Iterator[Own]:
    """Somebody whose systemd runs."""
    name = "sampan-user"
    subprocess.run(["useradd", "--no-create-home", name], check=True)
    uid = pwd.getpwnam(name).pw_uid
    subprocess.run(["loginctl", "enable-linger", name], check=True)
    bus = pathlib.Path(f"/run/user/{uid}/bus")
    deadline = time.monotonic() + 120
    while not bus.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield Own(short_dir, uid)
    subprocess.run(["loginctl", "disable-linger", name], check=True)
    subprocess.run(["loginctl", "terminate-user", name], check=False)
    deadline = time.monotonic() + 300
    while subprocess.run(["userdel", name], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.requires("cgroup2", "systemd", "program:useradd", "program:loginctl")
def test_a_scope_of_the_users_own_systemd(user: Own) -> None:
    def look(container: Container) -> dict[str, Any]:
        container.update(LinuxResources(pids=Pids(limit=6), memory=Memory(limit=32 * MIB)))
        made = container.exec(Process(cwd="/", args=("/bin/busybox", "sleep", "100"), env=("A=b",)), Stdio())
        deadline = time.monotonic() + 20
        while len(container.pids()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        found, inside = container.stats(), made.pid in container.pids()
        made.end()
        return {
            "group": groups(container.pid), "exec": inside, "pids": found.pids_limit, "memory": found.memory_limit,
        }  # fmt: skip

    def work() -> object:
        resources = LinuxResources(pids=Pids(limit=5), memory=Memory(limit=64 * MIB))
        spec = user.spec(resources, "sampan-test.slice:box:own", **{"org.systemd.property.Description": "'a box'"})
        return user.run(spec, Options(rootless=True, systemd=True), look)

    path = f"/user.slice/user-{user.uid}.slice/user@{user.uid}.service/sampan.slice/sampan-test.slice/box-own.scope"
    expected = {"group": [f"0::{path}"], "exec": True, "pids": 6, "memory": 32 * MIB}
    for environment in (
        {"XDG_RUNTIME_DIR": f"/run/user/{user.uid}"},
        {"XDG_RUNTIME_DIR": "", "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{user.uid}/bus"},
        {"XDG_RUNTIME_DIR": "", "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{user.uid}/systemd/private"},
    ):
        assert as_user(user.uid, work, environment) == expected
        assert not Cgroup(path).exists()


@pytest.mark.requires("cgroup2", "systemd")
def test_a_user_whose_systemd_does_not_run(own: Own) -> None:
    def work() -> object:
        return own.run(own.spec(path="a.slice:b:c"), Options(rootless=True, systemd=True), lambda _: "made")

    said = as_user(own.uid, work, {"XDG_RUNTIME_DIR": "/run/user/54321", "DBUS_SESSION_BUS_ADDRESS": ""})
    assert said.startswith("InvalidArgument: cgroup: /run/user/54321/")
