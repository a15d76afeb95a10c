"""What our runtime and runc write into a container's cgroup, file by file, for the same configuration."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from sampan.linux import process
from sampan.linux.cgroup import Cgroup, hierarchies
from sampan.oci.runtime import LinuxResources
from sampan.runtime.container import Container, Stdio, decode_config
from sampan.runtime.events import stats_document

pytestmark = pytest.mark.requires("root", "program:runc", "program:busybox")

MIB = 1 << 20
PATH = f"/sampan-files-{os.getpid()}/box"
RUNC = shutil.which("runc", path=os.environ["PATH"] + ":/usr/sbin:/sbin") or "runc"
NOTHING = {"allow": False, "access": "rwm"}

# Counters, members, and what the kernel keeps for itself.
_NOT_WRITTEN = re.compile(
    r"usage|stat$|stat\.|fail|max_usage|peak|current|events|pressure|procs|tasks|threads|serviced|service_bytes|slabinfo"
    r"|memory_pressure|freezer\.(self|parent)|effective|cgroup\.(max|type|controllers|subtree|kill)|event_control"
)

Files = dict[str, list[str]]


def files(group: Cgroup) -> Files:
    """What may be written, and what is in it."""
    found: Files = {}
    for directory in group.directories:
        for path in sorted(pathlib.Path(directory).iterdir()):
            if path.is_file() and not _NOT_WRITTEN.search(path.name):
                with contextlib.suppress(OSError):  # Those that can't be read.
                    found[str(path)] = sorted(path.read_text().splitlines())
    return found


class Two:
    """A bundle that both runtimes run, one after the other."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.bundle = directory
        self.state_root = str(directory / "state")
        (directory / "rootfs/bin").mkdir(parents=True)
        for name in ("dev", "proc", "sys"):
            (directory / "rootfs" / name).mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", directory / "rootfs/bin/busybox")

    def configure(self, resources: dict[str, Any] | None, path: str = PATH) -> None:
        linux: dict[str, Any] = {"namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts", "network")]}
        if path:
            linux["cgroupsPath"] = path
        if resources is not None:
            linux["resources"] = resources
        document = {
            "ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": linux,
            "process": {
                "args": ["/bin/busybox", "sleep", "1000"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["A=b"]
            },
            "mounts": [
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/proc", "type": "proc", "source": "proc"},
            ],
        }  # fmt: skip
        (self.bundle / "config.json").write_text(json.dumps(document))

    def runc(self, *words: str, text: str = "") -> str:
        """Its output; AssertionError with its error."""
        line = [RUNC, "--root", self.state_root + ".runc", *words]
        with open(self.bundle / "error", "w+") as error:  # The container keeps it open: no pipe.
            done = subprocess.run(line, input=text, stdout=subprocess.PIPE, stderr=error, text=True, cwd=self.bundle)
            error.seek(0)
            assert done.returncode == 0, error.read()
        return done.stdout

    @contextlib.contextmanager
    def theirs(self) -> Iterator[int]:
        """The first process of a container of runc's."""
        with open(os.devnull, "w") as null:
            line = [RUNC, "--root", self.state_root + ".runc", "run", "-d", "--pid-file", "pid", "box"]
            with open(self.bundle / "error", "w+") as error:
                done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=null, stderr=error, cwd=self.bundle)
                error.seek(0)
                assert done.returncode == 0, error.read()
        try:
            yield int((self.bundle / "pid").read_text())
        finally:
            self.runc("delete", "--force", "box")

    @contextlib.contextmanager
    def ours(self) -> Iterator[Container]:
        spec = decode_config((self.bundle / "config.json").read_bytes(), str(self.bundle))
        container = Container.create("box", str(self.bundle), self.state_root, Stdio(), spec=spec)
        try:
            container.start()
            yield container
        finally:
            container.kill(signal.SIGKILL)
            os.waitpid(container.pid, 0)
            container.delete()


@pytest.fixture
def two(tmp_path: pathlib.Path) -> Iterator[Two]:
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    yield Two(tmp_path)
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    assert not Cgroup(PATH).exists()
    above = os.path.dirname(PATH)
    Cgroup(above).delete()
    Cgroup(above, {"/sys/fs/cgroup/unified": above}).delete()  # runc's.


def compared(theirs: Files, ours: Files, known: dict[str, tuple[list[str], list[str]]]) -> None:
    """`known`: what differs, by the file's name: theirs and ours."""
    assert set(ours) == set(theirs)
    different = {path: (theirs[path], ours[path]) for path in ours if theirs[path] != ours[path]}
    assert {os.path.basename(path): both for path, both in different.items()} == known


DEVICES: list[dict[str, Any]] = [
    NOTHING, {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
    {"allow": True, "type": "b", "major": 8, "access": "r"}, {"allow": True, "type": "b", "major": 8, "access": "w"},
    {"allow": True, "type": "c", "major": 4, "minor": 64, "access": "rwm"},
    {"allow": False, "type": "c", "major": 4, "minor": 64, "access": "w"},
]  # fmt: skip
DISK = {"major": os.major(os.stat("/").st_dev), "minor": os.minor(os.stat("/").st_dev)}
COMMON: dict[str, dict[str, Any]] = {
    "memory": {"memory": {"limit": 64 * MIB}},
    "memory to the page": {"memory": {"limit": 64 * MIB + 5000, "reservation": 32 * MIB + 1}},
    "memory and swap": {"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB}},
    "memory without swap": {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
    "memory and all swap": {"memory": {"limit": 64 * MIB, "swap": -1}},
    "all memory": {"memory": {"limit": -1}},
    "memory of 0": {"memory": {"limit": 0, "swap": 0, "reservation": 0}},
    "quota": {"cpu": {"quota": 50000}},
    "quota and period": {"cpu": {"quota": 20000, "period": 50000}},
    "period": {"cpu": {"period": 50000}},
    "no quota": {"cpu": {"quota": -1, "period": 50000}},
    "a processor": {"cpu": {"cpus": "1", "mems": "0"}},
    "pids": {"pids": {"limit": 33}},
    "all pids": {"pids": {"limit": -1}},
    "throttles": {
        "blockIO": {
            "throttleReadBpsDevice": [{**DISK, "rate": 1 << 30}], "throttleWriteBpsDevice": [{**DISK, "rate": 2 << 30}],
            "throttleReadIOPSDevice": [{**DISK, "rate": 3000}], "throttleWriteIOPSDevice": [{**DISK, "rate": 4000}],
        }
    },
    "everything": {
        "memory": {"limit": 64 * MIB, "swap": 128 * MIB}, "cpu": {"quota": 40000, "period": 100000, "cpus": "0-1"},
        "pids": {"limit": 7},
    },
}  # fmt: skip
V1: dict[str, dict[str, Any]] = {
    "shares": {"cpu": {"shares": 512}},
    "swappiness": {"memory": {"swappiness": 10}},
    "no killer": {"memory": {"limit": 64 * MIB, "disableOOMKiller": True}},
    "weight": {"blockIO": {"weight": 300}},
    "a killer": {"memory": {"disableOOMKiller": False}},
}
# With v2 the lists of devices are programs, whose effect test_cgroup2 tests.
DEVICE_LISTS: dict[str, dict[str, Any]] = {
    "devices": {"devices": DEVICES},
    "all devices": {"devices": [{"allow": True, "access": "rwm"}]},
    "no devices but one": {"devices": [NOTHING, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]},
    "all devices but one": {
        "devices": [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "w"},
        ]
    },
}
ALL = COMMON | (V1 | DEVICE_LISTS if not hierarchies().unified else {})


def known_devices(resources: dict[str, Any], theirs: Files) -> dict[str, tuple[list[str], list[str]]]:
    """runc 1.1 allows every container /dev/net/tun, which the specification does not have."""
    for path, lines in theirs.items():
        if (
            path.endswith("/devices.list")
            and "c 10:200 rwm" in lines
            and DEVICES[1] not in resources.get("devices", ())
        ):
            return {"devices.list": (lines, [line for line in lines if line != "c 10:200 rwm"])}
    return {}


@pytest.mark.parametrize("name", ALL)
def test_a_new_container(two: Two, name: str) -> None:
    two.configure(ALL[name])
    with two.theirs():
        theirs = files(Cgroup(PATH))
    with two.ours():
        ours = files(Cgroup(PATH))
    compared(theirs, ours, known_devices(ALL[name], theirs))


def test_a_container_without_a_word_about_resources(two: Two) -> None:
    two.configure(None)
    with two.theirs():
        theirs = files(Cgroup(PATH))
    with two.ours():
        ours = files(Cgroup(PATH))
    compared(theirs, ours, known_devices({}, theirs))


UPDATES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}),
    ({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, {"memory": {"limit": 128 * MIB, "swap": 256 * MIB}}),
    ({"memory": {"limit": 128 * MIB, "swap": 256 * MIB}}, {"memory": {"limit": 32 * MIB, "swap": 64 * MIB}}),
    ({"memory": {"limit": 128 * MIB, "swap": 256 * MIB}}, {"memory": {"limit": -1}}),
    ({"memory": {"limit": 128 * MIB, "swap": 256 * MIB}}, {"memory": {"reservation": 64 * MIB}}),
    ({"cpu": {"quota": 50000, "period": 100000}}, {"cpu": {"quota": 5000, "period": 10000}}),
    ({"cpu": {"quota": 5000, "period": 10000}}, {"cpu": {"quota": 50000, "period": 100000}}),
    ({"cpu": {"quota": 5000, "period": 10000}}, {"cpu": {"quota": -1}}),
    ({"cpu": {"quota": 50000, "period": 100000}}, {"cpu": {"period": 200000}}),
    ({"cpu": {"quota": 50000, "period": 200000}}, {"cpu": {"quota": 60000}}),
    ({"cpu": {"cpus": "0-1"}}, {"cpu": {"cpus": "1"}}),
    ({"pids": {"limit": 10}}, {"pids": {"limit": 20}}),
    ({"pids": {"limit": 10}}, {"pids": {"limit": -1}}),
    ({"pids": {"limit": 10}}, {"memory": {"limit": 64 * MIB}}),
]


@pytest.mark.parametrize(("before", "after"), UPDATES, ids=range(len(UPDATES)))
def test_an_update(two: Two, before: dict[str, Any], after: dict[str, Any]) -> None:
    two.configure(before)
    with two.theirs():
        two.runc("update", "--resources", "-", "box", text=json.dumps(after))
        theirs = files(Cgroup(PATH))
    with two.ours() as container:
        container.update(msgspec.convert(after, LinuxResources))
        ours = files(Cgroup(PATH))
    compared(theirs, ours, known_devices({}, theirs))


@pytest.mark.parametrize(
    "path", ["", f"sampan-files-{os.getpid()}", f"../sampan-files-{os.getpid()}/../x/a", f"//{PATH}//b/"]
)
def test_where_the_group_is(two: Two, path: str) -> None:
    """A path that is relative or missing leads to another place in each tree, if this process's own group does."""

    def groups(pid: int) -> list[str]:
        lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        # runc is in v2's tree beside v1's where no systemd runs, too.
        return [line for line in lines if "" in hierarchies().roots or not line.startswith("0::")]

    two.configure({}, path)
    with two.theirs() as pid:
        theirs = groups(pid)
    with two.ours() as container:
        ours = groups(container.pid)
        group = Cgroup(container.record.cgroup, container.record.cgroup_places)
        assert container.pids() == [container.pid]
        assert all("box" in line or "sampan-files" in line or line.endswith("/x/a") for line in ours)
    assert ours == theirs
    assert not group.exists()
    for directory in group.directories:
        for parent in pathlib.Path(directory).parents:
            if parent.name in ("x", "sampan-files", os.path.dirname(PATH).strip("/"), "box"):
                parent.rmdir()


def _shape(value: Any) -> Any:
    """A document's members, without the numbers."""
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    return [_shape(each) for each in value[:1]] if isinstance(value, list) else type(value).__name__


def test_the_counters(two: Two) -> None:
    two.configure({"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}, "cpu": {"quota": 50000, "period": 100000}})
    with two.theirs():
        theirs = json.loads(two.runc("events", "--stats", "box"))
        counters = Cgroup(PATH).counters()
    ours = json.loads(stats_document("box", counters))
    # The same group twice, so that only what goes on counting may differ.
    for document in (theirs, ours):
        document["data"]["network_interfaces"] = None
        document["data"]["blkio"] = {}
    if not hierarchies().unified:
        assert _shape(ours) == _shape(theirs)
    for what in ("limit", "failcnt"):
        for kind in ("usage", "swap"):
            assert ours["data"]["memory"][kind][what] == theirs["data"]["memory"][kind][what]
    assert ours["data"]["pids"] == theirs["data"]["pids"] == {"current": 1, "limit": 9}
    assert ours["data"]["cpuset"] == theirs["data"]["cpuset"]
    assert abs(ours["data"]["memory"]["usage"]["usage"] - theirs["data"]["memory"]["usage"]["usage"]) < 4 * MIB
