"""Answers that go on: JSON messages one after another, and raw bytes."""

from __future__ import annotations

from types import TracebackType

import msgspec
from aiohttp import web

from sampan.engine.http.errors import error_response, status_of
from sampan.engine.http.request import Request
from sampan.engine.http.router import HEADERS
from sampan.errors import SampanError


class MessageStream:
    """A stream of JSON messages, begun with the first of them, so that an early failure still gets its own status.

    Used as `async with MessageStream(request) as stream: await stream.send(struct)`, then `return stream.response`.
    A `SampanError` inside, once the stream has begun, becomes Docker's `{"errorDetail": …, "error": …}` message.
    """

    def __init__(self, request: Request, content_type: str = "application/json") -> None:
        self._request = request
        self._content_type = content_type
        self._response: web.StreamResponse | None = None
        self._encoder = msgspec.json.Encoder()

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        assert self._response is not None
        return self._response

    async def begin(self) -> web.StreamResponse:
        """Send the head, if it is not out yet."""
        if not isinstance(self._response, web.StreamResponse):
            self._response = web.StreamResponse(headers={**HEADERS, "Content-Type": self._content_type})
            await self._response.prepare(self._request)
        return self._response

    async def send(self, message: object) -> None:
        """Write one message; raises ConnectionError when the client has gone."""
        response = await self.begin()
        await response.write(self._encoder.encode(message) + b"\r\n")

    async def __aenter__(self) -> MessageStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            await self.begin()
            return False
        if not isinstance(error, SampanError):
            return False
        if self._response is None:
            self._response = error_response(status_of(error), error.message)
            return True
        await self.send({"errorDetail": {"message": error.message}, "error": error.message})
        return True
