"""One repository of one registry: distribution-spec 1.1, with credentials where it asks for them."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import aiohttp
import msgspec
from yarl import URL

from sampan.core.remotes.auth import Authorizer
from sampan.core.remotes.endpoints import Endpoint
from sampan.core.remotes.http import Body, Http
from sampan.core.remotes.refusals import MAX_ERROR, refusal
from sampan.core.remotes.settings import Credentials
from sampan.errors import DataCorrupt, SampanError, Unsupported
from sampan.oci.digest import Digest, digest_of, parse_digest
from sampan.oci.image import INDEXES, MANIFESTS, Descriptor

MAX_MANIFEST = 4 << 20
"""Bytes; distribution-spec wants that a registry takes so much."""
_MOST_TAGS = 100_000
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*rel=\"?next\"?", re.IGNORECASE)


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    """What of a manifest's members tells its kind."""

    schema_version: int | None = None
    media_type: str | None = ""
    manifests: msgspec.Raw = msgspec.Raw()
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()


class _Tags(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = ()


class Repository:
    """`actions`: `pull`, or `pull,push`. Safe for several tasks."""

    def __init__(
        self, http: Http, endpoint: Endpoint, path: str, credentials: Credentials, actions: str = "pull"
    ) -> None:
        self.endpoint = endpoint
        self.path = path
        self._http = http
        # Where another source comes after it, one doesn't wait for it to recover.
        self._requests = 1 if endpoint.mirror else http.patience.requests
        self.attempts = min(2, http.patience.attempts) if endpoint.mirror else http.patience.attempts
        """Tries of one transfer that brings nothing."""
        self._origin = URL(endpoint.base).origin()
        self.url = f"{endpoint.base}/{path}"
        self._authorizer = Authorizer(http, credentials, [f"repository:{path}:{actions}"])

    # --- Requests ---------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: str, *, good: Sequence[int] = (200,), headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """One answer with one of the good statuses; anything else is raised. Credentials go to the registry alone."""
        own = URL(url).origin() == self._origin
        used = self._authorizer.header if own else ""
        response = await self._http.send(method, url, headers=headers, body=body, authorization=used)
        if response.status == 401 and own and response.url.origin() == self._origin:
            challenges = response.headers.getall("WWW-Authenticate", [])
            if challenges and await self._authorizer.answer(challenges, used):
                response.release()
                used = self._authorizer.header
                response = await self._http.send(method, url, headers=headers, body=body, authorization=used)
        async with response:
            if response.status not in good:
                data = b"" if method == "HEAD" else await self._http.content(response, MAX_ERROR)
                raise refusal(method, url, response.status, response.headers, data)
            yield response

    async def rest(self, attempt: int, error: SampanError) -> bool:
        """See `Http.rest`."""
        return await self._http.rest(attempt, error)

    # --- Reading ----------------------------------------------------------------------------------

    async def manifest(self, name: str) -> tuple[Descriptor, bytes]:
        """A manifest or an index, by tag or digest, as its raw bytes. Raises NotFound, Unauthorized, Forbidden,
        Unavailable, DataCorrupt (it does not hash to its digest, or contradicts itself), Unsupported (schema 1)."""
        return await self._http.again(self._requests, lambda: self._manifest(name))

    async def _manifest(self, name: str) -> tuple[Descriptor, bytes]:
        accept = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
        async with self.request("GET", f"{self.url}/manifests/{name}", headers=accept) as response:
            data = await self._http.content(response, MAX_MANIFEST + 1)
            kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if len(data) > MAX_MANIFEST:
            raise DataCorrupt(f"manifest {name}: it has more than {MAX_MANIFEST} bytes")
        digest = digest_of(data)
        if ":" in name and digest != parse_digest(name):
            raise DataCorrupt(f"manifest {name}: its content hashes to {digest}")
        check_manifest(name, kind, data)
        return Descriptor(media_type=kind, digest=digest, size=len(data)), data

    async def tags(self) -> list[str]:
        """All, over as many pages as there are."""
        found: list[str] = []
        url = f"{self.url}/tags/list"
        while url and len(found) < _MOST_TAGS:
            data, following = await self._http.again(self._requests, functools.partial(self._page, url))
            try:
                found += msgspec.json.decode(data, type=_Tags).tags or ()
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataCorrupt(f"the tags of {self.path}: {error}") from error
            url = str(URL(url).join(URL(following, encoded=True))) if following else ""
        return found

    async def _page(self, url: str) -> tuple[bytes, str]:
        async with self.request("GET", url) as response:
            match = _NEXT.search(response.headers.get("Link", ""))
            return await self._http.content(response, MAX_MANIFEST), match[1] if match else ""

    async def blob(self, wanted: Descriptor, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """A blob's bytes from `offset` on, as they come; one try. Raises DataCorrupt when the registry has another
        length for it; whoever reads sees to its digest."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        url = f"{self.url}/blobs/{wanted.digest}"
        async with self.request("GET", url, good=(200, 206) if offset else (200,), headers=headers) as response:
            skip = offset
            if response.status == 206:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                    raise DataCorrupt(f"blob {wanted.digest}: the registry sends another range than was asked for")
                skip = 0
            length = response.content_length
            if length is not None and length != wanted.size - offset + skip:
                raise DataCorrupt(
                    f"blob {wanted.digest}: the registry has {length + offset - skip} bytes instead of {wanted.size}"
                )
            async with contextlib.aclosing(self._http.pieces(response)) as pieces:
                async for piece in pieces:
                    if skip:
                        piece, skip = piece[skip:], max(0, skip - len(piece))
                    if piece:
                        yield piece

    # --- Writing ----------------------------------------------------------------------------------

    async def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has it already."""

        async def look() -> bool:
            async with self.request("HEAD", f"{self.url}/blobs/{digest}", good=(200, 404)) as response:
                return response.status == 200

        return await self._http.again(self._requests, look)

    async def put_manifest(self, name: str, media_type: str, data: bytes) -> None:
        """Give a document a tag, or its digest for a name. Raises DataCorrupt when the registry took it for another."""

        async def put() -> str:
            async with self.request(
                "PUT", f"{self.url}/manifests/{name}", good=(200, 201, 202), headers={"Content-Type": media_type},
                body=data,
            ) as response:  # fmt: skip
                return response.headers.get("Docker-Content-Digest", "")

        stored, digest = await self._http.again(self._requests, put), digest_of(data)
        if stored and stored != digest:
            raise DataCorrupt(f"manifest {name}: the registry calls {digest} {stored}")

    def add_source(self, path: str) -> None:
        """Blobs will be mounted from there: the token must be good for it too."""
        self._authorizer.add_scope(f"repository:{path}:pull")

    async def forget(self, upload: str) -> None:
        """Give up an upload; whether the registry minds is its own affair."""
        with contextlib.suppress(SampanError):
            async with self.request("DELETE", upload, good=(200, 202, 204)):
                pass


def check_manifest(name: str, kind: str, data: bytes) -> None:
    """What a document says of itself must be what the registry says of it, and one thing alone: otherwise two readers
    of the same digest could see two images (CVE-2021-41190). Raises DataCorrupt, Unsupported."""
    if kind.startswith(_SCHEMA_1):
        raise Unsupported(
            f"manifest {name}: it is of schema 1, which Docker gave up in 2017, and not supported: push the image again"
        )
    if kind not in (*MANIFESTS, *INDEXES):
        raise DataCorrupt(f"manifest {name}: media type {kind or 'none'} is not supported")
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataCorrupt(f"manifest {name}: {error}") from error
    if head.schema_version == 1:
        raise Unsupported(f"manifest {name}: it is of schema 1, and not supported: push the image again")
    if head.media_type and head.media_type != kind:
        raise DataCorrupt(f"manifest {name}: the registry calls it {kind}, and it calls itself {head.media_type}")
    is_manifest, is_index = _given(head.config) or _given(head.layers), _given(head.manifests)
    if is_manifest and is_index:
        raise DataCorrupt(f"manifest {name}: it is both a manifest and an index")
    if (is_manifest and kind in INDEXES) or (is_index and kind in MANIFESTS):
        raise DataCorrupt(f"manifest {name}: it is not the {kind} that it is called")


def _given(value: msgspec.Raw) -> bool:
    return bytes(value) not in (b"", b"null")
