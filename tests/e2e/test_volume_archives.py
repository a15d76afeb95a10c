"""`volume export` and `import`: everything comes back, and an import is whole or has not been."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import signal
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")

_HOLES = 64 << 20


@pytest.fixture(autouse=True)
def _no_volumes(engine: Engine) -> Iterator[None]:
    yield
    engine.remove_containers()
    for each in engine.client.call("GET", "/volumes")["Volumes"]:
        engine.client.call("DELETE", f"/volumes/{each['Name']}")
    assert os.listdir(engine.paths.volumes) == []


def _data(engine: Engine, name: str) -> pathlib.Path:
    return pathlib.Path(engine.paths.volumes, name, "_data")


def _fill(data: pathlib.Path) -> None:
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/er/file").write_bytes(os.urandom(100_000))
    os.link(data / "deep/er/file", data / "again")
    (data / "link").symlink_to("/etc/shadow")
    (data / ".wh.deep").write_text("no whiteout, but a file")
    (data / "empty").touch()
    os.mkfifo(data / "fifo", 0o640)
    os.mknod(data / "device", 0o20660, os.makedev(1, 3))
    os.mknod(data / "zero", 0o20000, 0)
    for name, pieces in (("holes", ((5 << 20, b"in the middle"),)), ("hole", ()), ("end", ((_HOLES - 3, b"end"),))):
        with open(data / name, "wb") as file:
            for at, content in pieces:
                file.seek(at)
                file.write(content)
            file.truncate(_HOLES)
    os.setxattr(data / "deep", "trusted.overlay.opaque", b"y")
    os.setxattr(data / "again", "user.mark", b"\xff\0")
    os.setxattr(data / "empty", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.chown(data / "again", 70, 71)
    os.chmod(data / "again", 0o6755)
    os.chown(data / "link", 5, 6, follow_symlinks=False)
    (data / ("long" * 60)).touch()
    (data / os.fsdecode(b"\xff\xfe")).touch()
    for path, _, names in os.walk(data, topdown=False):
        for name in (*names, "."):
            os.utime(f"{path}/{name}", ns=(1_000_000_007, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.chown(data, 999, 998)
    os.chmod(data, 0o1770)


def _seen(top: pathlib.Path) -> dict[str, Any]:
    """All of a tree that an archive is to keep."""
    found: dict[str, Any] = {}
    inodes: dict[int, str] = {}
    for path, directories, names in os.walk(top):
        for name in (*directories, *names, *((".",) if path == str(top) else ())):
            place = f"{path}/{name}"
            status = os.lstat(place)
            shown = os.path.relpath(place, top)
            attributes = {each: os.getxattr(place, each, follow_symlinks=False)
                          for each in os.listxattr(place, follow_symlinks=False)}  # fmt: skip
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = pathlib.Path(place).read_bytes(), status.st_blocks * 512 < status.st_size
                first = min(inodes.setdefault(status.st_ino, shown), shown)
                content = (content, first if status.st_nlink > 1 else shown, status.st_nlink)
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(place)
            found[shown] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, attributes, content,
            )  # fmt: skip
    return found


def test_everything_comes_back(engine: Engine, tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        engine.docker("volume", "create", name, check=True)
    _fill(_data(engine, "one"))
    before = _seen(_data(engine, "one"))
    archive = tmp_path / "one.tar"
    engine.sampan("volume", "export", "-o", str(archive), "one", check=True)
    assert archive.stat().st_size < 2 << 20  # The holes are not in it.
    (_data(engine, "two") / "old").touch()
    subprocess.run(["gzip", "-k", str(archive)], check=True)
    for path in (archive, f"{archive}.gz"):
        assert engine.sampan("volume", "import", "two", str(path), check=True).stdout == "two\n"
        assert _seen(_data(engine, "two")) == before
    # Other programs read it too.
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    words = ["tar", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", str(archive), "-C", str(unpacked)]
    subprocess.run(words, check=True)
    after = _seen(unpacked)
    assert after.keys() == before.keys()
    assert {name: each[:4] + each[5:] for name, each in after.items()} == {
        name: each[:4] + each[5:] for name, each in before.items()
    }
    with tarfile.open(archive) as opened:
        middle = opened.extractfile("./holes")
        assert middle is not None
        middle.seek(5 << 20)
        assert middle.read(13) == b"in the middle"


def test_what_comes_from_a_pipe(engine: Engine) -> None:
    for name in ("one", "two"):
        engine.docker("volume", "create", name, check=True)
    (_data(engine, "one") / "file").write_text("piped")
    archive = subprocess.run(
        ["sampan", "volume", "export", "one"], env=engine.environment, capture_output=True, check=True
    ).stdout
    engine.sampan("volume", "import", "two", "-", stdin=archive, check=True)
    assert (_data(engine, "two") / "file").read_text() == "piped"


def test_a_volume_that_is_used_is_left_alone(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.docker("run", "-d", "--name", "user", "-v", "one:/v", "box", "sleep", "600", check=True)
    (_data(engine, "one") / "file").write_text("precious")
    archive = tmp_path / "one.tar"
    engine.sampan("volume", "export", "-o", str(archive), "one", check=True)  # It may be read.
    refused = engine.sampan("volume", "import", "one", str(archive))
    assert refused.returncode == 1 and "import one: volume is in use" in refused.stderr
    engine.docker("stop", "-t", "0", "user", check=True)
    (_data(engine, "one") / "file").write_text("changed")
    engine.sampan("volume", "import", "one", str(archive), check=True)
    engine.docker("start", "user", check=True)
    assert engine.docker("exec", "user", "cat", "/v/file").stdout == "precious"
    refused = engine.sampan("volume", "import", "none", str(archive))
    assert refused.returncode == 1 and "no such volume" in refused.stderr
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "scratch", check=True)
    refused = engine.sampan("volume", "import", "scratch", str(archive))
    assert refused.returncode == 1 and "what is mounted by its options can't be replaced" in refused.stderr


@pytest.mark.parametrize("cut", ["middle", "between"])
def test_an_archive_that_was_cut(engine: Engine, tmp_path: pathlib.Path, cut: str) -> None:
    engine.docker("volume", "create", "one", check=True)
    data = _data(engine, "one")
    for name in "abc":
        (data / name).write_text(name * 600)
    archive = tmp_path / "one.tar"
    engine.sampan("volume", "export", "-o", str(archive), "one", check=True)
    with tarfile.open(archive) as opened:
        last = opened.getmembers()[-1]
    os.truncate(archive, last.offset_data + 600 if cut == "middle" else last.offset_data + 1024)
    before = _seen(data)
    refused = engine.sampan("volume", "import", "one", str(archive))
    assert refused.returncode == 1 and refused.stderr.startswith("sampan: ")
    assert _seen(data) == before
    assert os.listdir(engine.paths.volumes) == ["one"]


@contextlib.contextmanager
def _importing(engine: Engine, archive: bytes) -> Iterator[http.client.HTTPConnection]:
    """An import that has begun, and does not come to its end."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(engine.paths.socket)
    connection.putrequest("POST", "/volumes/one/import")
    connection.putheader("Content-Length", str(len(archive)))
    connection.endheaders()
    connection.send(archive[: len(archive) * 9 // 10])
    coming = pathlib.Path(engine.paths.volumes, ".import-one")
    deadline = time.monotonic() + 20
    while not (coming.is_dir() and os.listdir(coming)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.listdir(coming)
    try:
        yield connection
    finally:
        connection.close()


def _until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


@pytest.fixture
def archive(engine: Engine, tmp_path: pathlib.Path) -> bytes:
    """Of the volume `one`, which has been changed since."""
    engine.docker("volume", "create", "one", check=True)
    for number in range(20):
        (_data(engine, "one") / f"file{number}").write_bytes(os.urandom(300_000))
    path = tmp_path / "one.tar"
    engine.sampan("volume", "export", "-o", str(path), "one", check=True)
    (_data(engine, "one") / "file0").write_text("changed")
    return path.read_bytes()


def test_nobody_uses_a_volume_while_it_is_restored(engine: Engine, archive: bytes) -> None:
    engine.docker("create", "--name", "user", "-v", "one:/v", "box", "true", check=True)
    before = _seen(_data(engine, "one"))
    with _importing(engine, archive) as connection:
        refused = engine.docker("start", "user")
        assert refused.returncode == 1 and "volume one is being restored from an archive" in refused.stderr
        engine.docker("rm", "user", check=True)
        refused = engine.docker("volume", "rm", "-f", "one")
        assert refused.returncode == 1 and "volume is in use" in refused.stderr
        assert _seen(_data(engine, "one")) == before
        connection.send(archive[len(archive) * 9 // 10 :])
        assert connection.getresponse().status == 204
    assert (_data(engine, "one") / "file0").stat().st_size == 300_000
    assert engine.docker("run", "--rm", "-v", "one:/v", "box", "ls", "/v").stdout.count("file") == 20


def test_a_client_that_leaves(engine: Engine, archive: bytes) -> None:
    before = _seen(_data(engine, "one"))
    with _importing(engine, archive):
        pass
    _until(lambda: os.listdir(engine.paths.volumes) == ["one"])
    assert _seen(_data(engine, "one")) == before


def test_an_engine_that_is_killed(engine: Engine, archive: bytes) -> None:
    before = _seen(_data(engine, "one"))
    with _importing(engine, archive):
        engine.stop(signal.SIGKILL)
    assert sorted(os.listdir(engine.paths.volumes)) == [".import-one", "one"]
    engine.start()
    assert os.listdir(engine.paths.volumes) == ["one"]
    assert _seen(_data(engine, "one")) == before
