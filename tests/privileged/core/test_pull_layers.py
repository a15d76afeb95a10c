"""Layers that are made while they come: what is there in the middle, and what is left when they don't come."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import pathlib
import random
import tarfile
import time
from collections.abc import AsyncIterator, Callable

import pytest
import zstandard
from aiohttp import web

from sampan.core.archives import architecture
from sampan.core.paths import Paths
from sampan.core.remotes.progress import Progress
from sampan.core.remotes.pull import Puller
from sampan.core.service import Core
from sampan.core.snapshots import Body
from sampan.engine.blocking import run_blocking
from sampan.errors import DataCorrupt, SampanError
from sampan.oci.digest import digest_of
from sampan.oci.reference import Reference
from tests.unit.core_remotes.served import QUICK, Fault, Registry, ranged, settings

pytestmark = pytest.mark.requires("root", "overlay")


def tar_of(number: int, size: int = 2_000_000) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for each in range(20):
            entry = tarfile.TarInfo(f"layer-{number}/file-{each}")
            entry.size = size // 20
            archive.addfile(entry, io.BytesIO(random.Random(number * 100 + each).randbytes(entry.size)))
    return buffer.getvalue()


TARS = [tar_of(number) for number in range(3)]
PACKED = [gzip.compress(TARS[0], 1), zstandard.compress(TARS[1]), TARS[2]]
"""One of each kind."""


class Here:
    def __init__(self, directory: pathlib.Path, registry: Registry, layers: str = "", keep_blobs: bool = False) -> None:
        paths = Paths(str(directory / "data"), str(directory / "run"))
        self.core = Core(paths, layers=layers, keep_blobs=keep_blobs)
        self.registry = registry
        self.puller = Puller(self.core, settings(patience=QUICK), run_blocking)
        self.told: list[Progress] = []
        self.reference = Reference(registry.address, "team/app", "v1")

    async def pull(self, **more: object) -> None:
        await self.puller.pull(self.reference, self._tell, **more)  # type: ignore[arg-type]

    async def _tell(self, progress: Progress) -> None:
        self.told.append(progress)

    def directories(self) -> list[str]:
        root = self.core.paths.overlay2
        return [f"{root}/{name}" for name in os.listdir(root) if name != "l"]

    def blobs(self) -> int:
        return len(list(self.core.content.all()))

    def close(self) -> None:
        self.puller.close()
        self.core.close()


def publish(registry: Registry, packed: list[bytes], tars: list[bytes] = TARS) -> None:
    config = {
        "architecture": architecture(), "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(each) for each in tars]},
    }  # fmt: skip
    registry.add_image("v1", json.dumps(config).encode(), packed)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(params=["indexed", "unpacked"])
async def here(short_dir: pathlib.Path, registry: Registry, request: pytest.FixtureRequest) -> AsyncIterator[Here]:
    made = Here(short_dir, registry, request.param)
    yield made
    made.close()


def pauses(data: bytes, after: int, go_on: asyncio.Event) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:after])
        at = after
        while not go_on.is_set():  # Slowly, yet so that nobody thinks it stalls.
            await asyncio.sleep(0.1)
            await response.write(data[at : at + 1])
            at += 1
        await response.write(data[at:])
        return response

    return fault


def blob(data: bytes) -> str:
    return f"blobs/{digest_of(data)}"


async def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def files_of(directories: list[str]) -> int:
    """Bytes that are in the layers' bodies so far."""
    return sum(
        os.lstat(os.path.join(path, name)).st_size
        for directory in directories
        for path, _, names in os.walk(directory)
        for name in names
    )


async def test_a_layer_is_made_while_it_comes(here: Here, registry: Registry) -> None:
    publish(registry, PACKED[:1], TARS[:1])
    go_on = asyncio.Event()
    registry.fault(blob(PACKED[0]), pauses(PACKED[0], 1_500_000, go_on))
    pulling = asyncio.create_task(here.pull())
    await until(lambda: files_of(here.directories()) > 1_000_000)
    assert here.core.snapshots.layers() == {}
    assert not here.core.content.has(digest_of(PACKED[0]))
    go_on.set()
    await pulling
    image = here.core.images.get(here.reference.familiar)
    assert set(image.chain) == set(here.core.snapshots.layers())


async def test_what_comes_first_waits_for_what_is_below(here: Here, registry: Registry) -> None:
    publish(registry, PACKED)
    go_on = asyncio.Event()
    registry.fault(blob(PACKED[0]), pauses(PACKED[0], 1_500_000, go_on))
    pulling = asyncio.create_task(here.pull())
    await until(lambda: len(here.directories()) == 3 and files_of(here.directories()) > 5_000_000)
    assert here.core.snapshots.layers() == {}
    go_on.set()
    await pulling
    complete = [each.id for each in here.told if each.status == "Pull complete"]
    assert complete == [digest_of(each).removeprefix("sha256:")[:12] for each in PACKED]
    here.core.snapshots.create_container("c", here.core.images.get(here.reference.familiar).top)
    merged = here.core.snapshots.mount("c")
    try:
        assert sorted(os.listdir(merged)) == ["layer-0", "layer-1", "layer-2"]
        for number, tar in enumerate(TARS):
            data = pathlib.Path(merged, f"layer-{number}", "file-7").read_bytes()
            assert data in tar and len(data) == 100_000
    finally:
        here.core.snapshots.unmount("c")


async def test_two_pulls_make_each_layer_once(here: Here, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(registry, PACKED)
    made: list[str] = []
    body = here.core.snapshots._body

    def counted(diff_id: str, fill: Callable[[str], int]) -> Body:
        made.append(diff_id)
        return body(diff_id, fill)  # type: ignore[arg-type]

    monkeypatch.setattr(here.core.snapshots, "_body", counted)
    go_on = asyncio.Event()
    registry.fault(blob(PACKED[1]), pauses(PACKED[1], 1_000_000, go_on))
    first = asyncio.create_task(here.pull())
    await until(lambda: len(made) >= 2)
    second = asyncio.create_task(here.pull())
    await asyncio.sleep(0.3)
    go_on.set()
    await asyncio.gather(first, second)
    assert sorted(made) == sorted(digest_of(each) for each in TARS)
    assert len(here.directories()) == 3


async def test_the_second_pull_makes_what_the_first_left_half_done(here: Here, registry: Registry) -> None:
    publish(registry, PACKED)
    go_on = asyncio.Event()
    registry.fault(blob(PACKED[1]), pauses(PACKED[1], 1_000_000, go_on))
    first = asyncio.create_task(here.pull())
    await until(lambda: len(here.directories()) == 3 and files_of(here.directories()) > 3_900_000)
    second = asyncio.create_task(here.pull())
    await asyncio.sleep(0.3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    await second
    assert len(here.directories()) == 3
    assert here.core.images.get(here.reference.familiar).chain


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_cancelled_pull_leaves_no_layer(here: Here, registry: Registry, at: int) -> None:
    publish(registry, PACKED)
    registry.fault(blob(PACKED[at]), pauses(PACKED[at], 1_900_000, asyncio.Event()))
    pulling = asyncio.create_task(here.pull())
    await until(lambda: files_of(here.directories()) > 4_000_000)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    here.core.gc()
    assert here.directories() == []
    assert os.listdir(f"{here.core.paths.content}/ingest") == []


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_another_content_than_its_digest_says(here: Here, registry: Registry, at: int) -> None:
    """The registry sends another blob of that length: one that would make a layer as well."""
    publish(registry, PACKED)
    other = bytearray(PACKED[at])
    other[-100 if at else 50_000] ^= 1

    async def lies(request: web.Request) -> web.Response:
        return ranged(request, bytes(other))

    registry.fault(blob(PACKED[at]), lies)
    with pytest.raises(DataCorrupt, match="hashes to"):
        await here.pull()
    assert (here.directories(), here.blobs()) == ([], 0)


@pytest.mark.parametrize("broken", ["no tar", "no gzip", "another diff id", "cut off"])
async def test_a_blob_that_is_no_such_layer(here: Here, registry: Registry, broken: str) -> None:
    packed = {
        "no tar": gzip.compress(b"no tar at all" * 1000), "no gzip": b"\x1f\x8b\x08" + bytes(5000),
        "another diff id": gzip.compress(TARS[2]), "cut off": PACKED[0][:1_000_000],
    }[broken]  # fmt: skip
    publish(registry, [packed, PACKED[1]], TARS[:2])
    with pytest.raises(SampanError) as raised:
        await here.pull()
    assert "\n" not in raised.value.message
    assert (here.directories(), here.blobs()) == ([], 0)


async def test_a_mirror_that_breaks_in_the_middle(short_dir: pathlib.Path, registry: Registry) -> None:
    """What was made of its half is thrown away, and the registry's own is taken."""
    publish(registry, PACKED)
    mirror = Registry()
    await mirror.start()
    publish(mirror, PACKED)
    here = Here(short_dir, registry)
    mirrors = {registry.address: (f"http://{mirror.address}",)}
    here.puller = Puller(here.core, settings(patience=QUICK, mirrors=mirrors), run_blocking)

    async def lies(request: web.Request) -> web.Response:
        return ranged(request, PACKED[0][:-1000] + bytes(1000))

    mirror.fault(blob(PACKED[0]), lies)
    try:
        await here.pull()
        assert len(here.directories()) == 3
        assert registry.count(blob(PACKED[0])) == 1
    finally:
        here.close()
        await mirror.stop()


@pytest.mark.parametrize(("layers", "keep_blobs", "kept"), [
    ("indexed", False, 0), ("indexed", True, 3), ("unpacked", False, 3),
])  # fmt: skip
async def test_which_blobs_stay(
    short_dir: pathlib.Path, registry: Registry, layers: str, keep_blobs: bool, kept: int
) -> None:
    publish(registry, PACKED)
    here = Here(short_dir, registry, layers, keep_blobs)
    try:
        await here.pull()
        assert here.blobs() == 2 + kept  # The manifest and the configuration.
        seen = {
            (found.st_dev, found.st_ino): found.st_size
            for path, _, names in os.walk(here.core.paths.data_root)
            for name in names
            if (found := os.lstat(os.path.join(path, name))).st_size > 50_000 and "state.db" not in name
        }
        # A plain layer's blob is its tar.
        expected = sum(map(len, TARS)) + (sum(map(len, PACKED[:kept])) - (len(TARS[2]) if layers == "indexed" else 0)
                                          if kept else 0)  # fmt: skip
        assert abs(sum(seen.values()) - expected) < 400_000
        await here.pull()
        assert [each.status for each in here.told if each.status == "Already exists"] == ["Already exists"] * 3
        here.core.remove_image(here.reference.familiar)
        assert (here.directories(), here.blobs()) == ([], 0)
    finally:
        here.close()
