"""A repository wherever it can be had: its mirrors in turn, then its registry."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TypeVar

from sampan.core.remotes.endpoints import Endpoint, host_of, mirror_endpoint
from sampan.core.remotes.http import Http, RunBlocking
from sampan.core.remotes.repository import Repository
from sampan.core.remotes.settings import Credentials, RemoteSettings
from sampan.core.remotes.trust import Trust
from sampan.errors import SampanError, Unavailable
from sampan.oci.image import Descriptor
from sampan.oci.reference import Reference

T = TypeVar("T")
_log = logging.getLogger("sampan.remotes")


async def find_endpoint(http: Http, host: str) -> Endpoint:
    """TLS, or plain HTTP where that is allowed and nothing better answers."""
    if not await http.unverified(host):
        return Endpoint(scheme="https", host=host)
    try:
        # Without credentials, so that nothing is told to whoever may listen.
        response = await http.send("GET", f"https://{host}/v2/")
        response.release()
    except Unavailable:
        return Endpoint(scheme="http", host=host)
    return Endpoint(scheme="https", host=host)


def open_http(settings: RemoteSettings, run_blocking: RunBlocking) -> Http:
    return Http(Trust(settings.insecure, settings.certs), settings.patience, run_blocking)


class Remote:
    """An async context manager. `credentials` are for the registry, never for its mirrors."""

    def __init__(
        self, reference: Reference, settings: RemoteSettings, run_blocking: RunBlocking,
        credentials: Credentials | None = None, *, actions: str = "pull",
    ) -> None:  # fmt: skip
        self._reference = reference
        self._settings = settings
        self._credentials = credentials or Credentials()
        self._actions = actions
        self.http = open_http(settings, run_blocking)
        self._failed: set[Repository] = set()
        """The mirrors that don't answer: they are not asked again."""
        self.sources: Sequence[Repository] = ()
        """The mirrors, if it is for reading, and the registry itself at last."""

    async def __aenter__(self) -> Remote:
        await self.http.__aenter__()
        try:
            domain, path = self._reference.domain, self._reference.path
            mirrors = self._settings.mirrors.get(domain, ()) if self._actions == "pull" else ()
            endpoints = [mirror_endpoint(each) for each in mirrors]
            self.sources = [Repository(self.http, each, path, Credentials()) for each in endpoints]
            if not mirrors:
                await self._add_origin()
        except BaseException:
            await self.http.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.__aexit__(kind, error, trace)

    async def _add_origin(self) -> Repository:
        """It is looked for when the mirrors have failed: it may be out of reach, which is what they are for."""
        if not self.sources or self.sources[-1].endpoint.mirror:
            endpoint = await find_endpoint(self.http, host_of(self._reference.domain))
            origin = Repository(self.http, endpoint, self._reference.path, self._credentials, self._actions)
            self.sources = (*self.sources, origin)
        return self.sources[-1]

    async def origin(self) -> Repository:
        return await self._add_origin()

    async def first(self, work: Callable[[Repository], Awaitable[T]]) -> T:
        """From the first source that has it. Raises what the registry itself says."""
        for source in self.sources:
            if not source.endpoint.mirror:
                break
            if source in self._failed:
                continue
            try:
                return await work(source)
            except SampanError as error:
                if isinstance(error, Unavailable):
                    self._failed.add(source)
                _log.warning("mirror %s of %s: %s", source.endpoint.host, self._reference.domain, error.message)
        return await work(await self._add_origin())

    async def manifest(self, name: str) -> tuple[Descriptor, bytes]:
        """See `Repository.manifest`."""
        return await self.first(lambda source: source.manifest(name))
