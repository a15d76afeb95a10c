"""`POST /images/create?fromImage=`: pull an image from a registry, telling how it goes."""

from __future__ import annotations

import base64
import binascii

import msgspec
from aiohttp import web

from sampan.api.images import ProgressDetail, ProgressMessage, RegistryAuth
from sampan.engine.blocking import run_blocking
from sampan.engine.http.request import Request
from sampan.engine.http.stream import MessageStream
from sampan.engine.services import Engine
from sampan.errors import InvalidArgument
from sampan.oci.reference import parse_reference


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
    """The stream of a pull. Raises InvalidArgument and NotFound before it begins, and tells what comes after."""
    from sampan.core.remotes import pull as remote
    from sampan.core.remotes.registry import Credentials

    name, tag = request.text_parameter("fromImage"), request.text_parameter("tag")
    reference = parse_reference(name)
    if tag:
        reference = parse_reference(
            f"{reference.name}@{tag}" if tag.startswith("sha256:") else f"{reference.name}:{tag}"
        )
    login = credentials(request)
    async with MessageStream(request) as stream:

        async def tell(progress: remote.Progress) -> None:
            detail = ProgressDetail(current=progress.current, total=progress.total) if progress.id else msgspec.UNSET
            await stream.send(
                ProgressMessage(status=progress.status, id=progress.id or msgspec.UNSET, progress_detail=detail)
            )

        image = await remote.pull(
            engine.core, reference, tell, run_blocking,
            credentials=Credentials(
                username=login.username, password=login.password, identity_token=login.identitytoken
            ),
            insecure=engine.config.insecure_registries, platform=request.text_parameter("platform"),
        )  # fmt: skip
        shown = reference.with_default_tag().familiar
        engine.events.publish(
            "image", "pull", shown, {**(image.config.run.labels or {}), "name": reference.familiar_name}
        )
    return stream.response
