"""`/images` and `/distribution`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from sampan.api.images import (
    DeleteItem,
    DistributionInspect,
    HistoryItem,
    ImageInspect,
    ImagesPruned,
    ImageSummary,
    RegistryAuth,
)
from sampan.client.asynchronous.calls import Calls
from sampan.client.asynchronous.transport import Body
from sampan.client.client import quoted
from sampan.client.documents import Filters, Progress, SearchResult, as_filters, auth_header

_TAR = {"Content-Type": "application/x-tar"}


class Images:
    """An image is named by a reference or by its id. All raise NotFound for one that is not there."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(
        self, *, all_: bool = False, digests: bool = False, filters: Filters | None = None
    ) -> tuple[ImageSummary, ...]:  # fmt: skip
        response = await self._calls.open("GET", "/images/json", all=all_, digests=digests, filters=as_filters(filters))
        return await self._calls.document(tuple[ImageSummary, ...], response)

    async def inspect(self, image: str) -> ImageInspect:
        response = await self._calls.open("GET", f"/images/{image_path(image)}/json")
        return await self._calls.document(ImageInspect, response)

    async def history(self, image: str) -> tuple[HistoryItem, ...]:
        """How it was made, the newest step first."""
        response = await self._calls.open("GET", f"/images/{image_path(image)}/history")
        return await self._calls.document(tuple[HistoryItem, ...], response)

    async def pull(
        self, image: str, *, platform: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[Progress]:  # fmt: skip
        """Its progress. Without a tag or a digest: latest. Raises what the registry says."""
        tagged = "@" in image or ":" in image.rpartition("/")[2]
        response = await self._calls.open(
            "POST", "/images/create", headers=auth_header(auth), fromImage=image if tagged else f"{image}:latest",
            platform=platform,
        )  # fmt: skip
        async for each in self._calls.messages(Progress, response):
            yield each

    async def push(
        self, repository: str, tag: str = "", *, auth: RegistryAuth | None = None
    ) -> AsyncIterator[Progress]:  # fmt: skip
        """Its progress. Without a tag: all of them."""
        path = f"/images/{image_path(repository)}/push"
        response = await self._calls.open("POST", path, headers=auth_header(auth or RegistryAuth()), tag=tag)
        async for each in self._calls.messages(Progress, response):
            yield each

    async def tag(self, image: str, repository: str, tag: str = "latest") -> None:
        path = f"/images/{image_path(image)}/tag"
        await self._calls.done(await self._calls.open("POST", path, repo=repository, tag=tag))

    async def remove(
        self, image: str, *, force: bool = False, keep_parents: bool = False
    ) -> tuple[DeleteItem, ...]:  # fmt: skip
        """What was untagged, and what was deleted."""
        path = f"/images/{image_path(image)}"
        response = await self._calls.open("DELETE", path, force=force, noprune=keep_parents)
        return await self._calls.document(tuple[DeleteItem, ...], response)

    async def search(
        self, term: str, *, limit: int | None = None, filters: Filters | None = None, auth: RegistryAuth | None = None
    ) -> tuple[SearchResult, ...]:  # fmt: skip
        """What a registry has."""
        response = await self._calls.open(
            "GET", "/images/search", headers=auth_header(auth), term=term, limit=limit, filters=as_filters(filters)
        )
        return await self._calls.document(tuple[SearchResult, ...], response)

    async def prune(self, filters: Filters | None = None) -> ImagesPruned:
        """Remove those without a name; with the filter `dangling=false`, all that no container uses."""
        response = await self._calls.open("POST", "/images/prune", filters=as_filters(filters))
        return await self._calls.document(ImagesPruned, response)

    async def save(self, *images: str) -> AsyncIterator[bytes]:
        """A tar of them, as `docker save` writes it."""
        names = "&".join(f"names={quoted(image)}" for image in images)
        response = await self._calls.open("GET", f"/images/get?{names}")
        async for data in self._calls.pieces(response):
            yield data

    async def load(self, archive: Body, *, platform: str = "") -> AsyncIterator[Progress]:
        """Take what `save` wrote, or an OCI layout."""
        response = await self._calls.open(
            "POST", "/images/load", body=archive, headers=_TAR, quiet=True, platform=platform
        )
        async for each in self._calls.messages(Progress, response):
            yield each

    async def import_(
        self,
        archive: Body,
        repository: str = "",
        tag: str = "latest",
        *,
        message: str = "",
        changes: Iterable[str] = (),
        platform: str = "",
    ) -> str:
        """Make an image of a file system's tar, and give its id. `changes`: Dockerfile instructions."""
        more = "".join(f"&changes={quoted(each)}" for each in changes)
        response = await self._calls.open(
            "POST", f"/images/create?fromSrc=-{more}", body=archive, headers=_TAR, repo=repository, tag=tag,
            message=message, platform=platform,
        )  # fmt: skip
        last = Progress()
        async for each in self._calls.messages(Progress, response):
            last = each
        return last.status

    async def distribution(self, image: str, *, auth: RegistryAuth | None = None) -> DistributionInspect:
        """What a registry has under a name."""
        path = f"/distribution/{image_path(image)}/json"
        response = await self._calls.open("GET", path, headers=auth_header(auth))
        return await self._calls.document(DistributionInspect, response)


def image_path(image: str) -> str:
    """A reference in a path: its slashes stay."""
    return "/".join(quoted(part).replace("%3A", ":").replace("%40", "@") for part in image.split("/"))
