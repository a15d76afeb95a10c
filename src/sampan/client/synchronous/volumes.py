"""`/volumes`."""

from __future__ import annotations

from sampan.api.volumes import VolumeCreateRequest, VolumeDocument, VolumeList, VolumesPruned
from sampan.client.client import quoted
from sampan.client.documents import Filters, as_filters
from sampan.client.synchronous.calls import Calls


class Volumes:
    """All raise NotFound for a volume that is not there, and Conflict for one in use."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def list(self, filters: Filters | None = None) -> tuple[VolumeDocument, ...]:
        response = self._calls.open("GET", "/volumes", filters=as_filters(filters))
        return (self._calls.document(VolumeList, response)).volumes or ()

    def inspect(self, volume: str) -> VolumeDocument:
        response = self._calls.open("GET", f"/volumes/{quoted(volume)}")
        return self._calls.document(VolumeDocument, response)

    def create(self, request: VolumeCreateRequest | None = None) -> VolumeDocument:
        """Without a name: an anonymous one."""
        response = self._calls.open("POST", "/volumes/create", request or VolumeCreateRequest())
        return self._calls.document(VolumeDocument, response)

    def remove(self, volume: str, *, force: bool = False) -> None:
        self._calls.done(self._calls.open("DELETE", f"/volumes/{quoted(volume)}", force=force))

    def prune(self, filters: Filters | None = None) -> VolumesPruned:
        """Remove those that no container uses and that have no name; with the filter `all`, the named ones too."""
        response = self._calls.open("POST", "/volumes/prune", filters=as_filters(filters))
        return self._calls.document(VolumesPruned, response)
