"""A client's connection: aiohttp's request handler, with the hand-over of Docker's upgraded streams.

An attach or exec request asks for `Upgrade: tcp`: what follows the request on the connection is the process's
input and no HTTP. aiohttp knows the upgrade to websocket alone and would parse those bytes as the next request,
so they are kept aside here until `hijack` takes them with the connection.
"""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*(tcp|h2c)[ \t]*\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_MAX_EARLY = 1 << 20


class Connection(RequestHandler):
    """One client's connection. `early` is what came behind an upgrade request, in order."""

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.upgrading = False
        self.early = bytearray()
        self._body_left = 0

    def data_received(self, data: bytes) -> None:
        """Feed HTTP to the parser, and keep what comes behind an upgrade request."""
        if not self.upgrading:
            head_end = data.find(b"\r\n\r\n")
            head = data[: head_end + 2] if head_end >= 0 else b""
            if not head or not _UPGRADE.search(head):
                super().data_received(data)
                return
            self.upgrading = True
            length = _LENGTH.search(head)
            self._body_left = head_end + 4 + (int(length[1]) if length else 0)
        own, rest = data[: self._body_left], data[self._body_left :]
        self._body_left -= len(own)
        if own:
            super().data_received(own)
        if rest:
            self.early += rest
            if len(self.early) > _MAX_EARLY and self.transport is not None:
                self.transport.pause_reading()

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp never says True, asyncio allows it.
        """Input that ends before the take: the connection stays open for the output; the shim finds the end itself."""
        super().eof_received()
        return self.upgrading

    def declined(self) -> None:
        """The upgrade was answered with an error: go on with HTTP, with whatever came in the meantime."""
        if not self.upgrading:
            return
        self.upgrading = False
        early, self.early = bytes(self.early), bytearray()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            if early:
                super().data_received(early)


class Server(web.Server):
    """aiohttp's low-level server, with our connections."""

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    async def end(self, grace: float) -> None:
        """Close the connections that wait for a request, and after `grace` seconds those that are at one."""
        self.pre_shutdown()
        await self.shutdown(grace)
