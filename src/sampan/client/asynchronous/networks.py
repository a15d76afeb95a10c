"""`/networks`."""

from __future__ import annotations

from sampan.api.containers import EndpointSettings
from sampan.api.networks import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDocument,
    NetworksPruned,
)
from sampan.client.asynchronous.calls import Calls
from sampan.client.client import quoted
from sampan.client.documents import Filters, as_filters


class Networks:
    """A network is named by its name or its id. All raise NotFound for one that is not there."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self, filters: Filters | None = None) -> tuple[NetworkDocument, ...]:
        response = await self._calls.open("GET", "/networks", filters=as_filters(filters))
        return await self._calls.document(tuple[NetworkDocument, ...], response)

    async def inspect(self, network: str) -> NetworkDocument:
        """With the containers on it."""
        response = await self._calls.open("GET", f"/networks/{quoted(network)}")
        return await self._calls.document(NetworkDocument, response)

    async def create(self, request: NetworkCreateRequest) -> str:
        """Its id."""
        response = await self._calls.open("POST", "/networks/create", request)
        return (await self._calls.document(NetworkCreateResponse, response)).id

    async def connect(self, network: str, container: str, settings: EndpointSettings | None = None) -> None:
        request = NetworkConnectRequest(container=container, endpoint_config=settings)
        await self._calls.done(await self._calls.open("POST", f"/networks/{quoted(network)}/connect", request))

    async def disconnect(self, network: str, container: str, *, force: bool = False) -> None:
        request = NetworkConnectRequest(container=container, force=force)
        await self._calls.done(await self._calls.open("POST", f"/networks/{quoted(network)}/disconnect", request))

    async def remove(self, network: str) -> None:
        await self._calls.done(await self._calls.open("DELETE", f"/networks/{quoted(network)}"))

    async def prune(self, filters: Filters | None = None) -> NetworksPruned:
        """Remove those that no container uses."""
        response = await self._calls.open("POST", "/networks/prune", filters=as_filters(filters))
        return await self._calls.document(NetworksPruned, response)
