"""`POST /images/create?fromImage=`: pull an image from a registry, telling how it goes."""

from __future__ import annotations

import base64
import binascii

import msgspec
from aiohttp import web

from sampan.api.images import RegistryAuth
from sampan.engine.http.request import Request
from sampan.engine.services import Engine
from sampan.errors import InvalidArgument, Unsupported


def credentials(request: Request) -> RegistryAuth:
    """The `X-Registry-Auth` header. Raises InvalidArgument for what does not decode."""
    header = request.headers.get("X-Registry-Auth", "")
    if not header:
        return RegistryAuth()
    try:
        document = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        return msgspec.json.decode(document or b"{}", type=RegistryAuth)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from None


async def pull(engine: Engine, request: Request) -> web.StreamResponse:
    """The stream of a pull."""
    raise Unsupported(f"pulling {request.text_parameter('fromImage')} from a registry is not supported")
