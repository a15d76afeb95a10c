"""Blobs and manifests from a registry that does all that it should not."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import socket
from collections.abc import Iterator

import pytest
from aiohttp import web

from sampan.core.content import ContentStore
from sampan.core.remotes.download import Downloads
from sampan.core.remotes.progress import Progress
from sampan.core.remotes.remote import Remote
from sampan.core.remotes.settings import Credentials, RemoteSettings
from sampan.errors import DataCorrupt, NotFound, SampanError, Unavailable, Unsupported
from sampan.oci.image import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from sampan.oci.reference import Reference
from tests.unit.core_remotes.served import QUICK, Fault, Registry, error, ranged, run_blocking, settings

DATA = random.Random(2).randbytes(3_000_000)


class Here:
    """A content store, and what one does with it."""

    def __init__(self, root: pathlib.Path) -> None:
        self.content = ContentStore(str(root))
        self.downloads = Downloads(self.content, 3, run_blocking)
        self.told: list[Progress] = []

    async def fetch(
        self, registry: Registry, wanted: Descriptor, given: RemoteSettings | None = None,
        credentials: Credentials | None = None,
    ) -> None:  # fmt: skip
        reference = Reference(registry.address, "team/app", "v1")
        async with Remote(reference, given or settings(), run_blocking, credentials) as remote:
            await self.downloads.fetch(remote, wanted, self._tell)

    async def _tell(self, progress: Progress) -> None:
        self.told.append(progress)

    def is_clean(self) -> bool:
        return not os.listdir(f"{self.content.root}/ingest")


@pytest.fixture
def here(tmp_path: pathlib.Path) -> Here:
    return Here(tmp_path / "content")


def cut(data: bytes, after: int) -> Fault:
    """All the head promises, and a part of the body."""

    async def fault(request: web.Request) -> web.StreamResponse:
        whole = ranged(request, data)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        body = whole.body
        assert isinstance(body, bytes)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:after])
        await asyncio.sleep(0.02)
        assert request.transport is not None
        request.transport.abort()
        return response

    return fault


def stalls(data: bytes, after: int) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:after])
        await asyncio.sleep(5)
        return response

    return fault


def answers(
    status: int, body: bytes = b"", kind: str = "application/octet-stream", headers: dict[str, str] | None = None
) -> Fault:
    async def fault(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers={"Content-Type": kind, **(headers or {})})

    return fault


def ranges(registry: Registry) -> list[str]:
    return [each.headers.get("Range", "") for each in registry.seen if "/blobs/" in each.path]


async def test_what_comes_is_stored_and_told(registry: Registry, here: Here) -> None:
    wanted = registry.add_blob(DATA)
    await here.fetch(registry, wanted)
    assert here.content.size(wanted.digest) == len(DATA)
    assert [each.status for each in here.told if each.status != "Downloading"][-1] == "Download complete"
    here.told.clear()
    await here.fetch(registry, wanted)
    assert [each.status for each in here.told] == ["Already exists"]
    assert len(ranges(registry)) == 1


async def test_a_broken_connection_is_taken_up_where_it_broke(registry: Registry, here: Here) -> None:
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", cut(DATA, 1_000_000))
    registry.fault("blobs", cut(DATA, 500_000))
    await here.fetch(registry, wanted)
    assert here.content.has(wanted.digest, len(DATA))
    begins = [int(each.removeprefix("bytes=").rstrip("-")) for each in ranges(registry)[1:]]
    assert ranges(registry)[0] == ""
    # Nothing that came is asked for again.
    assert 0 < begins[0] <= 1_000_000 < begins[1] <= 1_500_000
    assert "Retrying" in [each.status for each in here.told]


async def test_a_registry_without_ranges(registry: Registry, here: Here) -> None:
    """It answers with all: what is here already is passed over."""
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", cut(DATA, 1_000_000))
    registry.fault("blobs", answers(200, DATA))
    await here.fetch(registry, wanted)
    assert here.content.has(wanted.digest, len(DATA))


async def test_a_connection_that_always_breaks(registry: Registry, here: Here) -> None:
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", cut(DATA, 1000), times=50)
    with pytest.raises(Unavailable):
        await here.fetch(registry, wanted)
    assert len(ranges(registry)) == QUICK.attempts
    assert here.is_clean()
    assert list(here.content.all()) == []


async def test_headway_counts(registry: Registry, here: Here) -> None:
    """More breaks than attempts, with a megabyte between them."""
    data = DATA * 4
    wanted = registry.add_blob(data)
    registry.fault("blobs", cut(data, 1_500_000), times=QUICK.attempts + 2)
    await here.fetch(registry, wanted)
    assert len(ranges(registry)) > QUICK.attempts


async def test_a_stall_ends(registry: Registry, here: Here) -> None:
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", stalls(DATA, 1_000_000))
    begun = asyncio.get_running_loop().time()
    await here.fetch(registry, wanted)
    assert asyncio.get_running_loop().time() - begun < 4
    registry.blobs.clear()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_a_stumbling_registry_is_asked_again(registry: Registry, here: Here, status: int) -> None:
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", answers(status, b"<html>", "text/html"), times=2)
    await here.fetch(registry, wanted)
    registry.fault("manifests", answers(status, b"<html>", "text/html"), times=20)
    with pytest.raises(Unavailable, match=rf'^Get "http://{registry.address}/v2/team/app/manifests/v1": received unex'):
        await manifest(registry)
    assert registry.count("manifests") == QUICK.requests


async def test_too_many_requests(registry: Registry, here: Here) -> None:
    async def limited(request: web.Request) -> web.Response:
        return error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.", {"Retry-After": "3600"})

    wanted = registry.add_blob(DATA)
    registry.fault("blobs", limited, times=20)
    with pytest.raises(Unavailable) as caught:
        await here.fetch(registry, wanted)
    assert caught.value.message == (
        "toomanyrequests: You have reached your pull rate limit. (try again in 60 minutes)"
    )  # fmt: skip
    # So long nobody waits.
    assert registry.count("blobs") == 1
    registry._faults.clear()
    registry.fault("blobs", answers(429, headers={"Retry-After": "1"}))
    begun = asyncio.get_running_loop().time()
    await here.fetch(registry, wanted)
    assert asyncio.get_running_loop().time() - begun >= 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (answers(200, DATA[:-1] + b"?"), "its content hashes to"),
        (answers(200, DATA[:1000]), "the registry has 1000 bytes instead of 3000000"),
        (answers(200, DATA + b"more"), "the registry has 3000004 bytes instead of 3000000"),
        (answers(200, b"<html>Welcome to the hotel</html>", "text/html"), "instead of 3000000"),
    ],
)
async def test_what_is_not_the_blob(registry: Registry, here: Here, fault: Fault, said: str) -> None:
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", fault)
    with pytest.raises(DataCorrupt, match=said):
        await here.fetch(registry, wanted)
    assert here.is_clean()
    assert list(here.content.all()) == []
    await here.fetch(registry, wanted)


async def test_more_than_the_blob_without_a_length(registry: Registry, here: Here) -> None:
    """It ends as soon as there is too much, not when the registry ends."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(bytes(100_000))
            sent += 100_000
        return response

    registry.fault("blobs", endless)
    with pytest.raises(DataCorrupt, match="sends more than 3000000 bytes"):
        await here.fetch(registry, registry.add_blob(DATA))
    await asyncio.sleep(0.1)
    assert sent < 50_000_000
    assert here.is_clean()


async def test_another_range_than_was_asked_for(registry: Registry, here: Here) -> None:
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", cut(DATA, 1_000_000))
    registry.fault("blobs", answers(206, DATA[5:], headers={"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}))
    with pytest.raises(DataCorrupt, match="another range"):
        await here.fetch(registry, wanted)


async def test_redirects_that_never_end(registry: Registry, here: Here) -> None:
    async def around(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.path_qs})

    registry.fault("blobs", around, times=100)
    with pytest.raises(Unavailable, match="stopped after 10 redirects"):
        await here.fetch(registry, registry.add_blob(DATA))


@pytest.mark.parametrize("place", ["", "ftp://example/", "file:///etc/passwd"])
async def test_redirects_to_nowhere(registry: Registry, here: Here, place: str) -> None:
    registry.fault("blobs", answers(302, headers={"Location": place}))
    with pytest.raises(Unavailable, match="which is no address"):
        await here.fetch(registry, registry.add_blob(DATA))


async def test_what_is_no_http(here: Here) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    registry = Registry()
    registry.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(Unavailable):
        await here.fetch(registry, registry.add_blob(DATA))
    server.close()
    with pytest.raises(Unavailable, match="connection refused"):
        await here.fetch(registry, registry.add_blob(DATA))


# --- Several at once ------------------------------------------------------------------------------


async def test_one_blob_for_several_is_fetched_once(registry: Registry, here: Here) -> None:
    wanted = registry.add_blob(DATA)

    async def slowly(request: web.Request) -> None:
        await asyncio.sleep(0.2)

    registry.fault("blobs", slowly)
    await asyncio.gather(*(here.fetch(registry, wanted) for _ in range(4)))
    assert len(ranges(registry)) == 1


async def test_who_follows_goes_on_alone(registry: Registry, here: Here) -> None:
    """The one who began it leaves in the middle."""
    wanted = registry.add_blob(DATA)
    registry.fault("blobs", stalls(DATA, 1000))
    first = asyncio.create_task(here.fetch(registry, wanted))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(here.fetch(registry, wanted))
    await asyncio.sleep(0.1)
    first.cancel()
    await second
    assert here.content.has(wanted.digest, len(DATA))
    with pytest.raises(asyncio.CancelledError):
        await first
    assert here.is_clean()


async def test_who_follows_does_not_fail_with_the_other(registry: Registry, here: Here) -> None:
    """The first one has no credentials for it."""
    registry.auth = "basic"
    wanted = registry.add_blob(DATA)

    async def slowly(request: web.Request) -> None:
        await asyncio.sleep(0.2)

    registry.fault("blobs", slowly)
    first = asyncio.create_task(here.fetch(registry, wanted))
    await asyncio.sleep(0.05)
    alice = Credentials(username="alice", password="secret")
    await here.fetch(registry, wanted, credentials=alice)
    with pytest.raises(SampanError, match="no basic auth"):
        await first


async def test_no_more_than_three_at_once(registry: Registry, here: Here) -> None:
    now = most = 0

    async def counts(request: web.Request) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1

    registry.fault("blobs", counts, times=20)
    await asyncio.gather(*(here.fetch(registry, registry.add_blob(bytes([each]))) for each in range(9)))
    assert most == 3


# --- Mirrors --------------------------------------------------------------------------------------


def mirrored(registry: Registry, *mirrors: str) -> RemoteSettings:
    return settings(mirrors={registry.address: mirrors})


@pytest.fixture
def gone() -> Iterator[str]:
    """An address where nobody answers, though somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_mirror_comes_first(registry: Registry, other: Registry, here: Here) -> None:
    wanted = other.add_blob(DATA)
    await here.fetch(registry, wanted, mirrored(registry, f"http://{other.address}/cache/"))
    assert [each.path for each in other.seen] == [f"/cache/v2/team/app/blobs/{wanted.digest}"]
    assert registry.seen == []


@pytest.mark.parametrize(
    "fault",
    [
        answers(404), answers(500), answers(401), answers(200, DATA[:-1] + b"?"), answers(200, b"<html>", "text/html"),
        cut(DATA, 1000),
    ],
)  # fmt: skip
async def test_what_a_mirror_has_not_comes_from_the_registry(
    registry: Registry, other: Registry, here: Here, fault: Fault
) -> None:
    wanted = registry.add_blob(DATA)
    other.fault("blobs", fault, times=20)
    await here.fetch(registry, wanted, mirrored(registry, f"http://{other.address}"))
    assert here.content.has(wanted.digest, len(DATA))
    assert other.seen
    assert here.is_clean()


async def test_credentials_are_not_for_mirrors(registry: Registry, other: Registry, here: Here) -> None:
    other.auth = registry.auth = "basic"
    wanted = registry.add_blob(DATA)
    alice = Credentials(username="alice", password="secret")
    await here.fetch(registry, wanted, mirrored(registry, f"http://{other.address}"), alice)
    assert other.seen
    assert all("Authorization" not in each.headers for each in other.seen)


async def test_what_the_registry_says_counts(registry: Registry, other: Registry) -> None:
    with pytest.raises(NotFound, match="manifest unknown"):
        await manifest(registry, mirrored(registry, f"http://{other.address}"))
    assert other.count("manifests") == 1


# --- Manifests ------------------------------------------------------------------------------------


async def manifest(registry: Registry, given: RemoteSettings | None = None, name: str = "v1") -> bytes:
    reference = Reference(registry.address, "team/app", "v1")
    async with Remote(reference, given or settings(), run_blocking) as remote:
        return (await remote.manifest(name))[1]


MANIFEST = b'{"schemaVersion":2,"config":{"digest":"x","size":1},"layers":[]}'
INDEX = b'{"schemaVersion":2,"manifests":[]}'


def typed(document: bytes, kind: str) -> bytes:
    return b'{"mediaType":"%s",%s' % (kind.encode(), document[1:])


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        (OCI_MANIFEST, MANIFEST), (DOCKER_MANIFEST, typed(MANIFEST, DOCKER_MANIFEST)), (OCI_INDEX, INDEX),
        (DOCKER_LIST, typed(INDEX, DOCKER_LIST)), (f"{OCI_MANIFEST}; charset=utf-8", typed(MANIFEST, OCI_MANIFEST)),
        (OCI_MANIFEST, b'{"config":{},"layers":[],"manifests":null}'),
    ],
)  # fmt: skip
async def test_good_manifests(registry: Registry, kind: str, document: bytes) -> None:
    digest = registry.add_manifest("v1", kind, document)
    assert await manifest(registry) == document
    assert await manifest(registry, name=digest) == document


@pytest.mark.parametrize(
    ("kind", "document", "error_kind", "said"),
    [
        (DOCKER_MANIFEST, typed(MANIFEST, OCI_MANIFEST), DataCorrupt, "it calls itself application/vnd.oci"),
        (OCI_INDEX, typed(MANIFEST, OCI_MANIFEST), DataCorrupt, "it calls itself application/vnd.oci.image.manifest"),
        (OCI_INDEX, MANIFEST, DataCorrupt, "it is not the application/vnd.oci.image.index"),
        (OCI_MANIFEST, INDEX, DataCorrupt, "it is not the application/vnd.oci.image.manifest"),
        (OCI_MANIFEST, MANIFEST[:-1] + b',"manifests":[]}', DataCorrupt, "both a manifest and an index"),
        (OCI_INDEX, INDEX[:-1] + b',"layers":[]}', DataCorrupt, "both a manifest and an index"),
        (OCI_MANIFEST, b"<html>", DataCorrupt, "malformed"),
        (OCI_MANIFEST, b"[]", DataCorrupt, "Expected `object`"),
        ("text/html", b"<html>", DataCorrupt, "media type text/html is not supported"),
        ("application/json", MANIFEST, DataCorrupt, "media type application/json is not supported"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion":1}', Unsupported, "schema 1"),
        (DOCKER_MANIFEST, b'{"schemaVersion":1,"fsLayers":[]}', Unsupported, "schema 1"),
        (OCI_MANIFEST, b'{"config":{},"x":"' + bytes(5 << 20) + b'"}', DataCorrupt, "more than"),
    ],
)  # fmt: skip
async def test_bad_manifests(
    registry: Registry, kind: str, document: bytes, error_kind: type[SampanError], said: str
) -> None:
    registry.add_manifest("v1", kind, document)
    with pytest.raises(error_kind, match=said):
        await manifest(registry)
    assert registry.count("manifests") == 1


async def test_a_manifest_that_is_not_its_digests(registry: Registry) -> None:
    digest = registry.add_manifest("v1", OCI_MANIFEST, MANIFEST)
    registry.manifests[digest] = (OCI_MANIFEST, MANIFEST + b" ")
    with pytest.raises(DataCorrupt, match="its content hashes to"):
        await manifest(registry, name=digest)


async def test_tags_come_in_pages(registry: Registry) -> None:
    for tag in ("a", "b", "c", "d", "e"):
        registry.add_manifest(tag, OCI_MANIFEST, MANIFEST)
    reference = Reference(registry.address, "team/app")
    async with Remote(reference, settings(), run_blocking) as remote:
        assert await (await remote.origin()).tags() == ["a", "b", "c", "d", "e"]
    assert registry.count("tags/list") == 3


async def test_an_artifact_is_told_byte_by_byte(registry: Registry) -> None:
    document = typed(MANIFEST, OCI_MANIFEST)[:-1] + b' , "artifactType":"x/y", "subject":{"digest":"z","size":1}}\n'
    registry.add_manifest("v1", OCI_MANIFEST, document)
    assert await manifest(registry) == document


async def test_a_mirror_that_does_not_answer_is_asked_once(registry: Registry, here: Here, gone: str) -> None:
    wanted = [registry.add_blob(bytes([at]) * 1000) for at in range(5)]
    reference = Reference(registry.address, "team/app", "v1")
    async with Remote(reference, mirrored(registry, gone), run_blocking) as remote:
        begun = asyncio.get_running_loop().time()
        for each in wanted:
            await here.downloads.fetch(remote, each, here._tell)
        assert asyncio.get_running_loop().time() - begun < 2
    assert [here.content.has(each.digest) for each in wanted] == [True] * 5
