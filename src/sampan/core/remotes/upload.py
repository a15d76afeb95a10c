"""One blob into a repository: mounted from another one, or sent; taken up again where a connection broke.

```
POST …/blobs/uploads/?mount=DIGEST&from=NAME ─▶ 201: mounted
                                              ─▶ 202 Location: an upload
PUT Location?digest=DIGEST, all of it         ─▶ 201                       (a small one)
PATCH Location, as much as there is           ─▶ 202 Location, Range: 0-N  (a large one)
  broken off: GET Location                    ─▶ 204 Location, Range: 0-N, and PATCH the rest; or begin anew
PUT Location?digest=DIGEST                    ─▶ 201
```

distribution-spec, "Push". A registry that takes no large bodies gets them in pieces.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import BinaryIO

import aiohttp
from yarl import URL

from sampan.core.remotes.http import ConnectionBroke, RunBlocking
from sampan.core.remotes.refusals import RateLimited, ServerStumbled, TooLarge
from sampan.core.remotes.repository import Repository
from sampan.errors import DataCorrupt, InvalidArgument, NotFound, SampanError, Unavailable
from sampan.oci.image import Descriptor

_SMALL = 4 << 20
"""Bytes that go in one request."""
_PIECE = 8 << 20
"""Bytes of one request, where a registry takes no more at once."""
_READ = 256 << 10
_MOST_SOURCES = 4
_OCTETS = {"Content-Type": "application/octet-stream"}
_NOTHING = {"Content-Length": "0"}
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")

OnBytes = Callable[[int], Awaitable[None]]
OpenBlob = Callable[[], BinaryIO]


class Upload:
    """`open_blob` gives the blob's file, from its beginning; `on_bytes` is told how much has gone."""

    def __init__(
        self, repository: Repository, blob: Descriptor, open_blob: OpenBlob, on_bytes: OnBytes,
        run_blocking: RunBlocking,
    ) -> None:  # fmt: skip
        self._repository = repository
        self._blob = blob
        self._open = open_blob
        self._on_bytes = on_bytes
        self._run_blocking = run_blocking
        self._piece = 0
        self._location = ""
        self._offset = 0

    async def run(self, sources: Sequence[str] = ()) -> str:
        """Returns the repository that it was mounted from, or nothing if it was sent. Raises what the registry says."""
        for source in sources[:_MOST_SOURCES]:
            if await mount(self._repository, self._blob, source):
                return source
        attempt = 0
        while True:
            before = self._offset
            if attempt and not self._location and await self._repository.has_blob(self._blob.digest):
                return ""  # It was the answer that got lost.
            try:
                await self._send()
                return ""
            except TooLarge:
                if self._piece:
                    raise
                self._piece, self._location = _PIECE, ""
            except (ConnectionBroke, ServerStumbled, RateLimited) as error:
                await self._find_place()
                attempt = 1 if self._offset > before else attempt + 1
                if attempt >= self._repository.attempts or not await self._repository.rest(attempt - 1, error):
                    raise
            except NotFound:
                # The registry has forgotten the upload.
                attempt += 1
                if attempt >= self._repository.attempts:
                    raise
                self._location = ""

    async def _begin(self) -> None:
        async with self._repository.request(
            "POST", f"{self._repository.url}/blobs/uploads/", good=(202,), headers=_NOTHING
        ) as response:
            self._location = _place(response, self._blob)
        self._offset = 0

    async def _find_place(self) -> None:
        """Where the registry is with it, after a connection that broke; from the beginning if that can't be known."""
        if not self._location or (not self._offset and self._blob.size <= _SMALL):
            self._location = ""
            return
        try:
            async with self._repository.request("GET", self._location, good=(200, 204)) as response:
                self._location = _place(response, self._blob)
                # `0-0` is said of nothing as well as of one byte.
                self._offset = (_reached(response) or 1) if _reached(response) != 1 else 0
        except SampanError:
            self._location = ""
        if self._offset > self._blob.size:
            self._location = ""

    async def _send(self) -> None:
        if not self._location:
            await self._begin()
        size = self._blob.size
        if not self._offset and size <= (self._piece or _SMALL):
            await self._finish(0, size)
            return
        while self._offset < size:
            length = min(size - self._offset, self._piece or size)
            await self._patch(length, whole=length == size)
        await self._finish(size, 0)

    async def _patch(self, length: int, *, whole: bool) -> None:
        headers = {**_OCTETS, "Content-Length": str(length)}
        if not whole:
            headers["Content-Range"] = f"{self._offset}-{self._offset + length - 1}"
        begin = self._offset
        try:
            async with self._repository.request(
                "PATCH", self._location, good=(202, 204), headers=headers, body=lambda: self._bytes(begin, length)
            ) as response:
                self._location = _place(response, self._blob)
                reached = _reached(response)
        except TooLarge:
            raise
        except InvalidArgument as error:
            # Another place than the registry's (416), or a state that it does not know any more.
            self._location, self._offset = "", 0
            raise ServerStumbled(error.message) from error
        self._offset = begin + length if reached is None else reached
        if not begin < self._offset <= begin + length:
            raise DataCorrupt(f"blob {self._blob.digest}: the registry has {self._offset} bytes after {begin + length}")

    async def _finish(self, begin: int, length: int) -> None:
        separator = "&" if "?" in self._location else "?"
        url = f"{self._location}{separator}digest={urllib.parse.quote(self._blob.digest)}"
        headers = {**_OCTETS, "Content-Length": str(length)}
        async with self._repository.request(
            "PUT", url, good=(201, 204), headers=headers, body=lambda: self._bytes(begin, length)
        ):
            await self._on_bytes(self._blob.size)

    async def _bytes(self, begin: int, length: int) -> AsyncIterator[bytes]:
        """A part of the blob, piece by piece."""
        if not length:
            return
        file = await self._run_blocking(self._open)
        try:
            if begin:
                await self._run_blocking(file.seek, begin)
            left = length
            while left:
                data = await self._run_blocking(file.read, min(_READ, left))
                if not data:
                    raise DataCorrupt(f"blob {self._blob.digest}: it is shorter than its {self._blob.size} bytes")
                left -= len(data)
                yield data
                await self._on_bytes(begin + length - left)
        finally:
            file.close()


async def mount(repository: Repository, blob: Descriptor, source: str) -> bool:
    """Whether the registry took a blob from another one of its repositories."""
    repository.add_source(source)
    query = urllib.parse.urlencode({"mount": blob.digest, "from": source})
    async with repository.request(
        "POST", f"{repository.url}/blobs/uploads/?{query}", good=(201, 202), headers=_NOTHING
    ) as response:
        if response.status == 201:
            return True
        begun = _place(response, blob)
    await repository.forget(begun)
    return False


def _place(response: aiohttp.ClientResponse, blob: Descriptor) -> str:
    """Where an upload goes on."""
    place = response.headers.get("Location", "")
    if not place:
        raise Unavailable(f"blob {blob.digest}: the registry does not say where to upload it")
    return str(response.url.join(URL(place, encoded=True)))


def _reached(response: aiohttp.ClientResponse) -> int | None:
    """How many bytes the registry says it has; None if it does not say."""
    match = _RANGE.fullmatch(response.headers.get("Range", ""))
    return int(match[1]) + 1 if match else None
