"""What is mounted in a container, and what the host sees of it: on a host whose mounts are shared, as systemd's are."""

from __future__ import annotations

import os
import pathlib
import time

import msgspec
import pytest

from sampan.errors import SampanError
from sampan.linux import mount as m
from sampan.oci.runtime import Capabilities, Mount, Process
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.mountinfo import Mounted, here, on_a_host_that_shares, parse
from tests.privileged.runtime.test_container import Box
from tests.privileged.runtime.test_mounts import bind, in_user_namespace, tmpfs, with_mounts

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

ADMIN = Capabilities(
    bounding=("CAP_SYS_ADMIN",), effective=("CAP_SYS_ADMIN",), permitted=("CAP_SYS_ADMIN",)
)  # fmt: skip


class Life:
    """A container that runs, and what each side sees when the other has mounted."""

    def __init__(self, box: Box, *mounts: Mount, **changes: object) -> None:
        self.volume = box.bundle / "volume"
        for name in ("of-host", "of-container", "nested"):
            (self.volume / name).mkdir(parents=True, exist_ok=True)
        self.before = set(here())
        made = with_mounts(box, *(msgspec.structs.replace(each, source=str(self.volume)) for each in mounts))
        spec = box.spec("sleep", "100", mounts=made, capabilities=ADMIN, **changes)
        self._container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec)
        self._container.start()

    def inside(self, *args: str) -> str:
        reading, writing = os.pipe()
        process = Process(cwd="/", args=args, env=("PATH=/bin",), capabilities=ADMIN)
        run = self._container.exec(process, Stdio(None, writing, writing))
        os.close(writing)
        with os.fdopen(reading) as output:
            text = output.read()
        os.waitpid(run.pid, 0)
        os.close(run.pidfd)
        return text

    def mounts(self) -> dict[str, Mounted]:
        return parse(self.inside("cat", "/proc/self/mountinfo"))

    def new_on_the_host(self) -> set[str]:
        return set(here()) - self.before

    def host_mounts(self, path: pathlib.Path) -> None:
        m.mount("of-host", str(path), "tmpfs")
        self.before.add(str(path))

    def end(self) -> None:
        self._container.kill(9)
        os.waitpid(self._container.pid, 0)
        self._container.delete()
        for _ in range(100):  # The namespace's mounts go when the kernel has time.
            if not self.new_on_the_host():
                break
            time.sleep(0.02)


@pytest.mark.parametrize("root", ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable"])
@pytest.mark.parametrize("user", [False, True], ids=["", "user namespace"])
def test_nothing_of_a_container_shows_on_the_host(box: Box, root: str, user: bool) -> None:
    changes = in_user_namespace(box) if user else {}
    os.chmod(box.bundle, 0o755)

    def test() -> None:
        life = Life(
            box, bind("/v", "", "rbind"), tmpfs("/v/nested"), tmpfs("/t", "rshared"), rootfs_propagation=root, **changes
        )
        try:
            assert life.new_on_the_host() == set()
            assert "/v/nested" in life.mounts()
            for place in ("/etc", "/v/of-container", "/t"):
                assert life.inside("mount", "-t", "tmpfs", "x", place) == ""
            assert {"/etc", "/v/of-container", "/t"} <= life.mounts().keys()
            assert life.new_on_the_host() == set()
        finally:
            life.end()
        assert life.new_on_the_host() == set()

    on_a_host_that_shares(test)


@pytest.mark.parametrize(
    ("root", "options", "to_container", "to_host"),
    [
        ("", ("rbind",), True, False), ("", ("rbind", "rprivate"), False, False),
        ("", ("rbind", "rslave"), True, False), ("", ("rbind", "rshared"), True, False),
        ("rslave", ("rbind", "slave"), True, False), ("private", ("rbind",), False, False),
        ("private", ("rbind", "rslave"), True, False), ("shared", ("rbind",), True, False),
        ("shared", ("rbind", "rprivate"), False, False), ("shared", ("rbind", "rslave"), True, False),
        ("shared", ("rbind", "rshared"), True, True), ("shared", ("bind", "shared"), True, True),
        ("shared", ("rbind", "runbindable"), False, False), ("unbindable", ("rbind", "rslave"), True, False),
    ],
)  # fmt: skip
def test_a_volume_shares_as_it_is_asked_to(
    box: Box, root: str, options: tuple[str, ...], to_container: bool, to_host: bool
) -> None:
    def test() -> None:
        life = Life(box, bind("/v", "", *options), rootfs_propagation=root)
        try:
            life.host_mounts(life.volume / "of-host")
            assert ("/v/of-host" in life.mounts()) == to_container
            assert life.inside("mount", "-t", "tmpfs", "x", "/v/of-container") == ""
            assert life.new_on_the_host() == ({str(life.volume / "of-container")} if to_host else set())
        finally:
            for place in life.new_on_the_host():
                m.umount(place)
            life.end()

    on_a_host_that_shares(test)


@pytest.mark.parametrize(
    ("root", "tag", "sees_the_host"),
    [
        ("", "master", True), ("slave", "master", True), ("rslave", "master", True), ("private", "", False),
        ("shared", "shared", False), ("rshared", "shared", False), ("unbindable", "unbindable", False),
    ],
)  # fmt: skip
def test_the_roots_propagation(box: Box, root: str, tag: str, sees_the_host: bool) -> None:
    """config-linux.md: shared is a peer group of the container's own."""
    (box.root / "later").mkdir()

    def test() -> None:
        life = Life(box, rootfs_propagation=root)
        try:
            own = life.mounts()["/"].tags
            assert [each.partition(":")[0] for each in own] == ([tag] if tag else [])
            life.host_mounts(box.root / "later")
            assert ("/later" in life.mounts()) == sees_the_host
            if root == "rshared":
                assert all(any("shared" in tag for tag in each.tags) for each in life.mounts().values())
            if root == "unbindable":
                assert "Invalid" in life.inside("mount", "-o", "bind", "/", "/later")
        finally:
            life.end()
            m.umount(str(box.root / "later"))

    on_a_host_that_shares(test)


def test_several_kinds_one_after_the_other(box: Box) -> None:
    """Follow the host, and share what is mounted with others: rslave and then rshared."""

    def test() -> None:
        life = Life(box, bind("/v", "", "rbind", "rslave", "rshared"), rootfs_propagation="shared")
        try:
            tags = life.mounts()["/v"].tags
            assert sorted(each.partition(":")[0] for each in tags) == ["master", "shared"]
        finally:
            life.end()

    on_a_host_that_shares(test)


def test_a_root_that_is_a_mount_itself(box: Box) -> None:
    """As an engine's is: an overlay."""

    def test() -> None:
        m.mount(str(box.root), str(box.root), flags=m.MS_BIND)
        for root in ("", "shared", "private"):
            life = Life(box, rootfs_propagation=root)
            try:
                assert life.new_on_the_host() == set()
            finally:
                life.end()
        m.umount(str(box.root))

    on_a_host_that_shares(test)


def test_a_failure_leaves_no_mount(box: Box) -> None:
    def test() -> None:
        before = set(here())
        for root in ("", "shared", "private"):
            for bad in ({"cwd": "/bin/busybox/x"}, {"masked_paths": ("/etc/loop",)}):
                with pytest.raises(SampanError, match=r"not a directory|symbolic links"):
                    Life(box, bind("/v", ""), tmpfs("/t"), rootfs_propagation=root, **bad)
            with pytest.raises(SampanError, match="nonesuch"):
                Life(box, bind("/v", ""), tmpfs("/t", "nonesuch=1"), rootfs_propagation=root)
        assert set(here()) - before == set()  # Others may have unmounted something meanwhile.

    (box.root / "etc/loop").symlink_to("loop")
    on_a_host_that_shares(test)
