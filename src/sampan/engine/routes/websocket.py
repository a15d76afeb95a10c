"""`GET /containers/{id}/attach/ws`: a container's streams over a websocket (RFC 6455), for browsers.

The shim has one end of a socket pair, as it has any client's connection; frames are packed and unpacked here, so that
unlike a plain attach this one ends with the engine. Output comes in binary frames (API 1.28) and is never multiplexed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from sampan.engine.containers.detach import parse_detach_keys
from sampan.engine.http.request import Request
from sampan.engine.http.router import RouteDef
from sampan.errors import Conflict, InvalidArgument, SampanError
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_CHUNK = 1 << 15


async def _relay(ours: socket.socket, client: web.WebSocketResponse, *, binary: bool) -> None:
    """Until the container or the client has ended."""
    loop = asyncio.get_running_loop()

    async def to_client() -> None:
        while data := await loop.sock_recv(ours, _CHUNK):
            if binary:
                await client.send_bytes(data)
            else:
                await client.send_str(data.decode("utf-8", "replace"))
        await client.close()

    telling = asyncio.ensure_future(to_client())
    try:
        async for message in client:
            if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                data = message.data if isinstance(message.data, bytes) else message.data.encode()
                await loop.sock_sendall(ours, data)
    except ConnectionError:
        pass  # The container has ended.
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await telling


def routes(engine: Engine) -> list[RouteDef]:
    async def attach(request: Request) -> web.StreamResponse:
        container = engine.containers.resolve(request.match_info["id"])
        if container.paused:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.restarting:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        keys = parse_detach_keys(request.text_parameter("detachKeys"))
        client = web.WebSocketResponse(compress=False)
        if not client.can_prepare(request).ok:
            raise InvalidArgument("not websocket protocol")
        await client.prepare(request)
        stream, config = request.flag("stream"), container.record.config
        attachment = msg.Attachment(
            stdin=request.flag("stdin") and stream and config.open_stdin, stdout=request.flag("stdout") and stream,
            stderr=request.flag("stderr") and stream, framed=False, detach_keys=keys if config.tty else b"",
        )  # fmt: skip
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            engine.containers.publish(container, "attach")
            if container.task is not None:
                with contextlib.suppress(SampanError):
                    await container.task.attach(attachment, os.dup(theirs.fileno()))
            else:
                container.pending.append((os.dup(theirs.fileno()), attachment))
            theirs.close()
            await _relay(ours, client, binary=request.api_version >= (1, 28))
        return client

    return [RouteDef("GET", "/containers/{id}/attach/ws", attach, cancellable=True)]
