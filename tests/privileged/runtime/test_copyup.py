"""tmpcopyup: a tmpfs that begins with what was there."""

from __future__ import annotations

import os
import pathlib
import stat
import subprocess
from collections.abc import Iterator

import pytest

from sampan.errors import SampanError
from sampan.linux import mount as m
from sampan.linux.fs import openat2
from sampan.oci.runtime import Capabilities
from sampan.runtime.copyup import copy_up
from tests.privileged.runtime.mountinfo import parse
from tests.privileged.runtime.test_container import Box
from tests.privileged.runtime.test_mounts import bind, in_user_namespace, run, tmpfs

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

ALL_FILES = Capabilities(
    bounding=("CAP_DAC_OVERRIDE",), effective=("CAP_DAC_OVERRIDE",), permitted=("CAP_DAC_OVERRIDE",)
)  # fmt: skip
OLD = 1_000_000_000_123_456_789


@pytest.fixture
def copied(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """What becomes of the directory `source`, after `copy`."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    m.mount("tmpfs", str(target), "tmpfs", data="size=8m,mode=755")
    yield tmp_path
    m.umount(str(target))


def copy(directory: pathlib.Path, owner: bool = True) -> pathlib.Path:
    source = os.open(directory / "source", os.O_PATH | os.O_DIRECTORY)
    target = os.open(directory / "target", os.O_PATH | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        copy_up(source, target, owner=owner)
    finally:
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(source)
        os.close(target)
    return directory / "target"


@pytest.mark.requires("kernel:6.6")  # For extended attributes on a tmpfs.
def test_everything_about_files(copied: pathlib.Path) -> None:
    source = copied / "source"
    (source / "sub/deep").mkdir(parents=True)
    (source / "file").write_bytes(b"content")
    os.chown(source / "file", 5, 6)
    os.chmod(source / "file", 0o4750)
    os.setxattr(source / "file", "user.mark", b"\0value")
    os.setxattr(source / "file", "security.capability", bytes.fromhex("0100000201000000000000000000000000000000"))
    os.setxattr(source / "sub", "trusted.mark", b"t")
    os.link(source / "file", source / "sub/hard")
    (source / "sub/link").symlink_to("../file")
    os.chown(source / "sub/link", 7, 8, follow_symlinks=False)
    os.mkfifo(source / "fifo", 0o622)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(source / "fifo", 0o622)
    os.chmod(source / "sub", 0o2711)
    os.chown(source / "sub", 9, 10)
    os.chmod(source / "sub", 0o2711)
    os.chmod(source, 0o1777)
    os.chown(source, 11, 12)
    every = ("file", "sub/link", "sub/deep", "fifo", "null", "sub", ".")
    for name in every:
        os.utime(source / name, ns=(OLD, OLD), follow_symlinks=False)
    target = copy(copied)
    for name in every:
        was, now = (os.stat(each / name, follow_symlinks=False) for each in (source, target))
        for field in ("st_uid", "st_gid", "st_size" if name == "file" else "st_uid", "st_rdev", "st_mtime_ns"):
            assert getattr(now, field) == getattr(was, field), (name, field)
        if name != ".":  # Its mode is an option of the mount.
            assert now.st_mode == was.st_mode, name
    assert (target / "file").read_bytes() == b"content"
    assert os.getxattr(target / "file", "user.mark") == b"\0value"
    assert os.getxattr(target / "file", "security.capability") == os.getxattr(source / "file", "security.capability")
    assert os.getxattr(target / "sub", "trusted.mark") == b"t"
    assert os.readlink(target / "sub/link") == "../file"
    assert os.stat(target / "file").st_ino == os.stat(target / "sub/hard").st_ino
    assert os.stat(target / "file").st_nlink == 2


def test_holes_stay_holes(copied: pathlib.Path) -> None:
    with open(copied / "source/sparse", "wb") as file:
        file.write(b"begin")
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate(1 << 31)
    (copied / "source/empty").touch()
    target = copy(copied)
    with open(target / "sparse", "rb") as file:
        assert file.read(10) == b"begin" + bytes(5)
        file.seek(1 << 30)
        assert file.read(10) == b"end" + bytes(7)
    assert os.stat(target / "sparse").st_size == 1 << 31
    assert os.stat(target / "sparse").st_blocks < 100
    assert os.stat(target / "empty").st_size == 0


def test_no_link_is_followed(copied: pathlib.Path) -> None:
    secret = copied / "secret"
    secret.mkdir()
    (secret / "file").write_text("of the host")
    for name, link in (("absolute", str(secret)), ("relative", "../secret"), ("file", "../secret/file"), ("up", "..")):
        (copied / "source" / name).symlink_to(link)
    target = copy(copied)
    assert {each.name: os.readlink(each) for each in target.iterdir()} == {
        "absolute": str(secret), "relative": "../secret", "file": "../secret/file", "up": "..",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_is_swapped_for_a_link_meanwhile(copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Between the listing and the opening, by somebody who shares the directory."""
    secret = copied / "secret"
    secret.mkdir()
    (secret / "file").write_text("of the host")
    path = copied / "source/mine"
    path.mkdir() if kind == "directory" else path.write_text("mine")

    def swapping(directory: int, name: str, flags: int, *, resolve: int) -> int:
        if name.endswith("mine") and not path.is_symlink():
            path.rmdir() if kind == "directory" else path.unlink()
            path.symlink_to(secret if kind == "directory" else secret / "file")
        return openat2(directory, name, flags, resolve=resolve)

    monkeypatch.setattr("sampan.runtime.copyup.openat2", swapping)
    try:
        copy(copied)
    except OSError as error:
        assert "symbolic links" in str(error)
    assert not (copied / "target/mine/file").exists()
    assert not (copied / "target/mine").is_file()


def test_what_is_mounted_inside_is_not_copied(copied: pathlib.Path) -> None:
    inner, file = copied / "source/inner", copied / "source/file"
    inner.mkdir()
    file.touch()
    m.mount("tmpfs", str(inner), "tmpfs")
    (inner / "large").touch()
    m.mount("/etc/passwd", str(file), flags=m.MS_BIND)
    try:
        target = copy(copied)
        assert list((target / "inner").iterdir()) == []
        assert not (target / "file").exists()
    finally:
        m.umount(str(inner))
        m.umount(str(file))


def test_what_does_not_fit_is_named(copied: pathlib.Path) -> None:
    (copied / "source/a").mkdir()
    (copied / "source/a/large").write_bytes(os.urandom(9 << 20))
    with pytest.raises(OSError, match="copying a/large: No space left"):
        copy(copied)


def test_very_many_and_very_deep(copied: pathlib.Path) -> None:
    """Deeper than Python's recursion and than the limit of open files."""
    at = os.open(copied / "source", os.O_PATH)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        following = os.open("d", os.O_PATH, dir_fd=at)
        os.close(at)
        at = following
    os.close(at)
    (copied / "source/many").mkdir()
    for number in range(3000):
        (copied / f"source/many/{number}").touch()
    try:
        target = copy(copied)
        assert len(list((target / "many").iterdir())) == 3000
        assert os.path.isdir(target / "/".join(["d"] * 1500))
    finally:
        subprocess.run(["rm", "-rf", str(copied / "source/d")], check=True)  # pytest's own way is not deep enough.


# --- In a container -------------------------------------------------------------------------------------------


def _image(box: Box) -> None:
    data = box.root / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("of the image")
    os.link(data / "file", data / "sub/hard")
    (data / "link").symlink_to("/etc/passwd")
    os.chmod(data, 0o711)
    os.chown(data, 5, 6)


@pytest.mark.parametrize("options", [("ro",), ("rprivate", "nosuid"), ("size=1m,mode=1700", "uid=7")])
def test_a_container_begins_with_the_images(box: Box, options: tuple[str, ...]) -> None:
    _image(box)
    script = (
        "cat /data/file /data/sub/hard; echo; busybox stat -c '%a %u' /data; touch /data/new && echo written;"
        "ls -d /data/link; cat /proc/self/mountinfo"
    )
    text = run(box, script, tmpfs("/data", "tmpcopyup", *options), capabilities=ALL_FILES)
    lines = text.splitlines()
    assert lines[0] == "of the image" * 2
    assert lines[1] == ("1700 7" if "uid=7" in options else "711 5")
    assert ("written" in lines) == ("ro" not in options)
    found = parse(text)["/data"]
    assert (found.kind, "ro" in found.options, "nosuid" in found.options) == (
        "tmpfs",
        "ro" in options,
        "nosuid" in options,
    )
    assert not (box.root / "data/new").exists()


def test_in_a_user_namespace(box: Box) -> None:
    _image(box)
    os.mknod(box.root / "data/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    changes = in_user_namespace(box)
    os.chmod(box.bundle, 0o755)
    text = run(box, "cat /data/file; ls /data; busybox stat -c %u /data/file", tmpfs("/data", "tmpcopyup"), **changes)
    assert text.split() == ["of", "the", "imagefile", "link", "sub", "0"]  # And no device: none can be made there.


def test_where_nothing_is_and_where_a_link_leads(box: Box) -> None:
    _image(box)
    (box.root / "way").symlink_to("data")
    mounts = (tmpfs("/new", "tmpcopyup"), tmpfs("/way", "tmpcopyup"))
    text = run(box, "ls /new /way", *mounts, capabilities=ALL_FILES)
    assert text.split() == ["/new:", "/way:", "file", "link", "sub"]


def test_a_volume_below(box: Box, tmp_path: pathlib.Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("of the volume")
    assert run(box, "cat /data/file", bind("/data", volume), tmpfs("/data", "tmpcopyup")) == "of the volume"


def test_one_that_does_not_fit_leaves_nothing(box: Box) -> None:
    _image(box)
    (box.root / "data/large").write_bytes(os.urandom(1 << 20))
    with pytest.raises(SampanError, match='mounting "tmpfs" to rootfs at "/data": copying large: No space left'):
        run(box, "true", tmpfs("/data", "tmpcopyup", "size=64k"))
