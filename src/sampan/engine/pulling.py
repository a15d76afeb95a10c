"""`POST /images/create?fromImage=`: pull an image from a registry, telling how it goes."""

from __future__ import annotations

import base64
import binascii

import msgspec
from aiohttp import web

from sampan.api.images import ProgressDetail, ProgressMessage, RegistryAuth
from sampan.core.remotes import pull as remote
from sampan.core.remotes.registry import Credentials
from sampan.engine.blocking import run_blocking
from sampan.engine.http.request import Request
from sampan.engine.http.stream import MessageStream
from sampan.engine.services import Engine
from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.reference import Reference, parse_reference


def credentials(request: Request) -> Credentials:
    """The `X-Registry-Auth` header. Raises InvalidArgument for what does not decode."""
    header = request.headers.get("X-Registry-Auth", "")
    if not header:
        return Credentials()
    try:
        document = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        given = msgspec.json.decode(document or b"{}", type=RegistryAuth)
        name, colon, password = base64.b64decode(given.auth).decode().partition(":")
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from None
    if colon and not given.username:
        return Credentials(username=name, password=password)
    return Credentials(
        username=given.username, password=given.password, identity_token=given.identitytoken or given.registrytoken
    )


def _reference(request: Request) -> Reference:
    """The image that is wanted: `fromImage`, with the tag or digest in it or in `tag`."""
    name, tag = request.text_parameter("fromImage"), request.text_parameter("tag")
    reference = parse_reference(name)
    if tag:
        separator = "@" if tag.startswith("sha256:") else ":"
        return parse_reference(f"{reference.name}{separator}{tag}")
    if not reference.tag and not reference.digest:
        raise Unsupported(f"pulling all tags of {reference.familiar_name} is not supported: name one")
    return reference


def _message(progress: remote.Progress) -> ProgressMessage:
    if not progress.id:
        return ProgressMessage(status=progress.status)
    detail = ProgressDetail(current=progress.current, total=progress.total)
    return ProgressMessage(status=progress.status, progress_detail=detail, id=progress.id)


async def pull(engine: Engine, request: Request) -> web.StreamResponse:
    """The stream of a pull. It ends with the client: the next message finds nobody, and what was begun is left."""
    reference = _reference(request)
    given = credentials(request)
    if request.text_parameter("platform").partition("/")[0].lower() not in ("", "linux"):
        raise InvalidArgument(f"no matching manifest for {request.text_parameter('platform')}: linux alone runs here")
    async with MessageStream(request) as stream:

        async def tell(progress: remote.Progress) -> None:
            await stream.send(_message(progress))

        await remote.pull(
            engine.core, reference, tell, run_blocking, credentials=given, insecure=engine.config.insecure_registries,
            platform=request.text_parameter("platform"),
        )  # fmt: skip
        engine.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})
    return stream.response
