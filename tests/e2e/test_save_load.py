"""What we save, the others load; what they save, we load: byte-identical configurations and layers."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pathlib
import subprocess
import tarfile
import threading
import time

import pytest

from tests.e2e.archives import Dockerd, dockerd, members, parts
from tests.e2e.conftest import Engine, busybox_tar

__all__ = ["dockerd"]
pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def run(*words: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(words, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def layer(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def save(engine: Engine, *names: str) -> bytes:
    return subprocess.run(["docker", "save", *names], env=engine.environment, check=True, capture_output=True).stdout


@pytest.fixture
def images(engine: Engine) -> None:
    """`one:1`, which is also `one:2`, compressed; and `two:1`, not."""
    engine.docker("import", "-", "one:1", stdin=gzip.compress(layer(a=b"a" * 70_000, b=b"")), check=True)
    engine.docker("tag", "one:1", "one:2", check=True)
    engine.docker("import", "-c", "CMD /x", "-", "two:1", stdin=layer(c=b"c"), check=True)


def remove(engine: Engine, *names: str) -> None:
    engine.docker("rmi", "-f", *names)


def blobs(engine: Engine) -> set[str]:
    return set(os.listdir(f"{engine.paths.content}/blobs/sha256")) | set(os.listdir(f"{engine.paths.content}/ingest"))


def test_the_archive_is_as_dockers(engine: Engine, images: None) -> None:
    files = members(save(engine, "one:1", "two:1", "one:2"))
    one, two = json.loads(files["manifest.json"])
    assert (one["RepoTags"], two["RepoTags"]) == (["one:1", "one:2"], ["two:1"])
    assert set(one) == {"Config", "RepoTags", "Layers", "LayerSources"}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    names = [each["annotations"]["io.containerd.image.name"] for each in json.loads(files["index.json"])["manifests"]]
    assert names == ["docker.io/library/one:1", "docker.io/library/one:2", "docker.io/library/two:1"]
    repositories = json.loads(files["repositories"])
    assert {name: set(tags) for name, tags in repositories.items()} == {"one": {"1", "2"}, "two": {"1"}}
    remove(engine, "one:1", "one:2", "two:1")


def test_ours_comes_back(engine: Engine, images: None) -> None:
    before = json.loads(engine.docker("image", "inspect", "one:1", "two:1", check=True).stdout)
    archive = save(engine, "one:1", "two:1", "one:2")
    remove(engine, "one:1", "one:2", "two:1")
    loaded = engine.docker("load", stdin=archive, check=True).stdout.splitlines()
    assert loaded == ["Loaded image: one:1", "Loaded image: one:2", "Loaded image: two:1"]
    after = json.loads(engine.docker("image", "inspect", "one:1", "two:1", check=True).stdout)
    for each in (*before, *after):
        del each["Metadata"], each["GraphDriver"]
    assert after == before
    # Once more, to the byte.
    assert save(engine, "one:1", "two:1", "one:2") == archive
    # And without manifest.json, by its layout alone.
    assert engine.docker(
        "load",
        "-q",
        stdin=layer(
            **{
                name: content
                for name, content in members(archive).items()
                if name not in ("manifest.json", "repositories")
            }
        ),
        check=True,
    ).stdout.splitlines() == ["Loaded image: one:1", "Loaded image: one:2", "Loaded image: two:1"]
    remove(engine, "one:1", "one:2", "two:1")


@pytest.mark.requires("program:dockerd")
def test_dockerd_loads_ours_and_we_its(engine: Engine, images: None, dockerd: Dockerd) -> None:
    archive = save(engine, "one:1", "two:1", "one:2")
    dockerd.must("load", stdin=archive)
    theirs = dockerd.must("save", "one:1", "two:1", "one:2")
    assert parts(theirs) == parts(archive)
    remove(engine, "one:1", "one:2", "two:1")
    engine.docker("load", stdin=theirs, check=True)
    assert parts(save(engine, "one:1", "two:1", "one:2")) == parts(archive)
    remove(engine, "one:1", "one:2", "two:1")


@pytest.mark.requires("program:dockerd")
def test_an_image_of_dockerds_keeps_its_layers(engine: Engine, dockerd: Dockerd) -> None:
    """One that was built there, with more than one layer."""
    dockerd.must("import", "-", "base", stdin=busybox_tar())
    container = dockerd.must("create", "base", "sh").decode().strip()
    dockerd.must("cp", "/etc/hostname", f"{container}:/added")
    dockerd.must("commit", "-c", "LABEL a=b", container, "reg.example:5000/built:3")
    archive = dockerd.must("save", "reg.example:5000/built:3")
    engine.docker("load", stdin=archive, check=True)
    assert parts(save(engine, "reg.example:5000/built:3")) == parts(archive)
    ran = engine.docker("run", "--rm", "--network", "none", "reg.example:5000/built:3", "cat", "/added", check=True)
    assert ran.stdout == pathlib.Path("/etc/hostname").read_text()
    remove(engine, "reg.example:5000/built:3")


@pytest.mark.requires("program:skopeo", "program:umoci")
def test_skopeo_and_umoci_read_ours_and_we_theirs(engine: Engine, images: None, short_dir: pathlib.Path) -> None:
    archive = short_dir / "ours.tar"
    archive.write_bytes(save(engine, "one:1"))
    run("skopeo", "--insecure-policy", "copy", f"docker-archive:{archive}", f"docker-archive:{short_dir}/a.tar:one:1")
    run("skopeo", "--insecure-policy", "copy", f"oci-archive:{archive}", f"oci-archive:{short_dir}/b.tar:one:1")
    run("skopeo", "--insecure-policy", "copy", f"oci-archive:{archive}", f"oci:{short_dir}/layout:1")
    run("umoci", "unpack", "--image", f"{short_dir}/layout:1", f"{short_dir}/bundle")
    assert (short_dir / "bundle/rootfs/a").read_bytes() == b"a" * 70_000
    before = parts(archive.read_bytes())
    identifier = before["one:1"][0]
    remove(engine, "one:1", "one:2", "two:1")
    for name in ("a.tar", "b.tar"):
        engine.docker("load", "-i", f"{short_dir}/{name}", check=True)
        if name == "b.tar":  # Its name is a tag alone.
            engine.docker("tag", identifier, "one:1", check=True)
        assert parts(save(engine, "one:1")) == before
        remove(engine, "one:1", identifier)
    run("umoci", "config", "--image", f"{short_dir}/layout:1", "--tag", "changed", "--config.label", "k=v")
    run("skopeo", "--insecure-policy", "copy", f"oci:{short_dir}/layout:changed", f"oci-archive:{short_dir}/c.tar:x:1")
    loaded = engine.docker("load", "-i", f"{short_dir}/c.tar", check=True).stdout
    changed = loaded.removeprefix("Loaded image: ").removeprefix("Loaded image ID: ").strip()
    assert engine.docker("inspect", "-f", "{{.Config.Labels.k}}", changed, check=True).stdout == "v\n"
    remove(engine, changed)


@pytest.mark.requires("program:podman")
def test_podman_reads_ours_and_we_its(engine: Engine, images: None, short_dir: pathlib.Path) -> None:
    podman = ("podman", "--root", f"{short_dir}/root", "--runroot", f"{short_dir}/run", "--storage-driver", "vfs")
    archive = save(engine, "one:1", "two:1")
    run(*podman, "load", stdin=archive)
    remove(engine, "one:1", "one:2", "two:1")
    for kind in ("docker-archive", "oci-archive"):
        theirs = run(*podman, "save", "--format", kind, "localhost/one:1")
        loaded = engine.docker("load", stdin=theirs, check=True).stdout
        assert loaded.endswith("localhost/one:1\n")
        assert parts(save(engine, "localhost/one:1")) == {"localhost/one:1": parts(archive)["one:1"]}
        remove(engine, "localhost/one:1")
    run(*podman, "rmi", "-af")


def test_platforms(engine: Engine, images: None) -> None:
    machine = json.loads(engine.docker("image", "inspect", "one:1").stdout)[0]["Architecture"]
    archive = subprocess.run(
        ["docker", "save", "--platform", f"linux/{machine}", "one:1"], env=engine.environment, check=True,
        capture_output=True,
    ).stdout  # fmt: skip
    assert parts(archive) == parts(save(engine, "one:1"))
    engine.docker("load", "--platform", f"linux/{machine}", stdin=archive, check=True)
    for failed in (
        engine.docker("save", "--platform", "linux/s390x", "one:1"),
        engine.docker("load", "--platform", "linux/s390x", stdin=archive),
    ):
        assert failed.returncode == 1
        assert f"wanted linux/s390x, and the image is for linux/{machine}" in failed.stderr
    remove(engine, "one:1", "one:2", "two:1")


# --- Bad input ------------------------------------------------------------------------------------------------


def broken(archive: bytes, **changes: bytes | None) -> bytes:
    """The archive with other files; None: without it."""
    files = {**members(archive), **changes}
    return layer(**{name: content for name, content in files.items() if content is not None})


def test_archives_that_are_none_leave_nothing(engine: Engine, images: None) -> None:
    archive = save(engine, "one:1", "two:1")
    manifest = json.loads(members(archive)["manifest.json"])
    blob = manifest[1]["Layers"][0]
    remove(engine, "one:1", "one:2", "two:1")
    before = blobs(engine), sorted(os.listdir(engine.paths.overlay2)), engine.docker("images", "-aq").stdout
    lost = {**manifest[1], "Layers": ["nothing"]}
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w") as tar:
        for number in range(100_001):
            tar.addfile(tarfile.TarInfo(f"{number:x}") if number else tarfile.TarInfo("manifest.json"))
    huge = tarfile.TarInfo("x")
    huge.size = 1 << 50
    cases = {
        "no tar": (b"nothing of the kind" * 100, "invalid archive"),
        "empty": (b"", "invalid archive"),
        "cut": (archive[: len(archive) // 2], "invalid archive: "),
        "digest": (broken(archive, **{blob: b"other"}), f"invalid archive: {blob}: its content hashes to sha256:"),
        "no layer": (broken(archive, **{blob: None}), f"invalid archive: {blob} is missing"),
        "no such file": (broken(archive, **{"manifest.json": json.dumps([manifest[0], lost]).encode()}),
                         "invalid archive: nothing is missing"),
        "too few layers": (broken(archive, **{"manifest.json": json.dumps([{**manifest[0], "Layers": []}]).encode()}),
                           "invalid image: 0 layers, and 1 diff ids"),
        "layers exchanged": (broken(archive, **{"manifest.json": json.dumps(
            [{**manifest[0], "Layers": manifest[1]["Layers"]}]).encode()}), "its content hashes to"),
        "no document": (broken(archive, **{"manifest.json": b"{"}), "invalid archive: manifest.json"),
        "no list": (broken(archive, **{"manifest.json": b"{}"}), "invalid archive: manifest.json"),
        "name": (broken(archive, **{"manifest.json": json.dumps([{**manifest[0], "RepoTags": ["A b"]}]).encode()}),
                 "invalid reference format"),
        "no index": (broken(archive, **{"manifest.json": None, "index.json": None}), "neither manifest.json nor index"),
        "no image": (broken(archive, **{"manifest.json": None, "index.json": b'{"manifests":[]}'}), "names no image"),
        "many": (bomb.getvalue(), "more than 100000 files"),
        "huge": (huge.tobuf() + b"x" * 10_000, "unexpected end of data"),
        "out": (layer(**{"../../../tmp/evil": b"", "manifest.json": b'[{"Config":"../../../etc/passwd"}]'}),
                "invalid archive: ../../../etc/passwd is missing"),
    }  # fmt: skip
    for name, (data, message) in cases.items():
        failed = engine.docker("load", stdin=data)
        assert failed.returncode == 1, name
        assert message in failed.stderr, f"{name}: {failed.stderr}"
        assert len(failed.stderr.strip().splitlines()) == 1, name
        after = blobs(engine), sorted(os.listdir(engine.paths.overlay2)), engine.docker("images", "-aq").stdout
        assert after == before, name


def test_two_loads_at_once_and_one_that_is_cancelled(engine: Engine, images: None) -> None:
    archive = save(engine, "one:1", "two:1")
    remove(engine, "one:1", "one:2", "two:1")
    before = blobs(engine)
    half = subprocess.Popen(
        ["docker", "load"], env=engine.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert half.stdin is not None
    half.stdin.write(archive[:80_000])
    half.stdin.flush()
    results: list[int] = []

    def load() -> None:
        results.append(engine.docker("load", stdin=archive).returncode)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results == [0, 0, 0]
    half.kill()
    half.wait()
    with contextlib.suppress(BrokenPipeError):
        half.stdin.close()
    assert parts(save(engine, "one:1", "two:1")) == parts(archive)
    remove(engine, "one:1", "two:1")
    deadline = time.monotonic() + 10
    while blobs(engine) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert blobs(engine) == before


def test_an_image_that_is_removed_while_it_is_saved(engine: Engine) -> None:
    """The archive is whole; and then the image's files go."""
    before = blobs(engine)
    content = os.urandom(8 << 20)
    engine.docker("import", "-", "big:1", stdin=layer(big=content), check=True)
    with subprocess.Popen(["docker", "save", "big:1"], env=engine.environment, stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        archive = saving.stdout.read(100_000)
        removed = engine.docker("rmi", "big:1", check=True).stdout
        assert removed.startswith("Untagged: big:1\n")
        archive += saving.stdout.read()
    assert saving.returncode == 0
    assert layer(big=content) in members(archive).values()
    deadline = time.monotonic() + 10
    while blobs(engine) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert blobs(engine) == before
