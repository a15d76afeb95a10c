"""`docker cp` and ours: into containers and out of them, running and not, and what a hostile container gets of it."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import tarfile
import threading
import time

import docker
import pytest
import requests

from sampan.errors import Forbidden, InvalidArgument, NotFound
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")

Command = str


def cp(engine: Engine, command: Command, *words: str, stdin: bytes = b"", check: bool = True) -> tuple[int, str, str]:
    done = (engine.docker if command == "docker" else engine.sampan)("cp", *words, stdin=stdin, check=check)
    return done.returncode, done.stdout, done.stderr


def sh(engine: Engine, script: str, name: str = "box1") -> str:
    return engine.docker("exec", name, "sh", "-c", script, check=True).stdout


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "source"
    (made / "sub").mkdir(parents=True)
    (made / "file").write_bytes(b"content\n")
    (made / "sub/program").write_bytes(b"x" * 100_000)
    (made / "sub/program").chmod(0o4755)
    (made / "link").symlink_to("file")
    os.link(made / "file", made / "sub/hard")
    os.utime(made / "file", (1_000_000_000, 1_000_000_000))
    return made


@pytest.mark.parametrize("command", ["docker", "sampan"])
@pytest.mark.parametrize("running", [True, False])
def test_there_and_back(
    engine: Engine, source: pathlib.Path, tmp_path: pathlib.Path, command: str, running: bool
) -> None:
    words = ("run", "-d") if running else ("create",)
    engine.docker(*words, "--name", "box1", "-v", "data:/data", "box", "sleep", "600", check=True)
    for target in ("/tmp", "/data"):
        cp(engine, command, str(source), f"box1:{target}")  # Into it.
        cp(engine, command, f"{source}/.", f"box1:{target}/new")  # As it.
        cp(engine, command, f"{source}/file", f"box1:{target}/renamed")
        back = tmp_path / f"back{target.replace('/', '-')}"
        back.mkdir()
        for path, name in (
            (f"{target}/source", "source"),
            (f"{target}/new/.", "new"),
            (f"{target}/renamed", "renamed"),
        ):
            where = back if name != "new" else back / "new"
            cp(engine, command, f"box1:{path}", str(where))
        for tree in (back / "source", back / "new"):
            assert (tree / "file").read_bytes() == b"content\n"
            assert (tree / "file").stat().st_mtime == 1_000_000_000
            assert (tree / "sub/program").stat().st_size == 100_000
            assert os.readlink(tree / "link") == "file"
            assert (tree / "sub/hard").stat().st_ino == (tree / "file").stat().st_ino
        assert (back / "renamed").read_bytes() == b"content\n"
    if not running:
        engine.docker("start", "box1", check=True)
    assert sh(engine, "stat -c '%a %u' /tmp/source/sub/program; cat /data/new/file") == "4755 0\ncontent\n"


@pytest.mark.parametrize("command", ["docker", "sampan"])
def test_streams_links_and_owners(engine: Engine, tmp_path: pathlib.Path, command: str) -> None:
    engine.docker("run", "-d", "--name", "box1", "-u", "1234:5678", "box", "sleep", "600", check=True)
    sh(engine, "mkdir /tmp/d; echo far >/tmp/d/far; ln -s /tmp/d /tmp/to; ln -s d/far /tmp/near")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        entry = tarfile.TarInfo("a/b")
        entry.size, entry.uid = 3, 77
        tar.addfile(entry, io.BytesIO(b"abc"))
    cp(engine, command, "-", "box1:/tmp/to", stdin=archive.getvalue())
    assert sh(engine, "cat /tmp/d/a/b; stat -c ' %u' /tmp/d/a/b") == "abc 77\n"
    cp(engine, command, "-a", "-", "box1:/tmp/to", stdin=archive.getvalue())
    assert sh(engine, "stat -c '%u:%g' /tmp/d/a/b") == "1234:5678\n"
    words = ["docker"] if command == "docker" else []
    done = engine.docker("cp", "box1:/tmp/near", "-") if words else engine.sampan("cp", "box1:/tmp/near", "-")
    with tarfile.open(fileobj=io.BytesIO(done.stdout.encode())) as tar:
        assert [(each.name, each.linkname) for each in tar] == [("near", "d/far")]
    cp(engine, command, "-L", "box1:/tmp/near", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "far\n"
    cp(engine, command, "box1:/tmp/near", str(tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == "d/far"


def test_the_archive_of_docker_py(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "box1", "--tmpfs", "/run", "box", "sleep", "600", check=True)
    container = docker.DockerClient(base_url=engine.host).containers.get("box1")
    sh(engine, "mkdir -p /run/d; echo one >/run/d/f; chmod 2750 /run/d; ln -s ../run/d /tmp/l; mknod /tmp/p p")
    stream, stat = container.get_archive("/run/d")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.getnames() == ["d", "d/f"]
    assert (stat["name"], stat["mode"], stat["linkTarget"]) == ("d", 1 << 31 | 1 << 22 | 0o750, "")
    stat = container.get_archive("/tmp/l")[1]
    assert (stat["mode"], stat["linkTarget"]) == (1 << 27 | 0o777, "/run/d")
    assert container.get_archive("/tmp/p")[1]["mode"] == 1 << 25 | 0o644
    stream, stat = container.get_archive("/tmp/l/.")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.getnames() == [".", "./f"]
    stream, stat = container.get_archive("/")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream)), errorlevel=0) as tar:
        assert {"bin/sh", "run/d/f"} <= {name.removeprefix("/") for name in tar.getnames()}


def test_what_is_refused(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.docker(
        "run", "-d", "--name", "box1", "--read-only", "-v", f"{tmp_path}:/host:ro", "-v", "data:/data", "box", "sleep",
        "600", check=True,
    )  # fmt: skip
    (tmp_path / "file").write_text("x")
    for path, message in (
        ("/tmp", "container rootfs is marked read-only"),
        ("/host", "mounted volume is marked read-only"),
    ):
        with pytest.raises(Forbidden, match=message):
            engine.client.call("PUT", f"/containers/box1/archive?path={path}", body=b"\0" * 1024)
    cp(engine, "docker", str(tmp_path / "file"), "box1:/data")
    assert sh(engine, "cat /data/file") == "x"
    with pytest.raises(NotFound, match="Could not find the file /none in container box1"):
        engine.client.call("GET", "/containers/box1/archive?path=/none")
    with pytest.raises(NotFound, match="Could not find the file /data/none in container box1"):
        engine.client.call("PUT", "/containers/box1/archive?path=/data/none", body=b"\0" * 1024)
    for path in ("/data/file/below", "/etc/passwd/x/y"):
        with pytest.raises(NotFound, match=f"Could not find the file {path} in container box1"):
            engine.client.call("GET", f"/containers/box1/archive?path={path}")
        with pytest.raises((NotFound, Forbidden)):
            engine.client.call("PUT", f"/containers/box1/archive?path={path}", body=b"\0" * 1024)
    with pytest.raises(InvalidArgument, match="extraction point is not a directory"):
        engine.client.call("PUT", "/containers/box1/archive?path=/data/file", body=b"\0" * 1024)
    sh(engine, "mkdir /data/d; touch /data/d/keep")
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
        tar.addfile(tarfile.TarInfo("d"))
    target = "/containers/box1/archive?path=/data"
    with pytest.raises(InvalidArgument, match='cannot overwrite directory "/data/d" with non-directory "d"'):
        engine.client.call("PUT", f"{target}&noOverwriteDirNonDir=1", body=archive.getvalue())
    engine.client.call("PUT", target, body=archive.getvalue())
    assert sh(engine, "stat -c %s /data/d") == "0\n"
    for name in ("../out", "a/../../out", "nul\0l"):
        with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as tar:
            entry = tarfile.TarInfo("x")
            entry.pax_headers = {"path": name}
            tar.addfile(entry)
        with pytest.raises(InvalidArgument, match="leads out of the directory"):
            engine.client.call("PUT", target, body=archive.getvalue())
    done = engine.sampan("cp", "box1:/none", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (1, "sampan: Could not find the file /none in container box1\n")
    assert engine.sampan("cp", "nosuch:/x", ".").stderr == "sampan: No such container: nosuch\n"
    engine.docker("rm", "-f", "box1", check=True)
    assert engine.left_over() == []


def test_links_lead_nowhere_else(engine: Engine, tmp_path: pathlib.Path) -> None:
    """CVE-2018-15664 and its kin: absolute links, and links out of volumes, lead nowhere on the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for state in ("running", "stopped"):
        engine.docker("run", "-d", "--name", "box1", "-v", "data:/data", "box", "sleep", "600", check=True)
        links = (
            f"ln -s {outside} /tmp/out; mkdir -p {outside}; ln -s {outside} /data/out; ln -s /proc/self/root /tmp/root"
        )
        sh(engine, f"{links}; ln -s {'../' * 30}{outside} /tmp/up; ln -s {'../' * 30}{outside} /data/up")
        if state == "stopped":
            engine.docker("stop", "-t", "0", "box1", check=True)
        (tmp_path / "file").write_text("mine")
        for path in ("/tmp/out/", "/tmp/up/", "/data/out/", "/data/up/", "/tmp/root/tmp/", "/data/../tmp/out/"):
            cp(engine, "docker", str(tmp_path / "file"), f"box1:{path}", check=False)
            assert os.listdir(outside) == [], (state, path)
        engine.docker("rm", "-f", "-v", "box1", check=True)
        engine.docker("volume", "rm", "data", check=True)


def test_a_container_that_moves_things_about(engine: Engine, tmp_path: pathlib.Path) -> None:
    """A directory that is exchanged with a link all the time: what is copied is the container's, or it fails."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    turn = f"mv /tmp/a /tmp/b; ln -s {outside} /tmp/a; rm /tmp/a; mv /tmp/b /tmp/a"
    script = f"mkdir -p /tmp/a {outside}; while true; do {turn}; done"
    engine.docker("run", "-d", "--name", "box1", "box", "sh", "-c", script, check=True)
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
        for number in range(50):
            tar.addfile(tarfile.TarInfo(f"a/file{number}"))
    stop = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        with contextlib.closing(docker.DockerClient(base_url=engine.host)) as client:
            while not stop.is_set():
                try:
                    seen.append(b"".join(client.containers.get("box1").get_archive("/tmp/a/.")[0]))
                except (docker.errors.APIError, requests.exceptions.RequestException):
                    continue

    reader = threading.Thread(target=read)
    reader.start()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            engine.client.call("PUT", "/containers/box1/archive?path=/tmp", body=archive.getvalue())
        except (InvalidArgument, NotFound):
            continue
    stop.set()
    reader.join()
    assert sorted(os.listdir(outside)) == ["secret"]
    assert seen
    assert not any(b"secret" in each for each in seen)


def test_a_hostile_archive_comes_out(tmp_path: pathlib.Path) -> None:
    """What our command makes of an archive that a container has made up (moby#52948)."""
    from sampan.cli.cp import unpack

    outside = tmp_path / "outside"
    outside.mkdir()

    def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
        made = tarfile.TarInfo(name)
        made.type, made.linkname = kind, target
        return made

    for entries in (
        [entry("d/up", tarfile.SYMTYPE, str(outside)), entry("d/up/file")],
        [entry("d/up", tarfile.SYMTYPE, "../outside"), entry("d/up", tarfile.DIRTYPE), entry("d/up/file")],
        [entry("d/../../outside/file")],
        [entry("d/up", tarfile.SYMTYPE, str(outside)), entry("d/hard", tarfile.LNKTYPE, "d/up/none")],
    ):
        into = tmp_path / "into"
        into.mkdir(exist_ok=True)
        with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as tar:
            for each in entries:
                tar.addfile(each)
        file.seek(0)
        with tarfile.open(fileobj=file) as tar, pytest.raises(InvalidArgument):
            unpack(tar, str(into), "d")
        assert os.listdir(outside) == []
    assert not list(tmp_path.glob("into/d/hard"))


def test_a_deep_directory_is_replaced(engine: Engine) -> None:
    """Deeper than Python recurses, which removes it; and than a path can say."""
    engine.docker("run", "-d", "--name", "box1", "--network", "none", "box", "sleep", "600", check=True)
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as tar:
        for depth in range(1, 1500):
            entry = tarfile.TarInfo("deep" + "/d" * depth)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    target = "/containers/box1/archive?path=/tmp"
    engine.client.call("PUT", target, body=archive.getvalue())
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
        tar.addfile(tarfile.TarInfo("deep"))
    engine.client.call("PUT", target, body=archive.getvalue())
    assert sh(engine, "stat -c %F /tmp/deep") == "regular empty file\n"


def test_between_containers(engine: Engine, tmp_path: pathlib.Path) -> None:
    run = engine.sampan
    make = "mkdir -p /from/deep /to; echo one >/from/file; ln /from/file /from/hard; ln -s file /from/soft; sleep 600"
    engine.docker("run", "-d", "--name", "one", "--network", "none", "box", "sh", "-c", make, check=True)
    engine.docker("create", "--name", "two", "--network", "none", "box", "true", check=True)
    deadline = time.monotonic() + 20
    while engine.docker("exec", "one", "readlink", "/from/soft").stdout != "file\n":
        assert time.monotonic() < deadline
    run("cp", "one:/from", "two:/tmp", check=True)
    run("cp", "one:/from", "two:/tmp/new", check=True)
    run("cp", "one:/from/.", "two:/tmp/new/deep", check=True)
    run("cp", "one:/from/file", "one:/to/other", check=True)
    run("cp", "-L", "one:/from/soft", "two:/tmp", check=True)
    run("cp", "two:/tmp", str(tmp_path), check=True)
    for where in ("from", "new", "new/deep"):
        place = tmp_path / "tmp" / where
        assert (place / "file").read_text() == "one\n"
        assert os.path.samefile(place / "file", place / "hard") and os.readlink(place / "soft") == "file"
        assert (place / "deep").is_dir()
    assert (tmp_path / "tmp/soft").read_text() == "one\n"
    assert engine.docker("exec", "one", "cat", "/to/other").stdout == "one\n"
    for words, message in (
        (("one:/nosuch", "two:/tmp"), "Could not find the file /nosuch in container one"),
        (("one:/from", "two:/bin/busybox"), "cannot copy directory"),
        (("one:/from/file", "two:/nosuch/"), 'destination directory "/nosuch/" does not exist'),
        (("one:/from", "nosuch:/tmp"), "No such container: nosuch"),
    ):
        done = run("cp", *words)
        assert done.returncode == 1 and message in done.stderr


def test_volumes_below_a_directory_of_a_stopped_container(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "single").write_text("single\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").write_text("inner\n")
    engine.docker(
        "run", "--name", "holds", "--network", "none", "-v", "vol:/tmp/vol", "-v", f"{tmp_path}/inner:/tmp/vol/inner",
        "-v", f"{tmp_path}/single:/tmp/single", "box", "sh", "-c",
        "echo v >/tmp/vol/file; chmod 751 /tmp/vol; echo own >/tmp/own", check=True,
    )  # fmt: skip
    engine.docker("create", "--name", "fresh", "--network", "none", "-v", "vol:/tmp/vol", "box", "true", check=True)
    for name, source in (("holds", "/tmp"), ("holds", "/tmp/."), ("holds", "/tmp/vol"), ("fresh", "/tmp")):
        into = tmp_path / f"out{name}{source.replace('/', '_')}"
        engine.docker("cp", f"{name}:{source}", str(into), check=True)
        vol = into if source == "/tmp/vol" else into / "vol"
        assert (vol / "file").read_text() == "v\n"
        assert vol.stat().st_mode & 0o777 == 0o751
        if name == "holds":
            assert (vol / "inner/file").read_text() == "inner\n"
        if vol != into and name == "holds":
            assert ((into / "own").read_text(), (into / "single").read_text()) == ("own\n", "single\n")
    engine.docker("rm", "holds", "fresh", check=True)
    engine.docker("volume", "rm", "vol", check=True)
    assert engine.left_over() == []
