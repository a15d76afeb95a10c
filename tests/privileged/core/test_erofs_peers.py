"""Our images beside those of erofs-utils: its checker reads ours, and its writer's show the same tree."""

from __future__ import annotations

import io
import os
import pathlib
import subprocess

import pytest

from sampan.core.snapshots.indexed import add_indexed, mount_layer, unmount_layer
from sampan.linux.mount import mount_erofs, umount
from tests.privileged.core.layers import BLK, CHR, DIR, FIFO, LNK, REG, SYM, Seen, entry, seen, tar

pytestmark = pytest.mark.requires("root", "erofs", "kernel:6.12", "erofs-utils-1.8")

ARCHIVE = tar(
    entry(b"./", DIR, mode=0o755, mtime=5),
    entry(b"d/", DIR, mode=0o1777, uid=3, gid=4, mtime=1_600_000_000, pax={b"SCHILY.xattr.trusted.t": b"value"}),
    *(entry(b"d/file-%03d" % n, REG, b"%d" % n * n, mode=0o640, uid=n, mtime=n) for n in range(400)),
    entry(b"d/hard", LNK, target=b"d/file-007"), entry(b"sym", SYM, target=b"d/file-001", mtime=3, mode=0o777),
    entry(b"far", SYM, target=b"x" * 900, mode=0o777), entry(b"big", data=os.urandom(100_000), mode=0o4755),
    entry(b"attributed", data=b"a", pax={b"SCHILY.xattr.user.k": b"v" * 1000, b"mtime": b"17.250000000"}),
    entry(b"null", CHR, device=(1, 3)), entry(b"disk", BLK, device=(8, 300)), entry(b"pipe", FIFO),
    entry(b"caf\xe9", data=b"latin"),
)  # fmt: skip


@pytest.fixture
def layer(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "diff").mkdir()
    add_indexed(io.BytesIO(ARCHIVE), str(tmp_path))
    return tmp_path


def ours(layer: pathlib.Path) -> dict[bytes, Seen]:
    mount_layer(str(layer))
    try:
        return seen(layer / "diff")
    finally:
        unmount_layer(str(layer))


def run(*words: object) -> str:
    """What it prints, names of any bytes in it; an error of its own fails."""
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)
    return done.stdout.decode(errors="replace")


def test_the_checker_finds_nothing_and_extracts_all(layer: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    run("fsck.erofs", f"--device={layer}/layer.tar", f"--extract={out}", layer / "layer.erofs")
    extracted = seen(out)
    for name, file in ours(layer).items():
        assert extracted[name]._replace(xattrs=()) == file._replace(xattrs=()), name


def test_the_dumper_counts_what_is_there(layer: pathlib.Path) -> None:
    said = run("dump.erofs", "-s", layer / "layer.erofs")
    inodes = {file.same for file in ours(layer).values()}
    count = next(line.split(":")[1] for line in said.splitlines() if "inode count" in line)
    assert int(count) == len(inodes) + 1  # And the whiteouts', whether there are any or not.
    assert "blocksize:                         512" in said


def test_the_writer_makes_the_same_tree(layer: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run("mkfs.erofs", "--tar=i", tmp_path / "theirs.erofs", layer / "layer.tar")
    at = tmp_path / "at"
    at.mkdir()
    mount_erofs(str(tmp_path / "theirs.erofs"), str(at), f"{layer}/layer.tar")
    try:
        theirs = seen(at)
    finally:
        umount(str(at))
    mine = ours(layer)
    assert theirs.keys() == mine.keys()
    for name, file in mine.items():
        assert theirs[name] == file, name
