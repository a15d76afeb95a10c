"""Mirrors of any registry: Debian's docker-registry as a pull-through cache, before a registry and in its place. And
what a registry says of itself: manifests and a search."""

from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine
from tests.e2e.registries import PROGRAMS, RegistryServer

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:skopeo", *PROGRAMS),
    pytest.mark.usefixtures("docker_config"),
]


class Mirrored:
    """A registry, a cache before it, and an engine that is told so; the cache is Docker Hub's mirror too."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.origin = RegistryServer(directory / "origin")
        self.cache = RegistryServer(directory / "cache", proxy=f"http://{self.origin.address}")
        url = f"http://{self.cache.address}"
        (directory / "daemon.json").write_text(json.dumps({
            "registry-mirrors": [url],
            "mirrors": {self.origin.address: ["http://127.0.0.1:1", url], "nowhere.invalid": [url]},
        }))  # fmt: skip
        self.engine = Engine(directory, "--config-file", str(directory / "daemon.json"))
        self.engine.start()
        self.engine.load_box()
        for name in ("team/app:v1", "team/app:v2", "library/app:v1"):
            self.engine.docker("tag", "box", f"{self.origin.address}/{name}", check=True)
            self.engine.docker("push", f"{self.origin.address}/{name}", check=True)
            self.engine.docker("rmi", f"{self.origin.address}/{name}", check=True)
        self.engine.docker("rmi", "-f", "box", check=True)

    def close(self) -> None:
        self.engine.stop()
        self.engine.take_down()
        self.origin.stop()
        self.cache.stop()


@pytest.fixture
def mirrored() -> Iterator[Mirrored]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    made = Mirrored(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


def test_mirrors(mirrored: Mirrored) -> None:
    engine, origin = mirrored.engine, mirrored.origin
    pushed = origin.log().count('"PUT /v2/')
    assert pushed
    image = f"{origin.address}/team/app:v1"
    # The first mirror of the two does not answer.
    engine.docker("pull", image, check=True)
    assert "GET /v2/team/app/blobs/" in mirrored.cache.log()
    assert f"mirror 127.0.0.1:1 of {origin.address}" in engine.log()
    engine.docker("rmi", image, check=True)
    # A registry that nobody reaches, and Docker Hub.
    for name in ("nowhere.invalid/team/app:v1", "app:v1"):
        engine.sampan("pull", name, check=True)
        known = engine.client.call("GET", f"/images/{name}/json")
        assert known["RepoTags"] == [name]
        engine.docker("rmi", name, check=True)
    info = engine.client.call("GET", "/info")["RegistryConfig"]
    assert info["Mirrors"] == [f"http://{mirrored.cache.address}"]
    # Without any mirror the registry itself does it.
    mirrored.cache.stop()
    engine.docker("pull", f"{origin.address}/team/app:v2", check=True)
    missing = engine.docker("pull", f"{origin.address}/team/app:nonesuch")
    assert "manifest unknown" in missing.stderr


def test_manifest_inspect(mirrored: Mirrored) -> None:
    engine, image = mirrored.engine, f"{mirrored.origin.address}/team/app:v1"
    theirs = engine.docker("manifest", "inspect", "--insecure", image, check=True)
    ours = engine.sampan("manifest", "inspect", image, check=True)
    assert json.loads(ours.stdout) == json.loads(theirs.stdout)
    verbose = json.loads(engine.sampan("manifest", "inspect", "-v", image, check=True).stdout)
    assert verbose["OCIManifest"] == json.loads(ours.stdout)
    by_digest = f"{mirrored.origin.address}/team/app@{verbose['Descriptor']['digest']}"
    assert engine.sampan("manifest", "inspect", by_digest, check=True).stdout == ours.stdout
    assert "manifest unknown" in engine.sampan("manifest", "inspect", f"{image}x").stderr
    # Nothing of it is here then.
    assert engine.docker("images", "-q", check=True).stdout == ""


def test_search(mirrored: Mirrored) -> None:
    for who in ("docker", "sampan"):
        refused = getattr(mirrored.engine, who)("search", f"{mirrored.origin.address}/app")
        assert refused.returncode == 1
        assert f"registry {mirrored.origin.address} has no search" in refused.stderr
    for path in ("?term=x&limit=101", "?term=x&filters=%7B%22unknown%22%3A%5B%22x%22%5D%7D", ""):
        with pytest.raises(Exception, match=r"outside the range|invalid filter|no search term"):
            mirrored.engine.client.call("GET", f"/images/search{path}")
