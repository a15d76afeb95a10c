"""`/images`: list, inspect, make, tag, remove, and archives in and out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import BinaryIO

from aiohttp import web

from sampan.api import images as api
from sampan.core.archives import Loaded, OnLayer, check_platform
from sampan.core.images import Image, Removed, Users
from sampan.engine import image_documents as documents
from sampan.engine.blocking import run_blocking
from sampan.engine.changes import apply_changes
from sampan.engine.http.filters import boolean_filter, known_filters
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import HEADERS, RouteDef
from sampan.engine.http.stream import MessageStream
from sampan.engine.pulling import distribution, manifest, pull, search
from sampan.engine.pushing import push
from sampan.engine.services import Engine
from sampan.engine.transfers import receive, send
from sampan.errors import Conflict, InvalidArgument, NotFound, Unsupported
from sampan.oci.digest import encoded
from sampan.oci.image import Descriptor, Platform, RunConfig, decode
from sampan.oci.reference import Reference, parse_reference


class ImageRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- Looking ----------------------------------------------------------------------------------

    async def list(self, request: Request) -> web.Response:
        """All images; every one with a configuration of its own is a top one, so `all` changes nothing."""
        name, counted = request.text_parameter("filter"), request.flag("shared-size")
        images = await run_blocking(lambda: documents.chosen(self._engine.core, request.filters(), name=name))
        shared = await run_blocking(documents.shared_sizes, self._engine.core) if counted else {}
        return json_response(
            [
                documents.summary(
                    image, containers=len(self._engine.containers.using_image(image.id)),
                    shared_size=shared.get(image.id, -1), api_version=request.api_version,
                )
                for image in images
            ]
        )  # fmt: skip

    async def inspect(self, request: Request) -> web.Response:
        def look() -> api.ImageInspect:
            core = self._engine.core
            return documents.inspect(core, core.images.get(request.match_info["name"]), request.api_version)

        return json_response(await run_blocking(look))

    async def history(self, request: Request) -> web.Response:
        def look() -> object:
            core = self._engine.core
            return documents.history(core, core.images.get(request.match_info["name"]))

        return json_response(await run_blocking(look))

    async def search(self, request: Request) -> web.Response:
        return await search(self._engine, request)

    async def distribution(self, request: Request) -> web.Response:
        return await distribution(self._engine, request)

    async def manifest(self, request: Request) -> web.Response:
        return await manifest(self._engine, request)

    # --- Making -----------------------------------------------------------------------------------

    async def create(self, request: Request) -> web.StreamResponse:
        """Pull (`fromImage`) or import a file system (`fromSrc`)."""
        if request.text_parameter("fromImage"):
            return await pull(self._engine, request)
        source = request.text_parameter("fromSrc")
        if not source:
            raise InvalidArgument("either fromImage or fromSrc is required")
        if source != "-":
            raise Unsupported(f"importing from {source} is not supported: send the archive as the request's body")
        return await self._import(request)

    async def _import(self, request: Request) -> web.StreamResponse:
        repository, tag = request.text_parameter("repo"), request.text_parameter("tag")
        reference = tagged(repository, tag) if repository else None
        run = apply_changes(RunConfig(), request.query.getall("changes", []))
        message = request.text_parameter("message") or "Imported from -"
        platform = request.text_parameter("platform").lower()
        system, _, machine = platform.partition("/")
        if system not in ("", "linux"):
            raise InvalidArgument(f'operating system "{system}" is not supported')
        core = self._engine.core

        def consume(stream: BinaryIO) -> Image:
            return core.import_file_system(stream, reference, run, message=message, arch=machine.partition("/")[0])

        async with MessageStream(request) as stream:
            image = await receive(request.chunks(), consume)
            if reference is not None:
                self._publish("tag", image, reference.familiar)
            self._publish("import", image)
            await stream.send(api.ProgressMessage(status=image.id))
        return stream.response

    async def load(self, request: Request) -> web.StreamResponse:
        """The images of an archive: `docker save`'s, or an OCI layout."""
        platform = wanted_platform(request)
        async with MessageStream(request) as stream:
            on_layer = None if request.flag("quiet") else _telling(stream)

            def consume(archive: BinaryIO) -> list[Loaded]:
                return self._engine.core.load(archive, platform, on_layer)

            loaded = await receive(request.chunks(), consume)
            for each in loaded:
                self._publish("load", each.image)
                for name in each.names:
                    await stream.send(api.StreamMessage(stream=f"Loaded image: {name}\n"))
                if not each.names:
                    await stream.send(api.StreamMessage(stream=f"Loaded image ID: {each.image.id}\n"))
        return stream.response

    async def tag(self, request: Request) -> web.Response:
        reference = tagged(request.text_parameter("repo"), request.text_parameter("tag"))
        image = await run_blocking(self._engine.core.images.tag, request.match_info["name"], reference)
        self._publish("tag", image, reference.familiar)
        return web.Response(status=201)

    async def push(self, request: Request) -> web.StreamResponse:
        return await push(self._engine, request)

    # --- Saving -----------------------------------------------------------------------------------

    async def save_one(self, request: Request) -> web.StreamResponse:
        return await self._save(request, [request.match_info["name"]])

    async def save(self, request: Request) -> web.StreamResponse:
        names = [each for value in request.query.getall("names", []) for each in value.split(",") if each]
        if not names:
            raise InvalidArgument("no image name was given")
        return await self._save(request, names)

    async def _save(self, request: Request, names: Sequence[str]) -> web.StreamResponse:
        core = self._engine.core
        platform = wanted_platform(request)
        # Once the head is out an error cannot be told any more, so first see that all are there.
        images = [await run_blocking(core.images.get, name) for name in names]
        for image in images:
            check_platform(image.config, platform)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/x-tar"})
        await response.prepare(request)
        await send(lambda stream: core.save(names, stream), response.write)
        for image in images:
            self._publish("save", image)
        return response

    # --- Removing ---------------------------------------------------------------------------------

    async def remove(self, request: Request) -> web.Response:
        removed = await run_blocking(
            self._engine.core.remove_image, request.match_info["name"], force=request.flag("force"),
            prune=not request.flag("noprune"), users=self._users(),
        )  # fmt: skip
        return json_response(self._told(removed))

    def _users(self) -> Users:
        """The containers of each image, as things stand now."""
        users: dict[str, list[tuple[str, bool]]] = {}
        for each in self._engine.containers.all():
            for image in {each.record.image, *(point.image for point in each.record.mounts)}:
                users.setdefault(image, []).append((each.id[:12], each.running))
        return lambda image: users.get(image, ())

    def _told(self, removed: Sequence[Removed]) -> Sequence[api.DeleteItem]:
        for each in removed:
            if each.image:
                attributes = {**each.labels, "name": each.image}
                self._engine.events.publish("image", "untag" if each.untagged else "delete", each.image, attributes)
        return [api.DeleteItem(untagged=each.untagged, deleted=each.deleted) for each in removed]

    async def prune(self, request: Request) -> web.Response:
        """Images without a name and without a container; with `dangling=false` all without a container."""
        filters = dict(known_filters(request.filters(), documents.PRUNE_FILTERS))
        dangling = boolean_filter(filters, "dangling")
        filters.pop("dangling", None)
        users = self._users()
        wanted = [
            image
            for image in await run_blocking(documents.chosen, self._engine.core, filters)
            if (dangling is False or documents.is_dangling(image)) and not users(image.id)
        ]
        deleted, reclaimed = await run_blocking(self._prune, wanted, users)
        items = tuple(self._told(deleted)) or None
        self._engine.events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return json_response(api.ImagesPruned(images_deleted=items, space_reclaimed=reclaimed))

    def _prune(self, images: Sequence[Image], users: Users) -> tuple[Sequence[Removed], int]:
        """What was removed, and the bytes that this freed."""
        core = self._engine.core
        before = core.snapshots.layer_sizes()
        removed: list[Removed] = []
        # Those that others were made of come last.
        for image in sorted(images, key=lambda each: each.added, reverse=True):
            for name in (*image.repo_tags, *image.repo_digests) or (image.id,):
                # Taken into use, removed, or removed with a child, in the meantime.
                with contextlib.suppress(Conflict, NotFound):
                    removed += core.remove_image(name, users=users)
        after = core.snapshots.layer_sizes()
        # What pulls that were broken off had fetched is no image's.
        return removed, core.gc() + sum(size for chain_id, size in before.items() if chain_id not in after)

    def _publish(self, action: str, image: Image, name: str = "") -> None:
        attributes = {**(image.config.run.labels or {}), "name": name or image.id}
        self._engine.events.publish("image", action, image.id, attributes)


def _telling(stream: MessageStream) -> OnLayer:
    """Tells the client of each layer that is about to be unpacked, from the thread that does it."""
    loop = asyncio.get_running_loop()

    def tell(layer: Descriptor) -> None:
        detail = api.ProgressDetail(current=layer.size, total=layer.size)
        message = api.ProgressMessage(status="Loading layer", progress_detail=detail, id=encoded(layer.digest)[:12])
        asyncio.run_coroutine_threadsafe(stream.send(message), loop)

    return tell


def wanted_platform(request: Request) -> str:
    """The `platform` parameter as os/architecture[/variant]: it is that, or a JSON document. Raises InvalidArgument."""
    given = request.query.getall("platform", [])
    if len(given) > 1:
        raise InvalidArgument("only one platform at a time can be saved or loaded")
    if not given or not given[0].startswith("{"):
        return given[0] if given else ""
    wanted = decode(given[0].encode(), Platform, "invalid platform")
    return "/".join((wanted.os, wanted.architecture, wanted.variant)).rstrip("/")


def tagged(repository: str, tag: str) -> Reference:
    """The name of `repo` and `tag`. Raises InvalidArgument."""
    reference = parse_reference(repository)
    if reference.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if tag:
        try:
            reference = parse_reference(f"{reference.familiar_name}:{tag}")
        except InvalidArgument:
            raise InvalidArgument("invalid tag format") from None
    return reference.with_default_tag()


def routes(engine: Engine) -> list[RouteDef]:
    on = ImageRoutes(engine)
    return [
        RouteDef("GET", "/images/json", on.list),
        RouteDef("GET", "/images/search", on.search),
        RouteDef("GET", "/images/get", on.save),
        RouteDef("POST", "/images/create", on.create),
        RouteDef("POST", "/images/load", on.load),
        RouteDef("POST", "/images/prune", on.prune),
        RouteDef("GET", "/images/{name:.+}/json", on.inspect),
        RouteDef("GET", "/images/{name:.+}/history", on.history),
        RouteDef("GET", "/images/{name:.+}/get", on.save_one),
        RouteDef("POST", "/images/{name:.+}/tag", on.tag),
        RouteDef("POST", "/images/{name:.+}/push", on.push),
        RouteDef("DELETE", "/images/{name:.+}", on.remove),
        RouteDef("GET", "/distribution/{name:.+}/json", on.distribution),
        RouteDef("GET", "/distribution/{name:.+}/manifest", on.manifest),
    ]
