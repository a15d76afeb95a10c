"""Pulls that break, are cancelled or killed, and images that can't be had: the real engine, and a registry that does
what a test says."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import zstandard
from aiohttp import web

from sampan.core.archives import architecture
from sampan.oci.image import OCI_INDEX
from tests.e2e.conftest import Engine
from tests.e2e.test_pull import kept
from tests.unit.core_remotes.served import Registry, error

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker")


def tar_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


TARS = [tar_of(f"file{at}", random.Random(at).randbytes(500_000)) for at in range(3)]
LAYERS = [gzip.compress(each, 1) for each in TARS]


def configuration(tars: list[bytes], **more: Any) -> bytes:
    diff_ids = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in tars]
    return json.dumps(
        {"architecture": architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, **more}
    ).encode()  # fmt: skip


def add_image(registry: Registry, tag: str = "v1", **more: Any) -> str:
    return registry.add_image(tag, configuration(TARS, **more), LAYERS)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def own() -> Iterator[Engine]:
    """An engine of the test's own, which it may kill."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    running = Engine(directory)
    running.start()
    yield running
    running.stop()
    running.take_down()
    shutil.rmtree(directory)


async def pull(engine: Engine, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(engine.docker, "pull", *words, name)


async def until(met: Callable[[], bool], seconds: float = 20) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not met():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


def stalling(registry: Registry) -> asyncio.Event:
    """The last layer's download begins and stands still; the event lets it go on."""
    digest = f"sha256:{hashlib.sha256(LAYERS[2]).hexdigest()}"
    go_on = asyncio.Event()

    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(LAYERS[2])
        await response.prepare(request)
        await response.write(LAYERS[2][:200_000])
        await go_on.wait()
        await response.write(LAYERS[2][200_000:])
        return response

    registry.fault(f"blobs/{digest}", stalls)
    return go_on


def blobs(engine: Engine) -> int:
    return len(os.listdir(f"{engine.paths.content}/blobs/sha256"))


def layer_requests(registry: Registry) -> list[int]:
    return [registry.count(f"blobs/sha256:{hashlib.sha256(each).hexdigest()}") for each in LAYERS]


async def test_an_engine_killed_in_the_middle(own: Engine, registry: Registry) -> None:
    """What was whole is not fetched again; what was not leaves nothing."""
    add_image(registry)
    go_on = stalling(registry)
    image = f"{registry.address}/app:v1"
    began = asyncio.create_task(pull(own, image))
    await until(lambda: blobs(own) == 4)  # The manifest, the configuration and two layers.
    own.stop(signal.SIGKILL)
    go_on.set()
    assert (await began).returncode != 0
    own.start()
    assert os.listdir(f"{own.paths.content}/ingest") == []
    assert blobs(own) == 4
    assert (await pull(own, image)).returncode == 0
    assert layer_requests(registry) == [1, 1, 2]
    assert len(own.client.call("GET", f"/images/{image}/json")["RootFS"]["Layers"]) == 3
    own.docker("rmi", image, check=True)
    assert blobs(own) == 0


async def test_what_an_interrupted_pull_left_goes_with_the_next_collection(own: Engine, registry: Registry) -> None:
    before = kept(own)
    add_image(registry)
    go_on = stalling(registry)
    began = asyncio.create_task(pull(own, f"{registry.address}/app:v1"))
    await until(lambda: blobs(own) == 4)
    own.stop(signal.SIGKILL)
    go_on.set()
    await began
    own.start()
    own.docker("image", "prune", "-f", check=True)
    assert kept(own) == before
    own.stop(signal.SIGKILL)
    own.start()
    assert kept(own) == before


async def test_a_client_that_leaves(engine: Engine, registry: Registry) -> None:
    """The engine notices though nothing comes, lets the registry go, and the next pull goes on with what is whole."""
    before, count = kept(engine), blobs(engine)
    add_image(registry)
    go_on = stalling(registry)
    image = f"{registry.address}/app:v1"
    client = subprocess.Popen(
        ["docker", "pull", image], env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    await until(lambda: blobs(engine) == count + 4)
    client.terminate()
    await asyncio.to_thread(client.wait, 10)
    await until(lambda: os.listdir(f"{engine.paths.content}/ingest") == [])
    go_on.set()
    assert (await pull(engine, image)).returncode == 0
    assert layer_requests(registry) == [1, 1, 2]
    engine.docker("rmi", image, check=True)
    assert kept(engine) == before


async def test_two_pulls_of_one_image(engine: Engine, registry: Registry) -> None:
    before = kept(engine)
    add_image(registry)
    add_image(registry, "v2")
    go_on = stalling(registry)
    names = [f"{registry.address}/app:v1", f"{registry.address}/app:v1", f"{registry.address}/app:v2"]
    pulls = [asyncio.create_task(pull(engine, name)) for name in names]
    await until(lambda: registry.count("manifests/v") == 3)
    await asyncio.sleep(0.3)
    go_on.set()
    assert [(await each).returncode for each in pulls] == [0, 0, 0]
    assert layer_requests(registry) == [1, 1, 1]
    engine.docker("rmi", *set(names), check=True)
    assert kept(engine) == before


async def test_an_image_removed_while_another_of_its_layers_is_pulled(engine: Engine, registry: Registry) -> None:
    before = kept(engine)
    registry.add_image("base", configuration(TARS[:2]), LAYERS[:2])
    add_image(registry)
    base, image = f"{registry.address}/app:base", f"{registry.address}/app:v1"
    assert (await pull(engine, base)).returncode == 0
    go_on = stalling(registry)
    began = asyncio.create_task(pull(engine, image))
    await until(lambda: layer_requests(registry)[2] == 1)
    await asyncio.to_thread(engine.docker, "rmi", base, check=True)
    go_on.set()
    done = await began
    assert done.returncode == 0, done.stderr
    assert layer_requests(registry) == [1, 1, 1]
    engine.docker("rmi", image, check=True)
    assert kept(engine) == before


def indexed(registry: Registry, *platforms: dict[str, str]) -> dict[str, str]:
    """An index `v1`; the manifest of each platform, by architecture."""
    digests: dict[str, str] = {}
    manifests: list[dict[str, Any]] = []
    for each in platforms:
        machine = each["architecture"]
        digest = add_image(registry, f"for-{machine}", architecture=machine)
        digests[machine] = digest
        size = len(registry.manifests[digest][1])
        manifests.append({"mediaType": registry.manifests[digest][0], "digest": digest, "size": size, "platform": each})
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    digests["index"] = registry.add_manifest("v1", OCI_INDEX, json.dumps(document).encode())
    return digests


async def test_platforms(engine: Engine, registry: Registry) -> None:
    before = kept(engine)
    others = {each["Id"] for each in engine.client.call("GET", "/images/json")}
    own, foreign = architecture(), "s390x"
    digests = indexed(
        registry, {"architecture": "unknown", "os": "unknown"}, {"architecture": foreign, "os": "linux"},
        {"architecture": own, "os": "linux"},
    )  # fmt: skip
    image = f"{registry.address}/app:v1"
    for words, machine in (
        ((), own),
        (("--platform", f"linux/{foreign}"), foreign),
        (("--platform", foreign), foreign),
    ):
        done = await pull(engine, image, *words)
        assert done.returncode == 0, done.stderr
        assert f"Digest: {digests['index']}" in done.stdout
        known = engine.client.call("GET", f"/images/{image}/json")
        assert known["Architecture"] == machine
        assert known["RepoDigests"] == [f"{registry.address}/app@{digests['index']}"]
    missing = await pull(engine, image, "--platform", "linux/mips64le")
    assert "no matching manifest for linux/mips64le in the manifest list entries" in missing.stderr
    wrong = await pull(engine, f"{registry.address}/app:for-{foreign}", "--platform", f"linux/{own}")
    assert "does not match the specified platform" in wrong.stderr
    assert (await pull(engine, image, "--platform", "windows/amd64")).returncode == 1
    told = await asyncio.to_thread(engine.client.call, "GET", f"/distribution/{image}/json")
    assert told["Descriptor"]["digest"] == digests["index"]
    assert [each["architecture"] for each in told["Platforms"]] == ["unknown", foreign, own]
    for each in engine.client.call("GET", "/images/json"):
        if each["Id"] not in others:
            engine.docker("rmi", "-f", each["Id"], check=True)
    assert kept(engine) == before


async def test_layers_with_gzip_zstd_and_plain(engine: Engine, registry: Registry) -> None:
    layers = [LAYERS[0], zstandard.compress(TARS[1]), TARS[2]]
    registry.add_image("v1", configuration(TARS), layers)
    image = f"{registry.address}/app:v1"
    done = await pull(engine, image)
    assert done.returncode == 0, done.stderr
    engine.docker("rmi", image, check=True)


def broken(registry: Registry, what: str) -> None:
    """An image `v1` with one fault."""
    config = configuration(TARS)
    if what == "a wrong diff id":
        registry.add_image("v1", configuration([*TARS[:2], b"another"]), LAYERS)
    elif what == "no tar":
        junk = random.Random(9).randbytes(100_000)
        registry.add_image("v1", configuration([*TARS[:2], junk]), [*LAYERS[:2], gzip.compress(junk)])
    elif what == "broken gzip":
        registry.add_image("v1", config, [*LAYERS[:2], LAYERS[2][:-1000]])
    elif what == "windows":
        registry.add_image("v1", configuration(TARS, os="windows"), LAYERS)
    elif what == "too few layers":
        registry.add_image("v1", config, LAYERS[:2])
    elif what == "a chart":
        registry.add_image("v1", b"{}", [b"chart"])
        document = json.loads(registry.manifests["v1"][1])
        document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        registry.add_manifest("v1", registry.manifests["v1"][0], json.dumps(document).encode())
    elif what == "foreign":
        registry.add_image("v1", config, LAYERS)
        document = json.loads(registry.manifests["v1"][1])
        document["layers"][1]["urls"] = [f"http://{registry.address}/stolen"]
        registry.add_manifest("v1", registry.manifests["v1"][0], json.dumps(document).encode())
    elif what == "a limit":
        registry.add_image("v1", config, LAYERS)

        async def limited(request: web.Request) -> web.Response:
            return error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.", {"Retry-After": "7200"})

        registry.fault("manifests/v1", limited)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a wrong diff id", "its content hashes to"), ("no tar", ""), ("broken gzip", ""),
        ("windows", 'image operating system "windows" cannot be used'), ("too few layers", "2 layers, and 3 diff ids"),
        ("a chart", "no image but an artifact of type application/vnd.cncf.helm.config.v1+json"),
        ("foreign", "is a foreign one, at http://"),
        ("a limit", "toomanyrequests: You have reached your pull rate limit. (try again in 2 hours)"),
    ],
)  # fmt: skip
async def test_what_is_no_image_of_ours(engine: Engine, registry: Registry, what: str, said: str) -> None:
    before = kept(engine)
    broken(registry, what)
    failed = await pull(engine, f"{registry.address}/app:v1")
    assert failed.returncode == 1
    assert said in failed.stderr
    assert len(failed.stderr.splitlines()) == 1, failed.stderr
    assert registry.count("stolen") == 0
    assert kept(engine) == before
