"""The one table from kinds of errors to HTTP status, and the document that carries a message to the client."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sampan import errors

STATUS: dict[type[errors.SampanError], int] = {
    errors.InvalidArgument: 400,
    errors.CommandNotFound: 400,
    errors.CommandNotExecutable: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.Unsupported: 501,
    errors.Unavailable: 503,
    errors.ResourceExhausted: 500,
    errors.DataCorrupt: 500,
    errors.Internal: 500,
}


class ErrorDocument(msgspec.Struct, frozen=True):
    """What every failed call answers with (Docker Engine API, `ErrorResponse`)."""

    message: str


def status_of(error: BaseException) -> int:
    """The HTTP status for an error; 500 for what is not of the taxonomy."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def error_response(status: int, message: str) -> web.Response:
    """An error as Docker's clients expect it; 304 has no body, as HTTP wants."""
    if status == 304:
        return web.Response(status=304)
    body = msgspec.json.encode(ErrorDocument(message)) + b"\n"
    return web.Response(status=status, body=body, content_type="application/json")
