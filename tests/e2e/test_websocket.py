"""Attached over a websocket, as browsers do it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")
_ALL = "stream=1&stdin=1&stdout=1&stderr=1"


def _created(engine: Engine, *command: str, **members: Any) -> str:
    body = {"Image": "box", "Cmd": list(command), "HostConfig": {"NetworkMode": "none"}, **members}
    return str(engine.client.call("POST", "/containers/create", body)["Id"])


def _talk(engine: Engine, container: str, query: str, *words: bytes, version: str = "v1.51") -> list[Any]:
    """What comes, after the container is started and these are typed."""

    async def talk() -> list[Any]:
        connector = aiohttp.UnixConnector(engine.paths.socket)
        found: list[Any] = []
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://d/{version}/containers/{container}"
            async with session.ws_connect(f"{url}/attach/ws?{query}") as client:
                async with session.post(f"{url}/start") as response:
                    assert response.status in (204, 304)
                for word in words:
                    await client.send_bytes(word)
                async for message in client:
                    found.append(message.data)
        return found

    return asyncio.run(asyncio.wait_for(talk(), 30))


def test_both_ways_until_the_end(engine: Engine) -> None:
    container = _created(
        engine, "sh", "-c", "read a; echo got $a; echo bad >&2; read b; echo and $b", OpenStdin=True, StdinOnce=True
    )
    said = b"".join(_talk(engine, container, _ALL, b"one\n", b"two\n"))
    assert sorted(said.splitlines()) == [b"and two", b"bad", b"got one"]  # Two streams have no order between them.
    engine.client.call("POST", f"/containers/{container}/wait")
    assert engine.left_over() == []


def test_one_stream_and_text(engine: Engine) -> None:
    container = _created(engine, "sh", "-c", "echo out; echo bad >&2")
    assert "".join(_talk(engine, container, "stream=1&stdout=1", version="v1.27")) == "out\n"


def test_detach_keys(engine: Engine) -> None:
    container = _created(engine, "sleep", "600", OpenStdin=True, Tty=True)
    _talk(engine, container, f"{_ALL}&detachKeys=ctrl-x", b"\x18")
    assert engine.client.call("GET", f"/containers/{container}/json")["State"]["Status"] == "running"


@pytest.mark.parametrize(("name", "status"), [("nosuch", 404), ("there", 400)])
def test_refused(engine: Engine, name: str, status: int) -> None:
    engine.docker("create", "--name", "there", "box", "true", check=True)

    async def ask() -> int:
        connector = aiohttp.UnixConnector(engine.paths.socket)
        url = f"http://d/containers/{name}/attach/ws"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            return response.status

    assert asyncio.run(ask()) == status
