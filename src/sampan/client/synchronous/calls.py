"""Calls: documents out and in, errors as the kinds that stand behind a status, the version that both sides speak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from sampan.api.containers import APIStruct
from sampan.client.client import API_VERSION, failure, query_string
from sampan.client.documents import decode, encode
from sampan.client.synchronous.transport import Body, Connection, Response, Transport
from sampan.errors import SampanError

T = TypeVar("T")
_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


class Calls:
    """One engine. The version is agreed on by the first call: the older of the two sides'."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.version = (0, 0)
        """Of the API, once agreed on."""

    def agree(self) -> tuple[int, int]:
        """The version to speak. Raises Unavailable."""
        if self.version == (0, 0):
            response = self._transport.request("GET", "/_ping", {}, None)
            theirs = response.headers.get("api-version", "1.24")
            response.read()
            self.version = min(_number(theirs), _number(API_VERSION))
        return self.version

    def open(
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
        major, minor = self.agree()
        fields = dict(headers or {})
        if document is not None:
            body = encode(document)
            fields["Content-Type"] = "application/json"
        target = f"/v{major}.{minor}{path}"
        if text := query_string({**query, **(parameters or {})}):
            target += "&" + text[1:] if "?" in path else text
        response = self._transport.request(method, target, fields, body)
        if response.status >= 400 or response.status == 304:
            raise failure(response.status, response.read())
        return response

    def document(self, kind: type[T], response: Response) -> T:
        """The whole answer as one document. Raises DataCorrupt."""
        return decode(response.read(), kind)

    def done(self, response: Response) -> None:
        """An answer that says no more than its status."""
        response.read()

    def messages(self, kind: type[T], response: Response) -> Iterator[T]:
        """The JSON messages of a stream, a line each. Raises DataCorrupt, and what a message tells of an error."""
        rest = b""
        try:
            for data in response.chunks():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _message(line, kind)
            if rest.strip():
                yield _message(rest, kind)
        finally:
            response.close()

    def pieces(self, response: Response) -> Iterator[bytes]:
        """The answer's bytes, as they come."""
        try:
            for data in response.chunks():
                yield data
        finally:
            response.close()

    def upgrade(
        self, path: str, document: APIStruct | None = None, **query: object
    ) -> tuple[Connection, dict[str, str]]:  # fmt: skip
        """A call that turns its connection into a stream; with the answer's headers."""
        response = self.open("POST", path, document, headers=_UPGRADE, parameters=query)
        return response.take(), response.headers

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()


def _number(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


class _Failure(msgspec.Struct, frozen=True):
    error: str = ""


def _message(line: bytes, kind: type[T]) -> T:
    if b'"error"' in line and (text := decode(line, _Failure).error):
        raise SampanError(text)
    return decode(line, kind)
