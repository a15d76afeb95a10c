"""Taking a connection: no byte of either direction is lost, whenever it comes, and a refusal leaves HTTP."""

from __future__ import annotations

import asyncio
import os
import pathlib
import select
import socket

import pytest
from aiohttp import web

from sampan.engine.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM, Hijacked, hijack, stream_type
from sampan.engine.http.request import Request
from sampan.engine.http.router import RouteDef
from sampan.errors import NotFound
from tests.unit.engine_http.served import serve

UPGRADE = ["Connection: Upgrade", "Upgrade: tcp"]


class Taken:
    """A route that takes its connection, and keeps it for the test."""

    def __init__(self, delay: float = 0.0) -> None:
        self.hijacked: asyncio.Future[Hijacked] = asyncio.get_running_loop().create_future()
        self._delay = delay
        self.body = b""

    async def handler(self, request: Request) -> web.StreamResponse | None:
        self.body = b"".join([chunk async for chunk in request.chunks()])
        await asyncio.sleep(self._delay)
        self.hijacked.set_result(await hijack(request, stream_type(request, tty=False)))
        return None

    async def shim(self) -> tuple[bytes, socket.socket]:
        """What was received early, and the connection as a shim would use it."""
        taken = await asyncio.wait_for(self.hijacked, 2)
        connection = socket.socket(fileno=taken.fd)
        connection.setblocking(False)
        return taken.received, connection

    @property
    def routes(self) -> list[RouteDef]:
        return [RouteDef("POST", "/attach", self.handler)]


async def _read(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        chunk = await asyncio.wait_for(loop.sock_recv(connection, size - len(data)), 2)
        assert chunk
        data += chunk
    return data


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_bytes_before_and_after(short_dir: pathlib.Path, delay: float) -> None:
    taken = Taken(delay)
    async with serve(short_dir, taken.routes) as served:
        client = await served.connect()
        # A body, and input right behind it in the same packet, that would make a bad request line.
        client.send("POST", "/attach", b'{"Tty":false}', UPGRADE, after=b"early \r\n\r\n")
        await client.writer.drain()
        await asyncio.sleep(delay / 2)
        client.writer.write(b"a little later ")
        status, headers = await client.head()
        received, connection = await taken.shim()
        assert (status, headers["Content-Type"]) == (101, MULTIPLEXED_STREAM)
        assert headers["Upgrade"] == "tcp"
        assert taken.body == b'{"Tty":false}'
        client.writer.write(b"late")
        expected = b"early \r\n\r\na little later late"
        with connection:
            assert received + await _read(connection, len(expected) - len(received)) == expected
            await asyncio.get_running_loop().sock_sendall(connection, b"output")
        # The server's own descriptor is closed: the client sees the end when the shim's is.
        assert await asyncio.wait_for(client.reader.read(), 2) == b"output"
        client.close()


async def test_without_an_upgrade(short_dir: pathlib.Path) -> None:
    """Clients of old say POST and go on with raw bytes after 200."""
    taken = Taken()
    async with serve(short_dir, taken.routes) as served:
        client = await served.connect()
        client.send("POST", "/v1.41/attach")
        status, headers = await client.head()
        received, connection = await taken.shim()
        assert (status, headers["Content-Type"], received) == (200, RAW_STREAM, b"")
        client.writer.write(b"input")
        with connection:
            assert await _read(connection, 5) == b"input"
        client.close()


@pytest.mark.parametrize("early", [False, True])
async def test_half_closed_input(short_dir: pathlib.Path, early: bool) -> None:
    """`echo x | docker run -i`: the client closes its sending half and waits for output."""
    taken = Taken(0.05)
    async with serve(short_dir, taken.routes) as served:
        client = await served.connect()
        client.send("POST", "/attach", b"", UPGRADE, after=b"x\n")
        if early:
            client.writer.write_eof()
        assert (await client.head())[0] == 101
        received, connection = await taken.shim()
        if not early:
            client.writer.write_eof()
        with connection:
            assert received + await _read(connection, 2 - len(received)) == b"x\n"
            assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
            await asyncio.get_running_loop().sock_sendall(connection, b"done")
        assert await asyncio.wait_for(client.reader.read(), 2) == b"done"
        client.close()


async def test_a_refused_upgrade_leaves_http(short_dir: pathlib.Path) -> None:
    async def refuse(request: Request) -> web.StreamResponse | None:
        await asyncio.sleep(0.02)
        raise NotFound("No such container: x")

    async def ping(request: Request) -> web.StreamResponse:
        return web.Response(text="OK")

    routes = [RouteDef("POST", "/attach", refuse), RouteDef("GET", "/_ping", ping)]
    async with serve(short_dir, routes) as served:
        client = await served.connect()
        # The next request is sent before the refusal is read.
        client.send("POST", "/attach", b"", UPGRADE, after=b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        refused = await client.receive()
        assert (refused.status, refused.body) == (404, b'{"message":"No such container: x"}\n')
        assert (await asyncio.wait_for(client.receive(), 2)).body == b"OK"
        assert (await client.ask("GET", "/_ping")).body == b"OK"
        client.close()


async def test_a_client_that_has_gone(short_dir: pathlib.Path) -> None:
    taken = Taken(0.05)
    async with serve(short_dir, taken.routes) as served:
        client = await served.connect()
        client.send("POST", "/attach", b"", UPGRADE)
        await client.writer.drain()
        client.writer.transport.abort()
        await asyncio.sleep(0.1)
        before = len(os.listdir("/proc/self/fd"))
        again = await served.connect()
        again.close()
        await asyncio.sleep(0.02)
        assert len(os.listdir("/proc/self/fd")) <= before
    if taken.hijacked.done():
        os.close(taken.hijacked.result().fd)


async def test_nothing_is_read_after_the_take(short_dir: pathlib.Path) -> None:
    """Input that comes when the connection is the shim's stays in the socket for the shim."""
    taken = Taken()
    async with serve(short_dir, taken.routes) as served:
        client = await served.connect()
        client.send("POST", "/attach", b"", UPGRADE)
        await client.head()
        received, connection = await taken.shim()
        with connection:
            for number in range(50):
                client.writer.write(b"%03d" % number)
                await asyncio.sleep(0)
            await client.writer.drain()
            assert select.select([connection], [], [], 1)[0]
            assert received + await _read(connection, 150) == b"".join(b"%03d" % number for number in range(50))
        client.close()
