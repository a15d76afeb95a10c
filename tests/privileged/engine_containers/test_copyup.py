"""Filling a volume from an image, while others do what they want in it."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pathlib
import stat
import time

import pytest

from sampan.engine.containers.copyup import copy_tree

pytestmark = pytest.mark.requires("root")

_DIRECTORIES = 20


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    at = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    to = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        copy_tree(at, to)
    finally:
        os.close(at)
        os.close(to)


def test_everything_with_its_attributes(tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/b").mkdir(parents=True)
    target.mkdir()
    (source / "a/b/file").write_bytes(b"x" * 100_000)
    (source / "empty").touch()
    (source / "link").symlink_to("/etc/shadow")
    os.mkfifo(source / "fifo")
    os.mknod(source / "device", 0o20600, os.makedev(1, 3))
    os.setxattr(source / "a/b/file", "user.mark", b"1")
    os.chown(source / "a/b/file", 7, 8)
    os.chmod(source / "a/b/file", 0o6711)
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    os.chmod(source, 0o1777)
    os.utime(source / "a", ns=(1_000_000_000, 2_000_000_000))
    os.link(source / "a/b/file", source / "second")
    with open(source / "holes", "wb") as file_with_holes:
        file_with_holes.truncate(64 << 20)
        file_with_holes.seek(32 << 20)
        file_with_holes.write(b"in the middle")
    os.utime(source / "link", ns=(3_000_000_000, 4_000_000_000), follow_symlinks=False)
    _copy(source, target)
    file = target / "a/b/file"
    assert file.read_bytes() == b"x" * 100_000
    assert (file.stat().st_uid, file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (7, 8, 0o6711)
    assert os.getxattr(file, "user.mark") == b"1"
    assert (os.readlink(target / "link"), (target / "link").lstat().st_uid) == ("/etc/shadow", 5)
    assert stat.S_IMODE(target.stat().st_mode) == 0o1777
    assert (target / "a").stat().st_mtime_ns == 2_000_000_000
    assert sorted(os.listdir(target)) == ["a", "device", "empty", "fifo", "holes", "link", "second"]
    assert (target / "second").samefile(file)
    assert ((target / "holes").stat().st_size, (target / "holes").stat().st_blocks < 2048) == (64 << 20, True)
    assert (target / "holes").read_bytes()[32 << 20 :].startswith(b"in the middle\0")
    assert (target / "link").lstat().st_mtime_ns == 4_000_000_000
    assert stat.S_ISFIFO((target / "fifo").stat().st_mode)
    device = (target / "device").stat()
    assert (device.st_rdev, stat.S_IMODE(device.st_mode)) == (os.makedev(1, 3), 0o600)


def test_a_tree_deeper_than_the_stack(tmp_path: pathlib.Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    path = tmp_path / "source"
    for _ in range(1500):
        path = path / "d"
        path.mkdir()
    (path / "file").touch()
    _copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target" / path.relative_to(tmp_path / "source") / "file").exists()


def _swap(volume: str, outside: str) -> None:
    """Exchange the volume's directories for links, as fast as it goes."""
    here = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    for turn in itertools.count():
        for number in range(_DIRECTORIES):
            with contextlib.suppress(OSError):
                os.rename(f"d{number}", f"o{turn}.{number}", src_dir_fd=here, dst_dir_fd=here)
            with contextlib.suppress(OSError):
                os.symlink(outside, f"d{number}", dir_fd=here)
        for number in range(_DIRECTORIES):
            with contextlib.suppress(OSError):
                os.unlink(f"d{number}", dir_fd=here)


def test_a_volume_whose_directories_become_links(tmp_path: pathlib.Path) -> None:
    """Another container has the same volume: what is copied must not land where its links lead."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    outside.mkdir(mode=0o700)
    for number in range(_DIRECTORIES):
        (source / f"d{number}").mkdir(parents=True)
        os.chmod(source / f"d{number}", 0o777)
        for name in "abc":
            (source / f"d{number}" / name).write_text("of the image")
    volume = tmp_path / "volume"
    volume.mkdir()
    attacker = multiprocessing.get_context("spawn").Process(target=_swap, args=(str(volume), str(outside)))
    attacker.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            # What the attacker has moved away or made meanwhile may be missed, and that is all.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                _copy(source, volume)
            assert os.listdir(outside) == []
            assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    finally:
        attacker.kill()
        attacker.join()
