"""Searching, where there is a search."""

from __future__ import annotations

import pytest
from aiohttp import web

from sampan.core.remotes.search import Result, search, split_term
from sampan.core.remotes.settings import Credentials
from sampan.errors import Unavailable, Unsupported
from tests.unit.core_remotes.served import Registry, run_blocking, settings


@pytest.mark.parametrize(
    ("term", "host", "wanted"),
    [
        ("nginx", "index.docker.io", "nginx"), ("library/nginx", "index.docker.io", "nginx"),
        ("somebody/thing", "index.docker.io", "somebody/thing"), ("docker.io/a/b", "index.docker.io", "a/b"),
        ("localhost/x", "localhost", "x"), ("r.example:5000/x y", "r.example:5000", "x y"),
    ],
)  # fmt: skip
def test_whom_to_ask(term: str, host: str, wanted: str) -> None:
    assert split_term(term) == (host, wanted)


def found(request: web.Request) -> web.Response:
    assert request.query["q"] == "a b&c"
    assert request.query["n"] == "7"
    return web.json_response({"num_results": 2, "results": [
        {"name": "x/y", "description": None, "star_count": 3, "is_official": False, "is_trusted": False},
        {"name": "z", "description": "Z", "star_count": 9, "is_official": True, "is_automated": True},
    ]})  # fmt: skip


async def test_what_is_found(registry: Registry) -> None:
    async def answers(request: web.Request) -> web.Response:
        return found(request)

    registry.fault("GET /v1/search", answers)
    alice = Credentials(username="alice", password="secret")
    results = await search(f"{registry.address}/a b&c", 7, settings(), run_blocking, alice)
    assert results == (
        Result(name="x/y", description=None, star_count=3),
        Result(name="z", description="Z", star_count=9, is_official=True, is_automated=True),
    )
    assert registry.seen[-1].headers["Authorization"].startswith("Basic ")


async def test_a_registry_without_a_search(registry: Registry) -> None:
    async def html(request: web.Request) -> web.Response:
        return web.Response(text="<html>", content_type="text/html")

    async def fails(request: web.Request) -> web.Response:
        return web.Response(status=503)

    with pytest.raises(Unsupported, match=f"registry {registry.address} has no search"):
        await search(f"{registry.address}/x", 7, settings(), run_blocking)
    registry.fault("GET /v1/search", html)
    with pytest.raises(Unsupported, match="has no search"):
        await search(f"{registry.address}/x", 7, settings(), run_blocking)
    registry.fault("GET /v1/search", fails, times=5)
    with pytest.raises(Unavailable, match="503"):
        await search(f"{registry.address}/x", 7, settings(), run_blocking)
