"""diff, commit and export: what a container did to its files, beside what dockerd says of the same."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest

from tests.e2e.archives import Dockerd, dockerd, parts
from tests.e2e.conftest import Engine, busybox_tar

__all__ = ["dockerd"]
pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")

SCRIPT = """
echo x >/etc/new; rm -r /data; mkdir /data; touch /data/other; rm /etc/group; mkdir -p /tmp/a/b; echo 1 >/tmp/a/b/c
chmod 600 /etc/passwd; ln -s x /bin/link; mknod /pipe p; mknod /device c 5 6; ln /tmp/a/b/c /tmp/hard; touch /bin/again
rm -r /deep/one; mkdir /deep/one; echo z >/deep/one/kept; rm /deep/gone; touch /deep/gone; rm -r /plain; echo >/plain
mkdir -p /new/tree; touch /new/tree/x; rm -r /new/tree; rm /again
"""


def image() -> bytes:
    """With something to remove."""
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name in ("again", "deep/one/sub/file", "deep/one/kept", "deep/gone", "plain/file"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"1"))
        entry = tarfile.TarInfo("deep/one/odd \udcff name")
        entry.pax_headers = {"SCHILY.xattr.user.one": "value", "SCHILY.xattr.security.capability": _CAPABILITY}
        entry.mtime = 1_000_000_000.5
        archive.addfile(entry)
        hard = tarfile.TarInfo("deep/hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, "plain/file"
        archive.addfile(hard)
        device = tarfile.TarInfo("deep/null")
        device.type, device.devmajor, device.devminor, device.mode = tarfile.CHRTYPE, 1, 3, 0o666
        archive.addfile(device)
    return buffer.getvalue()


_CAPABILITY = (b"\x01\x00\x00\x02" + b"\x00\x04\x00\x00" + bytes(12)).decode("utf-8", "surrogateescape")


def lines(output: bytes) -> list[str]:
    return sorted(output.decode().split("\n"))


def entries(archive: bytes) -> dict[str, tuple[object, ...]]:
    """What an archive says of each name, the runtime's mount points aside."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        for each in tar:
            name = each.name.rstrip("/")
            if re.match(r"(dev|proc|sys|run|etc/(hosts|hostname|resolv.conf|mtab)|\.dockerenv)(/|$)", name):
                continue
            # Of hard links either may be the one that has the content.
            content = tar.extractfile(each).read() if each.isfile() or each.islnk() else b""  # type: ignore[union-attr]
            found[name] = (
                b"0" if each.islnk() else each.type, each.mode & 0o7777, each.uid, each.gid, content,
                "" if each.islnk() else each.linkname,
                each.pax_headers.get("SCHILY.xattr.security.capability"), each.devmajor, each.devminor,
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def stage(engine: Engine) -> Iterator[None]:
    engine.docker("import", "-", "full:1", stdin=image(), check=True)
    yield
    engine.remove_containers()
    engine.docker("rmi", "full:1", check=True)


def played(engine: Engine, name: str, *words: str) -> None:
    engine.docker("run", "--name", name, "--network", "none", *words, "full:1", "sh", "-c", SCRIPT, check=True)


def export(engine: Engine, name: str) -> bytes:
    return subprocess.run(["docker", "export", name], env=engine.environment, check=True, capture_output=True).stdout


@pytest.mark.requires("program:dockerd")
def test_as_dockerd_has_it(engine: Engine, stage: None, dockerd: Dockerd) -> None:
    dockerd.must("import", "-", "full:1", stdin=image())
    dockerd.must("run", "--name", "it", "--network", "none", "full:1", "sh", "-c", SCRIPT)
    played(engine, "it")
    assert lines(engine.docker("diff", "it", check=True).stdout.encode()) == lines(dockerd.must("diff", "it"))
    ours, theirs = entries(export(engine, "it")), entries(dockerd.must("export", "it"))
    assert ours == theirs
    assert ours["deep/one/kept"][4] == b"z\n"
    # The image of it is the same tree, whoever made it.
    for words in (("commit", "-a", "me", "-m", "text", "-c", "CMD sleep 9", "-c", "ENV A=1 B=2", "it", "made:1"),):
        engine.docker(*words, check=True)
        dockerd.must(*words)
    own = json.loads(engine.docker("image", "inspect", "made:1", check=True).stdout)[0]
    other = dockerd.inspect("made:1")
    for member in ("Comment", "Author", "Architecture", "Os", "Config", "RepoTags"):
        assert own[member] == other[member] or (member == "Config" and not other[member].get("Labels")), member
    assert (own["Config"]["Cmd"], own["Config"]["Env"][:2]) == (["/bin/sh", "-c", "sleep 9"], ["A=1", "B=2"])
    assert len(own["RootFS"]["Layers"]) == 2
    engine.docker("create", "--name", "again", "made:1", check=True)
    again = entries(export(engine, "again"))
    assert again == ours
    engine.docker("rm", "it", "again", check=True)
    engine.docker("rmi", "made:1", check=True)


def test_exact_to_the_last_attribute(engine: Engine, stage: None) -> None:
    engine.docker("create", "--name", "whole", "full:1", "true", check=True)
    with tarfile.open(fileobj=io.BytesIO(export(engine, "whole")), errors="surrogateescape") as tar:
        members = {each.name: each for each in tar}
        odd = members["deep/one/odd \udcff name"]
        assert odd.pax_headers["SCHILY.xattr.user.one"] == "value"
        assert odd.pax_headers["SCHILY.xattr.security.capability"] == _CAPABILITY
        assert odd.pax_headers["mtime"] == "1000000000.5"
        assert members["plain/file"].linkname == "deep/hard"
        assert (members["deep/null"].devmajor, members["deep/null"].devminor) == (1, 3)
    # Nothing is left mounted of a container that does not run.
    merged = json.loads(engine.docker("inspect", "whole").stdout)[0]["GraphDriver"]["Data"]["MergedDir"]
    assert not os.path.ismount(merged)
    assert engine.docker("diff", "whole", check=True).stdout == ""
    engine.docker("rm", "whole", check=True)


def test_what_is_mounted_is_no_change(engine: Engine, stage: None) -> None:
    engine.docker("run", "--name", "plain", "-v", "vol:/data", "full:1", "sh", "-c", "echo >/data/x", check=True)
    assert engine.docker("diff", "plain", check=True).stdout == ""
    engine.docker("commit", "plain", "made:2", check=True)
    layers = json.loads(engine.docker("image", "inspect", "made:2").stdout)[0]["RootFS"]["Layers"]
    assert len(layers) == 1
    history = engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "made:2").stdout
    assert history.splitlines()[0] == "sh -c echo >/data/x 0B"
    engine.docker("rm", "plain", check=True)
    # The base has a child now.
    refused = engine.docker("rmi", json.loads(engine.docker("image", "inspect", "full:1").stdout)[0]["Id"])
    assert "image has dependent child images" in refused.stderr
    engine.docker("rmi", "made:2", check=True)
    engine.docker("volume", "rm", "vol", check=True)


def test_commit_of_a_running_container(engine: Engine, stage: None) -> None:
    script = "".join(f"echo $i >/tmp/x; busybox mv /tmp/x /tmp/{name}; " for name in ("one", "two"))
    script = f"i=0; while true; do i=$((i+1)); {script} done"
    engine.docker("run", "-d", "--name", "busy", "--network", "none", "full:1", "sh", "-c", script, check=True)
    time.sleep(1)
    done = engine.docker("commit", "-c", 'ENTRYPOINT ["cat"]', "busy", "made:3", check=True)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "busy").stdout == "running\n"
    numbers = engine.docker("run", "--rm", "--network", "none", "made:3", "/tmp/one", "/tmp/two", check=True).stdout
    one, two = map(int, numbers.split())
    assert one - two in (0, 1)
    config = json.loads(engine.docker("image", "inspect", "made:3").stdout)[0]["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["cat"], None)
    assert parts(subprocess.run(["docker", "save", "made:3"], env=engine.environment, capture_output=True).stdout)
    engine.docker("pause", "busy", check=True)
    engine.docker("commit", "busy", "made:3", check=True)
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "busy").stdout == "paused\n"
    engine.docker("commit", "--pause=false", "busy", check=True)
    engine.docker("rm", "-f", "busy", check=True)
    engine.docker("rmi", "-f", "made:3", check=True)
    engine.docker("image", "prune", "-f", check=True)


def test_an_engine_that_is_killed_leaves_nobody_paused(engine: Engine, stage: None) -> None:
    script = "dd if=/dev/zero of=/tmp/big bs=1M count=200; touch /tmp/done; sleep 600"
    engine.docker("run", "-d", "--name", "large", "--network", "none", "full:1", "sh", "-c", script, check=True)
    while engine.docker("exec", "large", "cat", "/tmp/done").returncode:
        time.sleep(0.1)
    with subprocess.Popen(
        ["docker", "commit", "large", "made:4"], env=engine.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):  # fmt: skip
        deadline = time.monotonic() + 10
        while engine.client.call("GET", "/containers/large/json")["State"]["Status"] != "paused":
            assert time.monotonic() < deadline
        engine.stop(signal.SIGKILL)
    engine.start()
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "large").stdout == "running\n"
    assert engine.docker("images", "-q", "made").stdout == ""
    assert os.listdir(f"{engine.paths.content}/ingest") == []
    engine.docker("rm", "-f", "large", check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("commit", "nosuch"), "No such container: nosuch"),
        (("commit", "bad", "A"), "must be lowercase"),
        (("commit", "-c", "RUN x", "bad"), "RUN is not a valid change command"),
        (("commit", "-c", "EXPOSE x", "bad"), "invalid containerPort: x"),
        (("export", "nosuch"), "No such container: nosuch"),
        (("diff", "nosuch"), "No such container: nosuch"),
    ],
)
def test_what_is_refused(engine: Engine, stage: None, words: tuple[str, ...], message: str) -> None:
    engine.docker("create", "--name", "bad", "full:1", "true", check=True)
    before = engine.docker("images", "-aq").stdout
    failed = engine.docker(*words)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert engine.docker("images", "-aq").stdout == before


def test_links_in_the_place_of_directories_lead_nowhere(engine: Engine, stage: None) -> None:
    """A container that exchanges a directory for a link to the host's files, all the time."""
    secret = "/root" if os.path.isdir("/root") else "/etc"
    script = (
        f"mkdir /tmp/real /tmp/real/d; touch /tmp/real/d/f; "
        f"while true; do mv /tmp/real /tmp/r2; ln -s {secret} /tmp/real; rm /tmp/real; mv /tmp/r2 /tmp/real; done"
    ).replace("mv", "busybox mv").replace("ln ", "busybox ln ")  # fmt: skip
    engine.docker("run", "-d", "--name", "evil", "--network", "none", "full:1", "sh", "-c", script, check=True)
    for _ in range(10):
        for line in engine.docker("diff", "evil", check=True).stdout.splitlines():
            assert re.match(r"[ACD] /(tmp(/(real|r2)(/d(/f)?)?)?|dev.*)$", line), line
        names = entries(export(engine, "evil"))
        found = [name for name in names if name.startswith("tmp/")]
        assert [name for name in found if not re.match("tmp/(real|r2)(/d(/f)?)?$", name)] == []
    engine.docker("rm", "-f", "evil", check=True)
