"""Blobs on their way to a registry that stumbles."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Sequence

import pytest
from aiohttp import web

from sampan.core.remotes.remote import Remote
from sampan.core.remotes.settings import Credentials
from sampan.core.remotes.upload import Upload
from sampan.errors import Forbidden, Unavailable
from sampan.oci.digest import digest_of
from sampan.oci.image import Descriptor
from sampan.oci.reference import Reference
from tests.unit.core_remotes.served import QUICK, Fault, Registry, error, run_blocking, settings

SMALL = b"a small one"
LARGE = random.Random(1).randbytes(9_000_000)


async def push(
    registry: Registry, data: bytes, sources: Sequence[str] = (), credentials: Credentials | None = None
) -> tuple[str, list[int]]:
    """Where it was mounted from, and what was told."""
    told: list[int] = []

    async def tell(count: int) -> None:
        told.append(count)

    blob = Descriptor(digest=digest_of(data), size=len(data))
    reference = Reference(registry.address, "team/app", "v1")
    async with Remote(reference, settings(), run_blocking, credentials, actions="pull,push") as remote:
        upload = Upload(await remote.origin(), blob, lambda: io.BytesIO(data), tell, run_blocking)
        return await upload.run(sources), told


def breaks_after(count: int, registry: Registry | None = None) -> Fault:
    """The connection, in the middle of a body; what came is kept where a registry is given."""

    async def fault(request: web.Request) -> web.StreamResponse:
        got = 0
        async for piece in request.content.iter_any():
            got += len(piece)
            if registry is not None:
                list(registry.uploads.values())[-1].extend(piece)
            if got >= count:
                break
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    return fault


def answers(status: int, code: str = "", headers: dict[str, str] | None = None) -> Fault:
    async def fault(request: web.Request) -> web.Response:
        await request.read()
        return error(status, code or "UNKNOWN", "so it is", headers)

    return fault


async def test_a_small_blob_goes_in_one_request(registry: Registry) -> None:
    assert await push(registry, SMALL) == ("", [len(SMALL), len(SMALL)])
    assert registry.blobs[digest_of(SMALL)] == SMALL
    assert [each.method for each in registry.seen[-2:]] == ["POST", "PUT"]
    # What the registry put into its address comes back as it was.
    assert "state=x%2Fy&digest=" in registry.seen[-1].path_qs
    await push(registry, b"")
    assert registry.blobs[digest_of(b"")] == b""


async def test_a_large_blob_goes_in_a_stream(registry: Registry) -> None:
    _, told = await push(registry, LARGE)
    assert registry.blobs[digest_of(LARGE)] == LARGE
    assert [each.method for each in registry.seen[-3:]] == ["POST", "PATCH", "PUT"]
    assert "Content-Range" not in registry.seen[-2].headers
    assert told == sorted(told)
    assert told[-1] == len(LARGE)


async def test_a_broken_upload_is_taken_up_where_it_broke(registry: Registry) -> None:
    registry.fault("PATCH", breaks_after(3_000_000, registry))
    await push(registry, LARGE)
    assert registry.blobs[digest_of(LARGE)] == LARGE
    first, second = [each for each in registry.seen if each.method == "PATCH"]
    assert "Content-Range" not in first.headers
    begin = int(second.headers["Content-Range"].partition("-")[0])
    assert begin >= 3_000_000
    assert int(second.headers["Content-Length"]) == len(LARGE) - begin
    assert registry.count("POST .*uploads") == 1


async def test_a_registry_that_has_forgotten_it_gets_it_anew(registry: Registry) -> None:
    registry.fault("PATCH", breaks_after(3_000_000, registry))
    registry.fault("GET .*uploads/session", answers(404, "BLOB_UPLOAD_UNKNOWN"))
    await push(registry, LARGE)
    assert registry.blobs[digest_of(LARGE)] == LARGE
    assert registry.count("POST .*uploads") == 2


async def test_another_place_than_the_registrys(registry: Registry) -> None:
    """docker-registry's own state may be behind what it has stored."""
    registry.fault("PATCH", breaks_after(3_000_000, registry))
    registry.fault("GET .*uploads/session", breaks_after(0))
    await push(registry, LARGE)
    assert registry.blobs[digest_of(LARGE)] == LARGE


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_a_lost_answer(registry: Registry, data: bytes) -> None:
    """The registry has it, and the connection broke before it could say so."""

    async def stores(request: web.Request) -> web.StreamResponse:
        await registry._upload(request, "team/app", request.path.rpartition("/")[2])
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    registry.fault("PUT .*uploads", stores)
    await push(registry, data)
    assert registry.count("PUT .*uploads") == 1


async def test_a_stumbling_registry(registry: Registry) -> None:
    registry.fault("POST .*uploads", answers(503))
    registry.fault("PUT .*uploads", answers(500))
    registry.fault("PUT .*uploads", answers(429, "TOOMANYREQUESTS", {"Retry-After": "0"}))
    await push(registry, SMALL)
    assert registry.blobs[digest_of(SMALL)] == SMALL


async def test_one_that_always_stumbles(registry: Registry) -> None:
    registry.fault("PUT .*uploads", answers(500), times=50)
    with pytest.raises(Unavailable, match="received unexpected HTTP status: 500"):
        await push(registry, SMALL)
    assert registry.count("PUT .*uploads") == QUICK.attempts


async def test_one_that_reads_nothing(registry: Registry) -> None:
    async def stalls(request: web.Request) -> web.Response:
        await asyncio.sleep(3)
        return web.Response(status=500)

    registry.fault("PATCH", stalls)
    begun = asyncio.get_running_loop().time()
    await push(registry, LARGE)
    assert registry.blobs[digest_of(LARGE)] == LARGE
    assert asyncio.get_running_loop().time() - begun < 3


async def test_bodies_that_are_too_large_go_in_pieces(registry: Registry) -> None:
    """As behind a proxy with a limit."""

    async def limit(request: web.Request) -> web.Response | None:
        if (request.content_length or 0) <= 8 << 20:
            return None
        await request.read()
        return web.Response(status=413, text="<html>Request Entity Too Large</html>", content_type="text/html")

    registry.fault("(PATCH|PUT) .*uploads", limit, times=20)
    await push(registry, LARGE)
    assert registry.blobs[digest_of(LARGE)] == LARGE
    pieces = [each.headers.get("Content-Range") for each in registry.seen if each.method == "PATCH"]
    assert pieces == [None, "0-8388607", "8388608-8999999"]


async def test_a_mount(registry: Registry) -> None:
    registry.add_blob(SMALL)
    registry.mountable.add("team/base")
    assert await push(registry, SMALL, ["team/other", "team/base"]) == ("team/base", [])
    # What the first try began is given up.
    assert [each.method for each in registry.seen[-3:]] == ["POST", "DELETE", "POST"]
    assert registry.count("PUT") == 0


async def test_a_mount_that_is_declined(registry: Registry) -> None:
    assert (await push(registry, SMALL, ["team/other"]))[0] == ""
    assert registry.blobs[digest_of(SMALL)] == SMALL


async def test_a_mount_asks_for_the_other_repository_too(registry: Registry) -> None:
    registry.auth = "bearer"
    alice = Credentials(username="alice", password="secret")
    await push(registry, SMALL, ["team/base"], alice)
    assert "repository:team/base:pull" in registry.token_requests[0]["scopes"]


async def test_a_denial(registry: Registry) -> None:
    registry.fault("POST .*uploads", answers(403, "DENIED"))
    with pytest.raises(Forbidden, match="denied: so it is"):
        await push(registry, SMALL)
    assert registry.count("POST") == 1


async def test_uploads_are_not_led_to_another_host(registry: Registry, other: Registry) -> None:
    async def leads(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=307, headers={"Location": f"http://{other.address}/v2/x/blobs/uploads/1"})

    registry.fault("PUT .*uploads", leads)
    with pytest.raises(Unavailable, match="it is led to another host"):
        await push(registry, SMALL)
    assert other.seen == []


async def test_a_place_elsewhere_gets_no_credentials(registry: Registry, other: Registry) -> None:
    """Cloud registries send uploads to their storage by `Location`: it signs its addresses."""
    registry.auth = "basic"

    async def elsewhere(request: web.Request) -> web.Response | None:
        if "Authorization" not in request.headers:
            return None
        other.uploads["there"] = bytearray()
        place = f"http://{other.address}/v2/x/blobs/uploads/there?signed=1"
        return web.Response(status=202, headers={"Location": place})

    registry.fault("POST .*uploads", elsewhere, times=2)
    await push(registry, SMALL, credentials=Credentials(username="alice", password="secret"))
    assert other.blobs[digest_of(SMALL)] == SMALL
    assert all("Authorization" not in each.headers for each in other.seen)
