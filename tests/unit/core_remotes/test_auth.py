"""Challenges and answers, and to whom credentials go."""

from __future__ import annotations

import pytest
from aiohttp import web

from sampan.core.remotes.auth import Challenge, parse_challenges
from sampan.core.remotes.login import login
from sampan.core.remotes.remote import Remote
from sampan.core.remotes.settings import Credentials
from sampan.errors import Forbidden, Unauthorized, Unavailable
from sampan.oci.image import Descriptor
from sampan.oci.reference import Reference
from tests.unit.core_remotes.served import Registry, error, run_blocking, settings

ALICE = Credentials(username="alice", password="secret")


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        (
            ['Bearer realm="https://a/t?x=1,2",service="the \\"s\\"",scope="repository:a:pull,push"'],
            [Challenge("bearer", {
                "realm": "https://a/t?x=1,2", "service": 'the "s"', "scope": "repository:a:pull,push",
            })],
        ),
        (["Basic realm=plain"], [Challenge("basic", {"realm": "plain"})]),
        (
            ['Negotiate, Basic realm="x", charset="UTF-8"'],
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "x", "charset": "UTF-8"})],
        ),
        (["BEARER Realm = r", "Basic"], [Challenge("bearer", {"realm": "r"}), Challenge("basic", {})]),
        ([""], []),
        (['="x"'], [Challenge("x", {})]),
    ],
)  # fmt: skip
def test_challenges(headers: list[str], challenges: list[Challenge]) -> None:
    assert parse_challenges(headers) == challenges


def remote(registry: Registry, credentials: Credentials | None = None, actions: str = "pull") -> Remote:
    reference = Reference(registry.address, "team/app", "v1")
    return Remote(reference, settings(), run_blocking, credentials, actions=actions)


async def read(registry: Registry, wanted: Descriptor, credentials: Credentials | None = None) -> bytes:
    async with remote(registry, credentials) as found:
        source = await found.origin()
        return b"".join([piece async for piece in source.blob(wanted)])


async def test_basic(registry: Registry) -> None:
    registry.auth = "basic"
    wanted = registry.add_blob(b"content")
    assert await read(registry, wanted, ALICE) == b"content"
    with pytest.raises(Unauthorized, match=r"^no basic auth credentials$"):
        await read(registry, wanted)
    with pytest.raises(Unauthorized, match="authentication required"):
        await read(registry, wanted, Credentials(username="alice", password="wrong"))


async def test_bearer_asks_for_its_scope(registry: Registry) -> None:
    registry.auth = "bearer"
    wanted = registry.add_blob(b"content")
    assert await read(registry, wanted, ALICE) == b"content"
    asked = registry.token_requests[0]
    assert asked["scopes"] == ["repository:team/app:pull"]
    assert (asked["service"], asked["account"], asked["method"]) == ("test registry", "alice", "GET")
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        await read(registry, wanted, Credentials(username="alice", password="wrong"))


async def test_a_push_asks_for_both_scopes(registry: Registry) -> None:
    registry.auth = "bearer"
    registry.add_image("v1", b"{}", [])
    async with remote(registry, ALICE, "pull,push") as found:
        await (await found.origin()).manifest("v1")
    assert "repository:team/app:pull,push" in registry.token_requests[0]["scopes"]


async def test_an_identity_goes_in_a_form(registry: Registry) -> None:
    registry.auth = "bearer"
    wanted = registry.add_blob(b"content")
    assert await read(registry, wanted, Credentials(identity_token="identity-of-alice")) == b"content"
    asked = registry.token_requests[0]
    assert (asked["method"], asked["grant_type"], asked["header"]) == ("POST", "refresh_token", "")
    assert (asked["scope"], asked["client_id"]) == ("repository:team/app:pull", "sampan")


async def test_a_registry_token_goes_as_it_is(registry: Registry) -> None:
    registry.auth = "bearer"
    registry._tokens["given"] = 1
    wanted = registry.add_blob(b"content")
    given = Credentials(registry_token="given")
    assert await read(registry, wanted, given) == b"content"
    with pytest.raises(Unauthorized):
        await read(registry, wanted, given)
    assert registry.token_requests == []


async def test_a_token_that_ends_is_replaced(registry: Registry) -> None:
    registry.auth, registry.uses = "bearer", 1
    wanted = registry.add_blob(b"content")
    async with remote(registry, ALICE) as found:
        source = await found.origin()
        for _ in range(3):
            assert b"".join([piece async for piece in source.blob(wanted)]) == b"content"
    assert len(registry.token_requests) == 3


async def test_too_small_a_scope_is_a_denial(registry: Registry) -> None:
    async def denied(request: web.Request) -> web.Response:
        challenge = f'Bearer realm="http://{registry.address}/token",error="insufficient_scope"'
        return error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    registry.auth = "bearer"
    registry.fault("manifests", denied, times=2)
    with pytest.raises(Forbidden, match=r"^denied: requested access to the resource is denied$"):
        async with remote(registry, ALICE) as found:
            await found.manifest("v1")
    assert len(registry.token_requests) == 1


@pytest.mark.parametrize("realm", ["http://token.example/", "ftp://127.0.0.1/", "/token", "http://a:b@127.0.0.1/", ""])
async def test_realms_that_get_no_password(registry: Registry, realm: str) -> None:
    async def asks(request: web.Request) -> web.Response:
        return error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": f'Bearer realm="{realm}"'})

    registry.fault("manifests", asks, times=5)
    with pytest.raises(Unavailable, match=r"over plain HTTP|which is no address"):
        async with remote(registry, ALICE) as found:
            await found.manifest("v1")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_credentials_are_not_led_to_another_host(registry: Registry, other: Registry, auth: str) -> None:
    registry.auth = auth
    wanted = registry.add_blob(b"content")
    other.blobs = registry.blobs

    async def leads(request: web.Request) -> web.Response | None:
        if "Authorization" not in request.headers:
            return None  # Challenged first.
        place = f"http://{other.address}/v2/elsewhere/blobs/{wanted.digest}"
        return web.Response(status=307, headers={"Location": place})

    registry.fault("blobs", leads, times=2)
    assert await read(registry, wanted, ALICE) == b"content"
    assert [each.path for each in other.seen] == [f"/v2/elsewhere/blobs/{wanted.digest}"]
    assert "Authorization" not in other.seen[0].headers


async def test_who_one_is_led_to_may_not_ask_for_credentials(registry: Registry, other: Registry) -> None:
    """A challenge from there would send the password to a realm of its choice."""
    wanted = registry.add_blob(b"content")
    other.auth = "bearer"

    async def leads(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": f"http://{other.address}/v2/x/blobs/{wanted.digest}"})

    registry.fault("blobs", leads)
    with pytest.raises(Unauthorized):
        await read(registry, wanted, ALICE)
    assert other.token_requests == []


async def test_a_token_is_not_led_to_another_host(registry: Registry, other: Registry) -> None:
    registry.auth = "bearer"

    async def leads(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"http://{other.address}/token"})

    registry.fault("POST /token", leads, times=5)
    with pytest.raises(Unavailable, match="it is led to another host"):
        await read(registry, registry.add_blob(b""), Credentials(identity_token="identity-of-alice"))
    assert other.seen == []


@pytest.mark.parametrize(("auth", "identity"), [("", ""), ("basic", ""), ("bearer", "identity-of-alice")])
async def test_login(registry: Registry, auth: str, identity: str) -> None:
    registry.auth = auth
    assert await login(registry.address, ALICE, settings(), run_blocking) == identity
    assert await login(f"http://{registry.address}/v2/", ALICE, settings(), run_blocking) == identity
    if auth:
        with pytest.raises(Unauthorized):
            await login(registry.address, Credentials(username="alice", password="no"), settings(), run_blocking)


async def test_login_with_an_identity(registry: Registry) -> None:
    registry.auth = "bearer"
    given = Credentials(username="alice", identity_token="identity-of-alice")
    assert await login(registry.address, given, settings(), run_blocking) == ""
    assert registry.token_requests[0]["method"] == "POST"


async def test_what_is_not_json(registry: Registry) -> None:
    async def html(request: web.Request) -> web.Response:
        return web.Response(text="<html>sign in to the hotel's network</html>", content_type="text/html")

    registry.auth = "bearer"
    registry.fault("/token", html)
    with pytest.raises(Unavailable, match="does not decode"):
        await read(registry, registry.add_blob(b""), ALICE)
