"""`POST /images/{name}/push`: an image to a registry, telling how it goes."""

from __future__ import annotations

from aiohttp import web

from sampan.core.remotes.progress import Progress
from sampan.engine.http.request import Request
from sampan.engine.http.stream import MessageStream
from sampan.engine.pulling import message, while_listened
from sampan.engine.registries import credentials
from sampan.engine.services import Engine
from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.reference import parse_reference


async def push(engine: Engine, request: Request) -> web.StreamResponse:
    """The stream of a push; it ends with the client."""
    if request.text_parameter("platform"):
        raise Unsupported("pushing one platform of an image is not supported: each image here has one")
    reference = parse_reference(request.match_info["name"])
    if tag := request.text_parameter("tag"):
        if reference.tag or reference.digest:
            raise InvalidArgument(f"invalid reference: {reference.familiar} has a tag or digest already")
        reference = parse_reference(f"{reference.name}:{tag}")
    given = credentials(request, reference)
    async with while_listened(request), MessageStream(request) as stream:

        async def tell(progress: Progress) -> None:
            await stream.send(message(progress))

        await engine.pusher.push(reference, tell, given)
        engine.events.publish("image", "push", reference.familiar, {"name": reference.familiar_name})
    return stream.response
