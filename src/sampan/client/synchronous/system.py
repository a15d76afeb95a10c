"""The engine about itself."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.events import EventMessage
from sampan.api.explain import Explanation
from sampan.api.system import AuthRequest, AuthResponse, Info, Version
from sampan.client.documents import Filters, Usage, as_filters
from sampan.client.synchronous.calls import Calls


class System:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def ping(self) -> dict[str, str]:
        """The answer's headers, by names in lower case: `api-version`, `ostype`, … Raises Unavailable."""
        response = self._calls.open("GET", "/_ping")
        self._calls.done(response)
        return response.headers

    def version(self) -> Version:
        return self._calls.document(Version, self._calls.open("GET", "/version"))

    def info(self) -> Info:
        return self._calls.document(Info, self._calls.open("GET", "/info"))

    def login(self, request: AuthRequest) -> AuthResponse:
        """Whether a registry takes the credentials. Raises Unauthorized."""
        return self._calls.document(AuthResponse, self._calls.open("POST", "/auth", request))

    def events(
        self, *, since: str = "", until: str = "", filters: Filters | None = None
    ) -> Iterator[EventMessage]:  # fmt: skip
        """What happens, and since when. Times: RFC 3339, or seconds since the epoch. Without `until` it has no end."""
        response = self._calls.open("GET", "/events", since=since, until=until, filters=as_filters(filters))
        for each in self._calls.messages(EventMessage, response):
            yield each

    def disk_usage(self) -> Usage:
        return self._calls.document(Usage, self._calls.open("GET", "/system/df"))

    def explain(self, interval: float = 0.0) -> Explanation:
        """Whose every byte of the disk is, and within `interval` seconds what grows. Sampan's engine alone knows."""
        return self._calls.document(Explanation, self._calls.open("GET", "/system/explain", interval=str(interval)))
