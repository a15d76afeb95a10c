"""A registry's client: the pull half of distribution-spec, with the token that most registries want.

Plain HTTP goes to loopback addresses and to the registries that are configured as insecure; all others speak HTTPS.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import re
from collections.abc import AsyncIterator, Collection
from types import TracebackType

import aiohttp
import msgspec

from sampan.errors import DataCorrupt, NotFound, Unauthorized, Unavailable
from sampan.oci.digest import Digest, digest_of
from sampan.oci.image import INDEXES, MANIFESTS, Descriptor
from sampan.oci.reference import DEFAULT_DOMAIN, Reference

_MAX_MANIFEST = 4 << 20
_CHUNK = 1 << 18
_ATTEMPTS = 3
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_HUB = "registry-1.docker.io"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A user's name and password, or a token that a login gave; all empty: nobody."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    token: str = ""
    access_token: str = ""


class Registry:
    """One repository of a registry. An async context manager; not for several tasks' first request at once."""

    def __init__(self, reference: Reference, credentials: Credentials, insecure: Collection[str] = ()) -> None:
        host = _HUB if reference.domain == DEFAULT_DOMAIN else reference.domain
        scheme = "http" if _plain(reference.domain, insecure) else "https"
        self._base = f"{scheme}://{host}/v2/{reference.path}"
        self._reference = reference
        self._credentials = credentials
        self._authorization = ""
        timeout = aiohttp.ClientTimeout(total=None, connect=30, sock_read=60)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)

    async def __aenter__(self) -> Registry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def manifest(self, name: str) -> tuple[Descriptor, bytes]:
        """A manifest or an index, by tag or digest, as its raw bytes. Raises NotFound, Unauthorized, Unavailable,
        DataCorrupt (it does not hash to its digest, or is no manifest)."""
        accept = ", ".join((*MANIFESTS, *INDEXES))
        async with await self._get(f"{self._base}/manifests/{name}", accept=accept) as response:
            data = await response.content.read(_MAX_MANIFEST + 1)
            while len(data) <= _MAX_MANIFEST and (more := await response.content.read(_MAX_MANIFEST)):
                data += more
            if len(data) > _MAX_MANIFEST:
                raise DataCorrupt(f"manifest {name}: it is too large")
            kind = response.content_type
        if kind not in (*MANIFESTS, *INDEXES):
            raise DataCorrupt(f"manifest {name}: media type {kind} is not supported")
        digest = digest_of(data)
        if name.startswith("sha256:") and digest != name:
            raise DataCorrupt(f"manifest {name}: its content hashes to {digest}")
        return Descriptor(media_type=kind, digest=digest, size=len(data)), data

    async def blob(self, digest: Digest) -> AsyncIterator[bytes]:
        """A blob's bytes, as they come; the caller verifies them."""
        async with await self._get(f"{self._base}/blobs/{digest}") as response:
            try:
                async for data in response.content.iter_chunked(_CHUNK):
                    yield data
            except (aiohttp.ClientError, TimeoutError) as error:
                raise Unavailable(f"blob {digest}: the connection broke: {error}") from error

    async def _get(self, url: str, accept: str = "*/*") -> aiohttp.ClientResponse:
        """An answer with status 200. Tries again, with a pause, where the registry or the network stumbles."""
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                response = await self._session.get(url, headers=self._headers(accept))
                if response.status == 401 and not self._authorization:
                    challenge = response.headers.get("WWW-Authenticate", "")
                    response.release()
                    self._authorization = await self._authorize(challenge)
                    response = await self._session.get(url, headers=self._headers(accept))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if last:
                    raise Unavailable(f'Get "{url}": {_reason(error)}') from error
                await asyncio.sleep(0.2 * 2**attempt)
                continue
            if response.status == 200:
                return response
            response.release()
            if (response.status < 500 and response.status != 429) or last:
                raise self._refused(url, response.status)
            await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def _headers(self, accept: str) -> dict[str, str]:
        headers = {"Accept": accept, "User-Agent": "sampan"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        return headers

    def _refused(self, url: str, status: int) -> Exception:
        name = self._reference.familiar_name
        if status == 404:
            return NotFound(f"manifest for {self._reference.familiar} not found: manifest unknown: manifest unknown")
        if status in (401, 403):
            return NotFound(
                f"pull access denied for {name}, repository does not exist or may require 'docker login': denied: "
                "requested access to the resource is denied"
            )
        if status == 429:
            return Unavailable("toomanyrequests: You have reached your pull rate limit")
        return Unavailable(f"received unexpected HTTP status: {status} for {url!r}")

    async def _authorize(self, challenge: str) -> str:
        """The Authorization header that a challenge asks for: Basic, or a Bearer token of the realm."""
        scheme, _, rest = challenge.partition(" ")
        login = base64.b64encode(f"{self._credentials.username}:{self._credentials.password}".encode()).decode()
        if scheme.lower() == "basic":
            if not self._credentials.username:
                raise Unauthorized("no basic auth credentials")
            return f"Basic {login}"
        fields = dict(_CHALLENGE.findall(rest))
        realm = fields.pop("realm", "")
        if scheme.lower() != "bearer" or not realm:
            raise Unauthorized(f"unauthorized: the registry asks for {scheme or 'nothing known'}")
        query = {"service": fields.get("service", ""), "scope": f"repository:{self._reference.path}:pull"}
        headers = {"Authorization": f"Basic {login}"} if self._credentials.username else {}
        async with self._session.get(realm, params=query, headers=headers) as response:
            data = await response.read()
            if response.status != 200:
                raise Unauthorized("unauthorized: incorrect username or password")
        try:
            token = msgspec.json.decode(data, type=_Token)
        except msgspec.DecodeError as error:
            raise Unauthorized(f"the token of {realm} does not decode: {error}") from error
        return f"Bearer {token.token or token.access_token}"


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = (os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)).lower()
        return f"dial tcp {error.host}:{error.port}: connect: {reason}"
    return str(error) or type(error).__name__


def _plain(domain: str, insecure: Collection[str]) -> bool:
    if domain in insecure:
        return True
    host = domain.rpartition(":")[0] if domain.rpartition(":")[2].isdigit() else domain
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
