"""A data root without room: one clear line, nothing half-made, and all is well again when there is room."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine, busybox_tar
from tests.e2e.test_leaves_nothing import archive as image_archive
from tests.e2e.test_pull_broken import configuration
from tests.e2e.test_pull_broken import tar_of as layer_tar
from tests.e2e.test_save_load import layer
from tests.unit.core_remotes.served import Registry

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")

_SIZE = 24 << 20


@pytest.fixture
def small() -> Iterator[Engine]:
    """An engine whose data root is a small file system, with the image `box`."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    data = directory / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(data)], check=True)
    running = Engine(directory)
    try:
        running.start()
        try:
            running.docker("import", "-", "box", stdin=busybox_tar(), check=True)
            yield running
            assert running.left_over() == []
        finally:
            (data / "ballast").unlink(missing_ok=True)
            for container in running.client.call("GET", "/containers/json", all=True):
                running.client.call("DELETE", f"/containers/{container['Id']}", force=True, v=True)
            running.stop()
            running.take_down()
    finally:
        subprocess.run(["umount", str(data)], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def fill(engine: Engine) -> pathlib.Path:
    """Take all the room there is."""
    path = pathlib.Path(engine.paths.data_root) / "ballast"
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\1" * 65536)
        except OSError:
            pass
        try:
            while True:
                file.write(b"\1")
        except OSError:
            pass
    return path


def kept(engine: Engine) -> set[str]:
    found: set[str] = set()
    for place in ("content", "overlay2", "containers"):
        for at, directories, files in os.walk(os.path.join(engine.paths.data_root, place)):
            found.update(os.path.join(at, name) for name in (*directories, *files))
    return found


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line and "--help" not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_images_and_containers_without_room(small: Engine) -> None:
    docker = small.docker
    saved = subprocess.run(["docker", "save", "box"], env=small.environment, check=True, capture_output=True).stdout
    before = kept(small)
    ballast = fill(small)
    for words, archive in ((("import", "-", "second"), b""), (("load",), saved)):
        failed = docker(*words, stdin=archive or busybox_tar())
        if words == ("load",) and failed.returncode == 0:
            continue  # All of it is here already.
        assert failed.returncode == 1
        assert "no space left on device" in one_line(failed)
        assert kept(small) == before
    failed = docker("run", "--rm", "--network", "none", "box", "true")
    assert failed.returncode == 125
    assert "no space left on device" in one_line(failed) or "full" in one_line(failed)
    assert kept(small) == before
    assert docker("ps", "-aq", check=True).stdout == ""
    ballast.unlink()
    docker("import", "-", "second", stdin=busybox_tar(), check=True)
    assert docker("run", "--rm", "--network", "none", "second", "echo", "room", check=True).stdout == "room\n"
    assert kept(small) - before  # The second image has come.
    docker("rmi", "second", check=True)
    assert kept(small) == before


def test_what_runs_goes_on_without_room(small: Engine) -> None:
    docker = small.docker
    docker("run", "-d", "--name", "runs", "--network", "none", "box", "sh", "-c",
           "while true; do echo line; sleep 0.02; done", check=True)  # fmt: skip
    ballast = fill(small)
    assert docker("exec", "runs", "echo", "alive").stdout == "alive\n"
    stopped = docker("stop", "-t", "0", "runs")
    ballast.unlink()
    assert stopped.returncode == 0, stopped.stderr
    assert docker("inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", "runs").stdout == "false 137\n"
    docker("start", "runs", check=True)
    docker("rm", "-f", "runs", check=True)


def test_everything_ends_and_goes_without_room(small: Engine) -> None:
    docker = small.docker
    for name in ("killed", "stopped", "forced", "removed"):
        docker("run", "-d", "--name", name, "--network", "bridge" if name == "forced" else "none", "-v", f"{name}:/v",
               "box", "sleep", "600", check=True)  # fmt: skip
    docker("run", "-d", "--rm", "--name", "itself", "--network", "none", "box", "sleep", "600", check=True)
    ballast = fill(small)
    assert docker("exec", "killed", "echo", "alive", check=True).stdout == "alive\n"
    docker("kill", "killed", check=True)
    docker("stop", "-t", "0", "stopped", check=True)
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "killed", "stopped", check=True).stdout == "137\n137\n"
    docker("rename", "killed", "ended", check=True)
    for words in (("rm", "ended"), ("rm", "-f", "forced"), ("stop", "-t", "0", "itself"), ("rm", "-vf", "removed")):
        fill(small)
        docker(*words, check=True)
    fill(small)
    docker("volume", "rm", "killed", check=True)
    assert docker("ps", "-a", "--format", "{{.Names}}", check=True).stdout == "stopped\n"
    fill(small)
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The next engine knows all of it, and finds room to forget more.
        small.stop(number)
        fill(small)
        small.start()
        assert docker("ps", "-a", "--format", "{{.Names}} {{.Status}}", check=True).stdout.startswith("stopped Exited")
    docker("rm", "stopped", check=True)
    small.stop()
    fill(small)
    small.start()
    assert docker("ps", "-aq", check=True).stdout == ""
    ballast.unlink()
    assert docker("run", "--rm", "--network", "none", "box", "echo", "room", check=True).stdout == "room\n"


def resident(pid: int) -> int:
    """The most bytes that a process has had in memory since its references were cleared."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) << 10  # type: ignore[index]


def test_archives_and_commits_that_do_not_fit(small: Engine) -> None:
    """They come to an end in the midst of it, and leave nothing; what fits in the same moment does."""
    docker = small.docker
    parts = {"one": os.urandom(9 << 20), "two": os.urandom(9 << 20)}
    one, two = layer(one=parts["one"]), layer(two=parts["two"])
    large = image_archive("large:1", one, two)
    docker("run", "-d", "--name", "writes", "--network", "none", "box", "sh", "-c",
           "dd if=/dev/zero of=/file bs=1000000 count=6; echo done; sleep 600", check=True)  # fmt: skip
    while "done" not in docker("logs", "writes").stdout:
        time.sleep(0.05)
    before = kept(small)
    for words, stdin in (
        (("load",), large), (("import", "-", "large:2"), layer(x=os.urandom(20 << 20))),
        (("commit", "writes", "c"), b""),
    ):  # fmt: skip
        ballast = fill(small) if words[0] == "commit" else None
        failed = docker(*words, stdin=stdin)
        assert failed.returncode == 1, words
        assert "no space left on device" in one_line(failed)
        assert kept(small) == before
        if ballast is not None:
            ballast.unlink()
    assert docker("images", "-q", "large").stdout == ""
    assert docker("inspect", "-f", "{{.State.Status}}", "writes").stdout == "running\n"
    docker("load", stdin=image_archive("small:1", layer(three=b"3" * 1000)), check=True)
    # To tell where it has gone takes no room, and neither does giving it back.
    fill(small)
    assert "writable" in small.sampan("system", "df", "-v", check=True).stdout
    docker("rmi", "small:1", check=True)
    docker("rm", "-f", "writes", check=True)
    (pathlib.Path(small.paths.data_root) / "ballast").unlink()


def test_large_archives_are_never_in_memory(engine: Engine) -> None:
    size = 300 << 20
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("big")
        entry.size = size
        tar.addfile(entry, io.BytesIO(bytes(size)))
    pathlib.Path(f"/proc/{engine.pid}/clear_refs").write_text("5")
    idle = resident(engine.pid)
    engine.docker("import", "-", "big:1", stdin=buffer.getvalue(), check=True)
    environment = engine.environment
    with subprocess.Popen(["docker", "save", "big:1"], env=environment, stdout=subprocess.PIPE) as saving:
        subprocess.run(["docker", "load"], env=environment, stdin=saving.stdout, stdout=subprocess.DEVNULL, check=True)
    engine.docker("create", "--name", "big", "big:1", "x", check=True)
    subprocess.run(["docker", "export", "big"], env=environment, stdout=subprocess.DEVNULL, check=True)
    assert resident(engine.pid) - idle < 48 << 20
    engine.docker("rm", "big", check=True)
    engine.docker("rmi", "big:1", check=True)


@pytest.mark.parametrize("what", ["blob", "tar"])
async def test_a_pull_that_does_not_fit(small: Engine, what: str) -> None:
    """Its blob, or what it decompresses to: the disk is full in the middle of it, beside a layer that fits."""
    registry = Registry()
    await registry.start()
    try:
        fits = layer_tar("fits", random.Random(1).randbytes(2 << 20))
        huge = layer_tar("huge", random.Random(2).randbytes(_SIZE) if what == "blob" else bytes(2 * _SIZE))
        packed = [gzip.compress(each, 1) for each in (fits, huge)]
        registry.add_image("huge", configuration([fits, huge]), packed)
        registry.add_image("fits", configuration([fits]), packed[:1])
        before = kept(small)
        for _ in range(2):
            failed = await asyncio.to_thread(small.docker, "pull", f"{registry.address}/app:huge")
            assert failed.returncode == 1
            assert "no space left on device" in one_line(failed)
            assert kept(small) == before
        pulled = await asyncio.to_thread(small.docker, "pull", f"{registry.address}/app:fits")
        assert pulled.returncode == 0, pulled.stderr
        small.docker("rmi", f"{registry.address}/app:fits", check=True)
        assert kept(small) == before
    finally:
        await registry.stop()


def test_a_volume_that_is_restored(small: Engine) -> None:
    """Beside its old content there is no room for the new one: it stays what it was."""
    small.docker("volume", "create", "data", check=True)
    old = pathlib.Path(small.paths.volumes, "data/_data/old")
    old.write_text("precious")
    refused = small.sampan("volume", "import", "data", "-", stdin=layer(large=os.urandom(_SIZE)))
    assert refused.returncode == 1 and "no space left on device" in refused.stderr
    assert old.read_text() == "precious"
    assert os.listdir(small.paths.volumes) == ["data"]
    small.sampan("volume", "import", "data", "-", stdin=layer(small=b"new"), check=True)
    assert os.listdir(old.parent) == ["small"]
    small.docker("volume", "rm", "data", check=True)
