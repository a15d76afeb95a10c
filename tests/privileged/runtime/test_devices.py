"""Device nodes: made, bound, compared with what is there."""

from __future__ import annotations

import os
import pathlib
import stat

import msgspec
import pytest

from sampan.errors import InvalidArgument, SampanError
from sampan.oci.runtime import Device, DeviceCgroup, LinuxResources
from tests.privileged.runtime.test_container import Box
from tests.privileged.runtime.test_mounts import bind, in_user_namespace, with_mounts

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

STAT = "busybox stat -c '%n %F %t:%T %a %u:%g' "


def nodes(box: Box, *devices: Device, **changes: object) -> dict[str, str]:
    """What `stat` says of each."""
    paths = changes.pop("paths", " ".join(device.path for device in devices))
    status, text = box.run("sh", "-c", f"{STAT}{paths}", devices=devices, **changes)
    assert status == 0, text
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in text.splitlines()}


def no_dev(box: Box) -> dict[str, object]:
    """The image's own /dev, with nothing mounted over it."""
    (box.root / "dev").mkdir(exist_ok=True)
    return {"mounts": tuple(each for each in box.spec("true").mounts if not each.destination.startswith("/dev"))}


def test_what_every_container_has(box: Box) -> None:
    script = f"{STAT} /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; ls -l /dev; echo x > /dev/null"
    _, text = box.run("sh", "-c", script)
    for name, number in (("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9")):
        assert f"/dev/{name} character special file {number} 666 0:0" in text
    assert "/dev/tty character special file 5:0 666 0:0" in text
    for name, target in (
        ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
    ):  # fmt: skip
        assert f" {name} -> {target}\n" in text


def test_every_kind_with_its_mode_and_owner(box: Box) -> None:
    umask = os.umask(0o077)
    try:
        found = nodes(
            box, Device(type="c", path="/dev/fuse", major=10, minor=229, file_mode=0o640, uid=5, gid=6),
            Device(type="b", path="/dev/deep/er/disk", major=8, minor=0),
            Device(type="p", path="/run/fifo", file_mode=0o622),
            Device(type="u", path="/dev/raw", major=1, minor=7, file_mode=0o100444),
            Device(type="c", path="/dev/../elsewhere/./node", major=1, minor=3, file_mode=0o4755),
            paths="/dev/fuse /dev/deep/er/disk /run/fifo /dev/raw /elsewhere/node",
        )  # fmt: skip
    finally:
        os.umask(umask)
    assert found == {
        "/dev/fuse": "character special file a:e5 640 5:6", "/dev/deep/er/disk": "block special file 8:0 666 0:0",
        "/run/fifo": "fifo 0:0 622 0:0", "/dev/raw": "character special file 1:7 444 0:0",
        "/elsewhere/node": "character special file 1:3 4755 0:0",
    }  # fmt: skip


def test_one_that_is_asked_for_instead_of_the_default(box: Box) -> None:
    found = nodes(box, Device(type="c", path="/dev/zero", major=1, minor=5, file_mode=0o600, uid=7))
    assert found == {"/dev/zero": "character special file 1:5 600 7:0"}


def test_one_that_is_there_and_right_is_left_alone(box: Box) -> None:
    changes = no_dev(box)
    os.mknod(box.root / "dev/mine", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.chown(box.root / "dev/mine", 9, 9)
    os.mkfifo(box.root / "dev/pipe", 0o600)
    found = nodes(
        box, Device(type="c", path="/dev/mine", major=1, minor=5, file_mode=0o666), Device(type="p", path="/dev/pipe"),
        **changes,
    )  # fmt: skip
    assert found["/dev/mine"] == "character special file 1:5 600 9:9"
    assert found["/dev/pipe"] == "fifo 0:0 600 0:0"


@pytest.mark.parametrize("there", ["file", "directory", "link", "dangling", "another", "block"])
def test_something_else_that_is_there_is_an_error(box: Box, there: str) -> None:
    """config-linux.md: a file that does not match the device is one. A link may lead to the right one, or out."""
    changes = no_dev(box)
    path = box.root / "dev/mine"
    match there:
        case "file":
            path.touch()
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("zero")
        case "dangling":
            path.symlink_to("/../../etc/nonesuch")
        case "another":
            os.mknod(path, stat.S_IFCHR, os.makedev(1, 7))
        case "block":
            os.mknod(path, stat.S_IFBLK, os.makedev(1, 5))
    with pytest.raises(InvalidArgument, match="create device /dev/mine: something else is there"):
        nodes(box, Device(type="c", path="/dev/mine", major=1, minor=5), **changes)
    assert not (box.root / "etc/nonesuch").exists()


def test_a_null_device_that_the_image_brings(box: Box) -> None:
    changes = no_dev(box)
    (box.root / "dev/null").write_text("not null")
    with pytest.raises(InvalidArgument, match="create device /dev/null: something else"):
        box.run("true", **changes)


def test_ptmx_is_the_containers_own(box: Box) -> None:
    """Whatever the image has there, and whatever is asked for."""
    changes = no_dev(box)
    os.mknod(box.root / "dev/ptmx", stat.S_IFCHR | 0o666, os.makedev(5, 2))
    device = Device(type="c", path="/dev/ptmx", major=5, minor=2)
    _, text = box.run("busybox", "readlink", "/dev/ptmx", devices=(device,), **changes)
    assert text == "pts/ptmx\n"


def test_links_on_the_way_lead_nowhere_out(box: Box) -> None:
    mark = f"sampan-{os.getpid()}"
    (box.root / "way").symlink_to("../../../../../../tmp")
    nodes(box, Device(type="p", path=f"/way/{mark}"))
    assert not os.path.exists(f"/tmp/{mark}")
    assert stat.S_ISFIFO(os.stat(box.root / "tmp" / mark).st_mode)


def test_somebodys_own_dev_stays_as_it_is(box: Box, tmp_path: pathlib.Path) -> None:
    own = tmp_path / "dev"
    own.mkdir()
    (own / "only").touch()
    mounts = tuple(
        each for each in with_mounts(box, bind("/dev", own)) if each.type != "tmpfs" and "pts" not in each.type
    )
    _, text = box.run("ls", "/dev", mounts=mounts, devices=(Device(type="c", path="/dev/x", major=1, minor=3),))
    assert text == "only\n"


def test_in_a_user_namespace_the_hosts_are_bound(box: Box) -> None:
    changes = in_user_namespace(box)
    os.chmod(box.bundle, 0o755)
    resources = LinuxResources(devices=(DeviceCgroup(allow=True, access="rwm"),))
    found = nodes(
        box, Device(type="c", path="/dev/renamed", major=1, minor=7),
        Device(type="p", path="/run/fifo", file_mode=0o600),
        paths="/dev/null /dev/renamed /run/fifo; echo x > /dev/null; echo full >&- 2>/dev/null > /dev/renamed || true",
        resources=resources, **changes,
    )  # fmt: skip
    assert found["/dev/null"].startswith("character special file 1:3")
    assert found["/dev/renamed"].startswith("character special file 1:7")  # By the kernel's name of the number.
    assert found["/run/fifo"] == "fifo 0:0 600 0:0"


def test_in_a_user_namespace_a_node_that_the_host_has_not(box: Box) -> None:
    changes = in_user_namespace(box)
    os.chmod(box.bundle, 0o755)
    # A path that the host has, of another device; and one that no driver has.
    for path in ("/dev/zero", "/dev/nonesuch"):
        with pytest.raises(InvalidArgument, match="the host has no node of 240:7"):
            nodes(box, Device(type="c", path=path, major=240, minor=7), **changes)


def test_a_device_that_is_swapped_is_neither_chowned_nor_used(
    box: Box, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another container that shares the directory puts a link to a file in the node's place."""
    (box.root / "shared").mkdir()
    victim = box.root / "etc/victim"
    victim.touch()
    real = os.mknod

    def swapped(path: str, mode: int, device: int, *, dir_fd: int) -> None:
        real(path, mode, device, dir_fd=dir_fd)
        if path == "mine":
            os.unlink(path, dir_fd=dir_fd)
            os.link("etc/victim", path, src_dir_fd=os.open(box.root, os.O_PATH), dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", swapped)
    with pytest.raises(SampanError, match="something else is there"):
        nodes(box, Device(type="c", path="/shared/mine", major=1, minor=5, uid=1234), **no_dev(box))
    assert victim.stat().st_uid == 0


def test_of_the_configuration(box: Box) -> None:
    spec = box.spec("true", devices=(Device(type="c", path="relative", major=1, minor=3),))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=type(spec)) == spec
    with pytest.raises(InvalidArgument, match="not an absolute path"):
        box.run("true", devices=(Device(type="c", path="relative", major=1, minor=3),))
