"""`/volumes`."""

from __future__ import annotations

from sampan.api.volumes import VolumeCreateRequest, VolumeDocument, VolumeList, VolumesPruned
from sampan.client.asynchronous.calls import Calls
from sampan.client.client import quoted
from sampan.client.documents import Filters, as_filters


class Volumes:
    """All raise NotFound for a volume that is not there, and Conflict for one in use."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self, filters: Filters | None = None) -> tuple[VolumeDocument, ...]:
        response = await self._calls.open("GET", "/volumes", filters=as_filters(filters))
        return (await self._calls.document(VolumeList, response)).volumes or ()

    async def inspect(self, volume: str) -> VolumeDocument:
        response = await self._calls.open("GET", f"/volumes/{quoted(volume)}")
        return await self._calls.document(VolumeDocument, response)

    async def create(self, request: VolumeCreateRequest | None = None) -> VolumeDocument:
        """Without a name: an anonymous one."""
        response = await self._calls.open("POST", "/volumes/create", request or VolumeCreateRequest())
        return await self._calls.document(VolumeDocument, response)

    async def remove(self, volume: str, *, force: bool = False) -> None:
        await self._calls.done(await self._calls.open("DELETE", f"/volumes/{quoted(volume)}", force=force))

    async def prune(self, filters: Filters | None = None) -> VolumesPruned:
        """Remove those that no container uses and that have no name; with the filter `all`, the named ones too."""
        response = await self._calls.open("POST", "/volumes/prune", filters=as_filters(filters))
        return await self._calls.document(VolumesPruned, response)
