"""Routes served on a unix socket, and a client that shows every byte."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from sampan.engine.http.connection import Server
from sampan.engine.http.request import Request
from sampan.engine.http.router import RouteDef, Router


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection, kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, method: str, path: str, body: bytes = b"", headers: Sequence[str] = (), after: bytes = b"") -> None:
        """Write a request, and `after` behind it in the same write."""
        lines = [f"{method} {path} HTTP/1.1", "Host: docker", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
            if not any(each.lower().startswith("content-type:") for each in headers):
                lines.append("Content-Type: application/json")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body + after)

    async def head(self) -> tuple[int, dict[str, str]]:
        status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(status_line.split()[1]), headers

    async def receive(self, *, has_body: bool = True) -> Answer:
        status, headers = await self.head()
        if not has_body or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while chunk := await self.chunk():
                body += chunk
            return Answer(status, headers, body)
        return Answer(status, headers, await self.reader.readexactly(int(headers["Content-Length"])))

    async def chunk(self) -> bytes:
        size = int(await self.reader.readline(), 16)
        chunk = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return chunk

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Sequence[str] = ()) -> Answer:
        self.send(method, path, body, headers)
        return await self.receive(has_body=method != "HEAD")

    def close(self) -> None:
        self.writer.close()


class Served:
    def __init__(self, path: pathlib.Path, server: Server, router: Router) -> None:
        self.path = path
        self.server = server
        self.router = router

    async def connect(self) -> Client:
        return Client(*await asyncio.open_unix_connection(str(self.path)))


@contextlib.asynccontextmanager
async def serve(directory: pathlib.Path, routes: Sequence[RouteDef]) -> AsyncIterator[Served]:
    loop = asyncio.get_running_loop()
    router = Router(routes)
    server = Server(
        router, request_factory=partial(Request, loop=loop), handler_cancellation=True, access_log=None,
        auto_decompress=False,
    )  # fmt: skip
    path = directory / "http.sock"
    listener = await loop.create_unix_server(server, str(path))
    try:
        yield Served(path, server, router)
    finally:
        listener.close()
        router.cancel_streams()
        await server.end(1)
