"""Calls: documents out and in, errors as the kinds that stand behind a status, the version that both sides speak."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TypeVar

import msgspec

from sampan.api.containers import APIStruct
from sampan.client.asynchronous.transport import Body, Connection, Response, Transport
from sampan.client.client import API_VERSION, failure, query_string
from sampan.client.documents import decode, encode
from sampan.errors import SampanError

T = TypeVar("T")
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class Calls:
    """One engine. The version is agreed on by the first call: the older of the two sides'."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.version = (0, 0)
        """Of the API, once agreed on."""

    async def agree(self) -> tuple[int, int]:
        """The version to speak. Raises Unavailable."""
        if self.version == (0, 0):
            response = await self._transport.request("GET", "/_ping", {}, None)
            theirs = response.headers.get("api-version", "1.24")
            await response.read()
            self.version = min(_number(theirs), _number(API_VERSION))
        return self.version

    async def open(
        self,
        method: str,
        path: str,
        document: APIStruct | None = None,
        /,
        *,
        body: Body = None,
        headers: dict[str, str] | None = None,
        parameters: Mapping[str, object] | None = None,
        **query: object,
    ) -> Response:
        """An answer that is no error, to be read. `parameters`: of the query, besides those named.

        Raises the kind that stands behind the status.
        """
        major, minor = await self.agree()
        fields = dict(headers or {})
        if document is not None:
            body = encode(document)
            fields["Content-Type"] = "application/json"
        target = f"/v{major}.{minor}{path}"
        if text := query_string({**query, **(parameters or {})}):
            target += "&" + text[1:] if "?" in path else text
        response = await self._transport.request(method, target, fields, body)
        if response.status >= 400 or response.status == 304:
            raise failure(response.status, await response.read())
        return response

    async def document(self, kind: type[T], response: Response) -> T:
        """The whole answer as one document. Raises DataCorrupt."""
        return decode(await response.read(), kind)

    async def done(self, response: Response) -> None:
        """An answer that says no more than its status."""
        await response.read()

    async def messages(self, kind: type[T], response: Response) -> AsyncIterator[T]:
        """The JSON messages of a stream, a line each. Raises DataCorrupt, and what a message tells of an error."""
        rest = b""
        try:
            async for data in response.chunks():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _message(line, kind)
            if rest.strip():
                yield _message(rest, kind)
        finally:
            await response.close()

    async def pieces(self, response: Response) -> AsyncIterator[bytes]:
        """The answer's bytes, as they come."""
        try:
            async for data in response.chunks():
                yield data
        finally:
            await response.close()

    async def upgrade(
        self, path: str, document: APIStruct | None = None, **query: object
    ) -> tuple[Connection, dict[str, str]]:  # fmt: skip
        """A call that turns its connection into a stream; with the answer's headers."""
        response = await self.open("POST", path, document, headers=_UPGRADE, parameters=query)
        return await response.take(), response.headers

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._transport.close()


def _number(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


class _Failure(msgspec.Struct, frozen=True):
    error: str = ""


def _message(line: bytes, kind: type[T]) -> T:
    if b'"error"' in line and (text := decode(line, _Failure).error):
        raise SampanError(text)
    return decode(line, kind)
