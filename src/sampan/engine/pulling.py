"""`POST /images/create?fromImage=`, `GET /distribution/…` and `/images/search`: images from a registry, and what it
says of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from sampan.api import images as api
from sampan.core.remotes.endpoints import HUB_INDEX
from sampan.core.remotes.progress import Progress
from sampan.core.remotes.pull import parse_platform
from sampan.core.remotes.search import search as remote_search
from sampan.core.remotes.search import split_term
from sampan.engine.blocking import run_blocking
from sampan.engine.http.filters import boolean_filter, known_filters
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import HEADERS
from sampan.engine.http.stream import MessageStream
from sampan.engine.registries import credentials
from sampan.engine.services import Engine
from sampan.errors import InvalidArgument
from sampan.oci.reference import DEFAULT_DOMAIN, Reference, parse_reference

_WATCH = 0.2
_FOUND, _MOST_FOUND = 25, 100
_SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})


def _reference(request: Request) -> Reference:
    """The image that is wanted: `fromImage`, with the tag or digest in it or in `tag`; neither: all tags."""
    name, tag = request.text_parameter("fromImage"), request.text_parameter("tag")
    reference = parse_reference(name)
    if tag:
        separator = "@" if tag.startswith("sha256:") else ":"
        return parse_reference(f"{reference.name}{separator}{tag}")
    return reference


def message(progress: Progress) -> api.ProgressMessage:
    """One step on the wire."""
    if progress.aux is not None:
        return api.ProgressMessage(progress_detail=api.ProgressDetail(), aux=msgspec.to_builtins(progress.aux))
    if not progress.id:
        return api.ProgressMessage(status=progress.status)
    if progress.status.startswith("Pulling from "):
        return api.ProgressMessage(status=progress.status, id=progress.id)
    detail = api.ProgressDetail(current=progress.current, total=progress.total)
    drawn = bar(progress.current, progress.total) if progress.total else msgspec.UNSET
    return api.ProgressMessage(status=progress.status, progress_detail=detail, progress=drawn, id=progress.id)


def bar(current: int, total: int) -> str:
    """Docker's, for clients that print what comes: `[=====>   ]  1.2MB/3MB`."""
    done = min(50, current * 50 // total)
    drawn = "=" * done + (">" if done < 50 else "")
    return f"[{drawn:<50}]  {_units(current)}/{_units(total)}"


def _units(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}TB"


@contextlib.asynccontextmanager
async def while_listened(request: Request) -> AsyncIterator[None]:
    """Cancel what is inside when the client leaves, which is noticed even where nothing is told for long."""
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(_WATCH)
        gone = True
        task.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone:
            raise ConnectionResetError("the client has left") from None
        raise
    finally:
        watcher.cancel()


async def pull(engine: Engine, request: Request) -> web.StreamResponse:
    """The stream of a pull; it ends with the client."""
    reference = _reference(request)
    given = credentials(request, reference)
    platform = parse_platform(request.text_parameter("platform"))
    one = bool(reference.tag or reference.digest)
    async with while_listened(request), MessageStream(request) as stream:

        async def tell(progress: Progress) -> None:
            await stream.send(message(progress))

        if one:
            await engine.puller.pull(reference, tell, given, platform)
        else:
            await engine.puller.pull_all(reference, tell, given, platform)
        engine.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})
    return stream.response


async def distribution(engine: Engine, request: Request) -> web.Response:
    """What a registry has under a name."""
    reference = parse_reference(request.match_info["name"])
    descriptor, platforms = await engine.puller.distribution(reference, credentials(request, reference))
    found = api.DistributionDescriptor(
        media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size
    )  # fmt: skip
    return json_response(api.DistributionInspect(descriptor=found, platforms=tuple(platforms)))


async def search(engine: Engine, request: Request) -> web.Response:
    """What a registry finds, after the filters."""
    term = request.text_parameter("term")
    if not term:
        raise InvalidArgument("no search term was given")
    limit = request.integer("limit", 0) or _FOUND
    if not 1 <= limit <= _MOST_FOUND:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {_MOST_FOUND}]")
    filters = known_filters(request.filters(), _SEARCH_FILTERS)
    official, automated = (boolean_filter(filters, name) for name in ("is-official", "is-automated"))
    stars = filters.get("stars", ())
    if not all(each.isdigit() for each in stars):
        raise InvalidArgument(f"invalid filter 'stars=[{' '.join(stars)}]'")
    fewest = max(map(int, stars), default=0)
    host, _ = split_term(term)
    given = credentials(request, Reference(DEFAULT_DOMAIN if host == HUB_INDEX else host, ""))
    found = await remote_search(term, limit, engine.config.remotes, run_blocking, given)
    return json_response(
        [
            each
            for each in found
            if each.star_count >= fewest
            and official in (None, each.is_official)
            and automated in (None, each.is_automated)
        ]
    )


async def manifest(engine: Engine, request: Request) -> web.Response:
    """The document itself, byte by byte. Not Docker's: `sampan manifest inspect` asks for it."""
    reference = parse_reference(request.match_info["name"])
    descriptor, data = await engine.puller.document(reference, credentials(request, reference))
    headers = {**HEADERS, "Content-Type": descriptor.media_type, "Docker-Content-Digest": descriptor.digest}
    return web.Response(body=data, headers=headers)
