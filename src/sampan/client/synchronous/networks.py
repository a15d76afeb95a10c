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
from sampan.client.client import quoted
from sampan.client.documents import Filters, as_filters
from sampan.client.synchronous.calls import Calls


class Networks:
    """A network is named by its name or its id. All raise NotFound for one that is not there."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def list(self, filters: Filters | None = None) -> tuple[NetworkDocument, ...]:
        response = self._calls.open("GET", "/networks", filters=as_filters(filters))
        return self._calls.document(tuple[NetworkDocument, ...], response)

    def inspect(self, network: str) -> NetworkDocument:
        """With the containers on it."""
        response = self._calls.open("GET", f"/networks/{quoted(network)}")
        return self._calls.document(NetworkDocument, response)

    def create(self, request: NetworkCreateRequest) -> str:
        """Its id."""
        response = self._calls.open("POST", "/networks/create", request)
        return (self._calls.document(NetworkCreateResponse, response)).id

    def connect(self, network: str, container: str, settings: EndpointSettings | None = None) -> None:
        request = NetworkConnectRequest(container=container, endpoint_config=settings)
        self._calls.done(self._calls.open("POST", f"/networks/{quoted(network)}/connect", request))

    def disconnect(self, network: str, container: str, *, force: bool = False) -> None:
        request = NetworkConnectRequest(container=container, force=force)
        self._calls.done(self._calls.open("POST", f"/networks/{quoted(network)}/disconnect", request))

    def remove(self, network: str) -> None:
        self._calls.done(self._calls.open("DELETE", f"/networks/{quoted(network)}"))

    def prune(self, filters: Filters | None = None) -> NetworksPruned:
        """Remove those that no container uses."""
        response = self._calls.open("POST", "/networks/prune", filters=as_filters(filters))
        return self._calls.document(NetworksPruned, response)
