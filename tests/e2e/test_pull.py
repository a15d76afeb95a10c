"""Pulling from a real registry: Debian's docker-registry, plain HTTP on loopback, filled by skopeo."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator

import docker
import docker.errors
import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires(
    "root", "overlay", "bridge", "nftables", "program:docker", "program:docker-registry", "program:skopeo"
)


class Registry:
    """A registry with the engine's image `box` in it, as `one:v1` (OCI) and `two:v1` (Docker's schema 2)."""

    def __init__(self, directory: pathlib.Path, engine: Engine) -> None:
        self.data = directory / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        configuration = directory / "config.yml"
        configuration.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.data}}}}}\nhttp: {{addr: {self.address}}}\n"
        )
        log = (directory / "log").open("wb")
        command = ["docker-registry", "serve", str(configuration)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        self._wait()
        archive = directory / "box.tar"
        engine.docker("save", "-o", str(archive), "box", check=True)
        for name, kind in (("one", "oci"), ("two", "v2s2")):
            subprocess.run(
                ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--format", kind,
                 f"docker-archive:{archive}", f"docker://{self.address}/{name}:v1"],
                check=True, capture_output=True,
            )  # fmt: skip

    def _wait(self) -> None:
        host, _, port = self.address.partition(":")
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.05)
        pytest.fail("the registry did not start")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def blob(self, digest: str) -> pathlib.Path:
        """The file that the registry keeps a blob in."""
        name = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def layer(self, name: str) -> pathlib.Path:
        """The file of the image's one layer."""
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{self.address}/{name}:v1"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        return self.blob(json.loads(raw)["layers"][0]["digest"])


@pytest.fixture
def registry(engine: Engine, tmp_path: pathlib.Path) -> Iterator[Registry]:
    running = Registry(tmp_path, engine)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def without_box(engine: Engine) -> Iterator[None]:
    """The layer is not here already: the pull has to fetch it."""
    saved = subprocess.run(["docker", "save", "box"], env=engine.environment, check=True, capture_output=True).stdout
    engine.docker("rmi", "box", check=True)
    try:
        yield
    finally:
        engine.docker("load", stdin=saved, check=True)


def kept(engine: Engine) -> set[str]:
    """The blobs and layers on the disk, and whatever lies beside them."""
    found: set[str] = set()
    for place in ("content", "overlay2"):
        for at, directories, files in os.walk(os.path.join(engine.paths.data_root, place)):
            found.update(os.path.join(at, name) for name in files)
            if at.endswith(("overlay2", "overlay2/l")):
                found.update(os.path.join(at, name) for name in directories)
    return found


@pytest.mark.parametrize("name", ["one", "two"])
def test_by_tag_and_by_digest(engine: Engine, registry: Registry, without_box: None, name: str) -> None:
    image = f"{registry.address}/{name}:v1"
    first = engine.docker("pull", image, check=True).stdout
    assert f"Status: Downloaded newer image for {image}" in first
    assert f"Status: Image is up to date for {image}" in engine.docker("pull", image, check=True).stdout
    assert engine.docker("run", "--rm", "--network", "none", image, "cat", "/data/file").stdout == "from the image\n"
    digest = engine.docker("inspect", "-f", "{{index .RepoDigests 0}}", image, check=True).stdout.strip()
    assert digest.startswith(f"{registry.address}/{name}@sha256:")
    assert engine.docker("rmi", image, check=True).stdout.count("Deleted: ") >= 2
    assert engine.docker("pull", "-q", digest, check=True).stdout.strip() == digest
    engine.docker("rmi", digest, check=True)


def test_by_docker_py_and_our_own_command(engine: Engine, registry: Registry, without_box: None) -> None:
    client = docker.DockerClient(base_url=engine.host)
    try:
        image = client.images.pull(f"{registry.address}/one", tag="v1")
        assert image.tags == [f"{registry.address}/one:v1"]
        with pytest.raises(docker.errors.NotFound, match="manifest unknown"):
            client.images.pull(f"{registry.address}/one", tag="nonesuch")
    finally:
        client.close()
    engine.docker("rmi", f"{registry.address}/one:v1", check=True)
    engine.sampan("pull", f"{registry.address}/two:v1", check=True)
    ran = engine.sampan("run", "--rm", "--network", "none", f"{registry.address}/two:v1", "echo", "pulled", check=True)
    assert ran.stdout == "pulled\n"
    engine.docker("rmi", f"{registry.address}/two:v1", check=True)


def test_run_pulls_what_is_missing(engine: Engine, registry: Registry, without_box: None) -> None:
    image = f"{registry.address}/one:v1"
    ran = engine.docker("run", "--rm", "--network", "none", image, "echo", "here")
    assert (ran.returncode, ran.stdout) == (0, "here\n")
    assert "Unable to find image" in ran.stderr
    engine.docker("rmi", image, check=True)
    refused = engine.docker("run", "--rm", "--pull", "never", image, "true")
    assert refused.returncode == 125
    assert "No such image" in refused.stderr


def test_what_is_not_there(engine: Engine, registry: Registry) -> None:
    before = kept(engine)
    missing = engine.docker("pull", f"{registry.address}/one:nonesuch")
    assert missing.returncode == 1
    assert "manifest unknown" in missing.stderr
    unknown = engine.docker("pull", f"{registry.address}/nonesuch")
    assert unknown.returncode == 1
    registry.stop()
    gone = engine.docker("pull", f"{registry.address}/one:v1")
    assert gone.returncode == 1
    assert "refused" in gone.stderr.lower()
    assert len(gone.stderr.splitlines()) == 1
    assert kept(engine) == before


@pytest.mark.parametrize("damage", ["changed", "truncated", "longer"])
def test_a_blob_that_is_not_what_its_digest_says(
    engine: Engine, registry: Registry, without_box: None, damage: str
) -> None:
    layer = registry.layer("one")
    good = layer.read_bytes()
    middle = len(good) // 2
    layer.write_bytes(
        {
            "changed": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
            "truncated": good[:middle],
            "longer": good + b"more",
        }[damage]
    )
    before = kept(engine)
    failed = engine.docker("pull", f"{registry.address}/one:v1")
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1, failed.stderr
    assert kept(engine) == before
    layer.write_bytes(good)
    image = f"{registry.address}/one:v1"
    engine.docker("pull", image, check=True)
    assert engine.docker("run", "--rm", "--network", "none", image, "cat", "/data/file").stdout == "from the image\n"
    engine.docker("rmi", image, check=True)
