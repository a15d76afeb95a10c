"""The engine about itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sampan.api.events import EventMessage
from sampan.api.explain import Explanation
from sampan.api.system import AuthRequest, AuthResponse, Info, Version
from sampan.client.asynchronous.calls import Calls
from sampan.client.documents import Filters, Usage, as_filters


class System:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def ping(self) -> dict[str, str]:
        """The answer's headers, by names in lower case: `api-version`, `ostype`, … Raises Unavailable."""
        response = await self._calls.open("GET", "/_ping")
        await self._calls.done(response)
        return response.headers

    async def version(self) -> Version:
        return await self._calls.document(Version, await self._calls.open("GET", "/version"))

    async def info(self) -> Info:
        return await self._calls.document(Info, await self._calls.open("GET", "/info"))

    async def login(self, request: AuthRequest) -> AuthResponse:
        """Whether a registry takes the credentials. Raises Unauthorized."""
        return await self._calls.document(AuthResponse, await self._calls.open("POST", "/auth", request))

    async def events(
        self, *, since: str = "", until: str = "", filters: Filters | None = None
    ) -> AsyncIterator[EventMessage]:  # fmt: skip
        """What happens, and since when. Times: RFC 3339, or seconds since the epoch. Without `until` it has no end."""
        response = await self._calls.open("GET", "/events", since=since, until=until, filters=as_filters(filters))
        async for each in self._calls.messages(EventMessage, response):
            yield each

    async def disk_usage(self) -> Usage:
        return await self._calls.document(Usage, await self._calls.open("GET", "/system/df"))

    async def explain(self, interval: float = 0.0) -> Explanation:
        """Whose every byte of the disk is, and within `interval` seconds what grows. Sampan's engine alone knows."""
        return await self._calls.document(
            Explanation, await self._calls.open("GET", "/system/explain", interval=str(interval))
        )
