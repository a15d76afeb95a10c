"""A request as the routes see it: its path's parameters, its query as Docker reads it, its body decoded once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import web

from sampan.errors import InvalidArgument

T = TypeVar("T")

_FALSE = frozenset({"", "0", "no", "false", "none"})
_MAX_DOCUMENT = 16 << 20


def _decoded(body: bytes, kind: type[T]) -> T:
    """As Go reads it: a member that is null is as one that is not there. docker-py sends null for what it does not say.

    Raises msgspec.DecodeError.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        if b"null" not in body:
            raise
    return msgspec.convert(_without_null(msgspec.json.decode(body)), kind)


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value


class Request(web.BaseRequest):
    """`match_info` holds the path's parameters; `api_version` what the client asked for, such as (1, 51)."""

    match_info: dict[str, str]
    api_version: tuple[int, int]

    def text_parameter(self, name: str, default: str = "") -> str:
        """A query parameter as text; the first one if it is repeated."""
        return self.query.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter, by Docker's rule: absent: the default; empty, 0, no, false, none: false."""
        value = self.query.get(name)
        if value is None:
            return default
        return value.strip().lower() not in _FALSE

    def integer(self, name: str, default: int | None = None) -> int | None:
        """A query parameter that is a whole number; InvalidArgument when it is something else."""
        value = self.query.get(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise InvalidArgument(f"invalid value {value!r} for {name}: not a whole number") from None

    def window(self) -> tuple[int, int]:
        """Height and width of a terminal. Raises InvalidArgument in Docker's words."""
        sizes: list[int] = []
        for name, called in (("h", "height"), ("w", "width")):
            value = self.query.get(name, "")
            if not value.isdigit():
                raise InvalidArgument(f'invalid resize {called} "{value}": invalid syntax')
            sizes.append(int(value))
        return sizes[0], sizes[1]

    def filters(self) -> dict[str, list[str]]:
        """The `filters` parameter: `{"name": ["value", …]}`, or the `{"name": {"value": true}}` of older clients."""
        value = self.query.get("filters")
        if not value:
            return {}
        try:
            document = msgspec.json.decode(value, type=dict[str, list[str] | dict[str, bool]])
        except msgspec.DecodeError:
            raise InvalidArgument("invalid filter") from None
        return {
            name: list(values) if isinstance(values, list) else [each for each, wanted in values.items() if wanted]
            for name, values in document.items()
        }

    async def document(self, kind: type[T]) -> T:
        """The JSON body as `kind`; an empty body counts as `{}`. InvalidArgument for whatever does not decode, and for
        a body that is not called JSON: a browser's form must not make containers."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in self.content.iter_any():
            size += len(chunk)
            if size > _MAX_DOCUMENT:
                raise InvalidArgument("the request's body is too large")
            chunks.append(chunk)
        body = b"".join(chunks)
        if body and self.content_type != "application/json":
            raise InvalidArgument(
                f"unsupported Content-Type header ({self.headers.get('Content-Type', '')}): must be 'application/json'"
            )
        try:
            return _decoded(body if body.strip() else b"{}", kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f"invalid JSON: {error}") from None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes in, for archives."""
        return self.content.iter_any()


def json_response(document: object, status: int = 200) -> web.Response:
    """A msgspec struct (or a list or dict of them) as JSON, with the line end that Docker's engine writes."""
    return web.Response(status=status, body=msgspec.json.encode(document) + b"\n", content_type="application/json")
