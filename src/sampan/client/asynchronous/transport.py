"""HTTP/1.1 with an engine on asyncio's streams: requests, answers, and connections that become streams. RFC 9112."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable

from sampan.client.http import Head, Host, request_head
from sampan.errors import Unavailable

_CHUNK = 1 << 16
_MAX_HEAD = 1 << 16
_KEPT = 8
"""Connections that wait for the next call."""

Body = bytes | Iterable[bytes] | AsyncIterable[bytes] | None


def _broken(error: OSError | None = None) -> Unavailable:
    why = (error.strerror or str(error)).lower() if error is not None else "closed"
    return Unavailable(f"the engine's connection broke: {why}")


class Connection:
    """A stream in both directions, each of which ends by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def receive(self) -> bytes:
        """Empty at the end."""
        try:
            return await self.reader.read(_CHUNK)
        except ConnectionError:
            return b""

    async def send(self, data: bytes) -> None:
        """Raises Unavailable when nobody reads."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise _broken(error) from error

    async def end_output(self) -> None:
        """No more comes from here."""
        if self.writer.can_write_eof():
            self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


class Response:
    """An answer whose body is read as it is wanted. After the whole of it, the connection is the next call's."""

    def __init__(self, transport: Transport, connection: Connection, head: Head) -> None:
        self._transport = transport
        self._connection = connection
        self._head = head
        self._ended = head.length == 0
        self.status = head.status
        self.headers = head.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece, as it comes."""
        reader = self._connection.reader
        try:
            if self._head.chunked:
                while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                    while size:
                        data = await self._some(size)
                        size -= len(data)
                        yield data
                    await reader.readuntil(b"\r\n")
                while (await reader.readuntil(b"\r\n")) != b"\r\n":
                    continue
            elif self._head.length is None:
                while data := await reader.read(_CHUNK):
                    yield data
                return
            else:
                left = self._head.length
                while left:
                    data = await self._some(left)
                    left -= len(data)
                    yield data
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise Unavailable("the engine's answer ends early") from error
        except OSError as error:
            raise _broken(error) from error
        self._ended = True

    async def _some(self, most: int) -> bytes:
        data = await self._connection.reader.read(min(most, _CHUNK))
        if not data:
            raise Unavailable("the engine's answer ends early")
        return data

    async def read(self) -> bytes:
        """The whole body, or what is left of it."""
        try:
            return b"".join([data async for data in self.chunks()])
        finally:
            await self.close()

    async def close(self) -> None:
        """Give the connection back, or up where not all was read."""
        if self._ended and self._head.keeps:
            await self._transport.give_back(self._connection)
        else:
            await self._connection.close()

    async def take(self) -> Connection:
        """The connection of an upgraded answer."""
        return self._connection


class Transport:
    """Where the engine is, and the connections to it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._idle: list[Connection] = []

    async def request(self, method: str, target: str, headers: dict[str, str], body: Body) -> Response:
        """Raises Unavailable."""
        connection = await self._connection()
        try:
            await _send(connection, method, target, headers, body)
            head = Head(await _head(connection.reader), bodiless=method == "HEAD")
        except BaseException:
            await connection.close()
            raise
        return Response(self, connection, head)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            await connection.close()
        connected = await asyncio.get_running_loop().run_in_executor(None, self.host.connect)
        return Connection(*await asyncio.open_connection(sock=connected, limit=_MAX_HEAD))

    async def give_back(self, connection: Connection) -> None:
        """It is free for another call."""
        if len(self._idle) < _KEPT:
            self._idle.append(connection)
        else:
            await connection.close()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n\r\n"))[:-4]
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unavailable("the engine closed the connection") from error
    except OSError as error:
        raise _broken(error) from error


async def _send(connection: Connection, method: str, target: str, headers: dict[str, str], body: Body) -> None:
    writer = connection.writer
    try:
        writer.write(request_head(method, target, headers, body))
        if isinstance(body, AsyncIterable):
            async for data in body:
                writer.write(b"%x\r\n%s\r\n" % (len(data), data) if data else b"")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        elif isinstance(body, bytes):
            writer.write(body)
        elif body is not None:
            for data in body:
                writer.write(b"%x\r\n%s\r\n" % (len(data), data) if data else b"")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        await writer.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # The engine has refused the body half-way: its answer says why.
    except OSError as error:
        raise _broken(error) from error
