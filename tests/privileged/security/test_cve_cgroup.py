"""Attacks by the cgroup file system: its files can do things to the host."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from sampan.linux import mount, namespaces
from sampan.linux.capabilities import NAMES
from sampan.linux.cgroup import Cgroup, hierarchies
from sampan.oci.runtime import Capabilities, IDMapping, Mount, Namespace
from tests.privileged.runtime.test_container import Box
from tests.privileged.security.attacks import attempt, inside, say

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

_MAP = (IDMapping(container_id=0, host_id=100000, size=1000),)


def _trees() -> list[str]:
    trees = hierarchies()
    return [""] if trees.unified else sorted({os.path.basename(each) for each in trees.roots.values()})


def _write_all(top: str) -> None:
    """Try to write every file of the cgroup trees that does harm, and to make a group."""
    refused = 0
    for at, directories, files in os.walk(top):
        del directories[:]
        for name in files:
            if name in ("release_agent", "notify_on_release", "devices.allow", "cgroup.procs", "tasks", "cgroup.kill"):
                try:
                    descriptor = os.open(f"{at}/{name}", os.O_WRONLY)
                    os.write(descriptor, b"a" if name == "devices.allow" else b"0")
                    say(f"written: {at}/{name}")
                except OSError:
                    refused += 1
    attempt("mkdir", lambda: os.mkdir(f"{top}/made"))
    say(f"tried: {refused}")


def _attack_by_a_namespace() -> None:
    """As the exploit does: root of a user namespace of one's own mounts each tree anew, and looks for release_agent; as
    it is seen from the cgroup namespace that is there, and from one of its own."""
    os.makedirs("/tmp/tree", exist_ok=True)
    for kinds in (namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS, namespaces.CLONE_NEWCGROUP):
        attempt("unshare", lambda kinds=kinds: namespaces.unshare(kinds))  # type: ignore[misc]
        for name in _trees():
            kind = "cgroup" if name else "cgroup2"
            data = "none,name=systemd" if name == "systemd" else name
            try:
                mount.mount("cgroup", "/tmp/tree", kind, 0, data)
            except OSError:
                continue
            say(f"mounted {kind} {name}")
            if os.path.exists("/tmp/tree/release_agent"):
                attempt("release_agent", lambda: _write("/tmp/tree/release_agent", "/attack"))
            mount.umount("/tmp/tree", mount.MNT_DETACH)
    say("over")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("own", [True, False])
def test_cve_2022_0492_release_agent_through_a_namespace(box: Box, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """A container without any capability, and without a filter of system calls. The kernel refuses since 5.17; before,
    it was the container's group as the tree's root that held (no release_agent in it)."""
    kinds = ("mount", "pid", "network", "ipc", "uts", *(("cgroup",) if own else ()))
    text = inside(
        box, monkeypatch, _attack_by_a_namespace, namespaces=tuple(Namespace(type=kind) for kind in kinds),
        capabilities=Capabilities(),
    )  # fmt: skip

    assert "over" in text
    assert "release_agent: done" not in text


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("capable", [True, False])
def test_cve_2022_0492_nothing_of_cgroups_can_be_written(
    box: Box, monkeypatch: pytest.MonkeyPatch, own: bool, capable: bool
) -> None:
    """By what is mounted at /sys/fs/cgroup, with and without a cgroup namespace; with all capabilities but one."""
    kinds = ("mount", "pid", "network", "ipc", "uts", *(("cgroup",) if own else ()))
    names = tuple(name for name in NAMES if name != "CAP_SYS_ADMIN") if capable else ()

    def act() -> None:
        for name in _trees():
            _write_all(f"/sys/fs/cgroup/{name}".rstrip("/"))

    text = inside(
        box, monkeypatch, act, namespaces=tuple(Namespace(type=kind) for kind in kinds),
        capabilities=Capabilities(bounding=names, effective=names, permitted=names),
    )  # fmt: skip
    assert "written" not in text
    assert "mkdir: done" not in text
    tried = [int(line.partition(": ")[2]) for line in text.splitlines() if line.startswith("tried")]
    assert sum(tried) >= len(_trees())


@pytest.fixture
def delegated(box: Box) -> Iterator[list[str]]:
    """A group above the container's that belongs to the user that the container's root is."""
    group = Cgroup(f"/sampan-delegated-{os.getpid()}")
    group.create()
    for directory in group.directories:
        for each in (directory, *(f"{directory}/{name}" for name in os.listdir(directory))):
            os.chown(each, 100000, 100000)
    yield group.directories
    group.delete()


@pytest.mark.parametrize("sys", ["sysfs", "rbind"])
@pytest.mark.parametrize("own", [True, False])
def test_cve_2023_25809_a_delegated_group_is_read_only(
    box: Box, monkeypatch: pytest.MonkeyPatch, delegated: list[str], sys: str, own: bool
) -> None:
    """Root of a user namespace who owns cgroups on the host, and no cgroup namespace; or /sys bound from the host, as
    `runc spec --rootless` has it: what is read-only was only its topmost mount."""
    for each in (box.root, *box.root.rglob("*")):
        os.chown(each, 100000, 100000, follow_symlinks=False)
    kinds = ("mount", "pid", "network", "ipc", "uts", "user", *(("cgroup",) if own else ()))
    bound = Mount(
        destination="/sys", type="none", source="/sys", options=("rbind", "nosuid", "noexec", "nodev", "ro")
    )  # fmt: skip
    mounts = tuple(bound if sys == "rbind" and each.destination == "/sys" else each for each in box.spec("true").mounts)
    base = os.path.basename(delegated[0])

    def act() -> None:
        found = 0
        for at, _, files in os.walk("/sys/fs/cgroup"):
            if base in at or f"sampan-test-{box.id}" in at:
                found += 1
                _write_all(at)
            elif at.count("/") < 5 and "cgroup.procs" in files:
                _write_all(at)
        say(f"found: {found}")

    text = inside(
        box, monkeypatch, act, namespaces=tuple(Namespace(type=kind) for kind in kinds), mounts=mounts,
        uid_mappings=_MAP, gid_mappings=_MAP, cgroups_path=f"/{base}/{box.id}",
        capabilities=Capabilities(bounding=NAMES, effective=NAMES, permitted=NAMES),
    )  # fmt: skip
    assert "tried" in text, text
    assert "written" not in text
    assert "mkdir: done" not in text
    assert all(not pathlib.Path(f"{directory}/made").exists() for directory in delegated)


def test_cve_2023_25809_without_cgroups_in_the_configuration(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bound /sys, and no cgroup mount over what lies in it: stricter than runc."""
    bound = Mount(destination="/sys", type="none", source="/sys", options=("rbind", "nosuid", "ro"))
    kept = tuple(each for each in box.spec("true").mounts if not each.destination.startswith("/sys"))

    def act() -> None:
        for name in _trees():
            _write_all(f"/sys/fs/cgroup/{name}".rstrip("/"))

    text = inside(box, monkeypatch, act, mounts=(*kept, bound), capabilities=Capabilities())
    assert "tried" in text
    assert "written" not in text
    assert "mkdir: done" not in text
