"""Blobs into the content store: several at a time, each one once however many want it, verified while it comes.

A connection that breaks is taken up again where it broke off. Whoever began a download leads it; others who want the
same blob follow, and begin it themselves should the leader fail or leave.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from sampan.core.content import ContentStore, Ingest
from sampan.core.remotes.http import ConnectionBroke, RunBlocking
from sampan.core.remotes.progress import Meter, OnProgress, Progress
from sampan.core.remotes.refusals import RateLimited, ServerStumbled
from sampan.core.remotes.remote import Remote
from sampan.core.remotes.repository import Repository
from sampan.errors import DataCorrupt, SampanError
from sampan.oci.digest import Digest, encoded
from sampan.oci.image import Descriptor

_HEADWAY = 1 << 20
"""Bytes after which a connection that breaks counts as the first one again."""
_TICK = 0.1

OnIngest = Callable[[Ingest], None]


class Downloads:
    """All of an engine. For its loop alone."""

    def __init__(self, content: ContentStore, limit: int, run_blocking: RunBlocking) -> None:
        self._content = content
        self._gate = asyncio.Semaphore(limit)
        self._run_blocking = run_blocking
        self._running: dict[Digest, _Download] = {}

    async def fetch(
        self, remote: Remote, wanted: Descriptor, tell: OnProgress, on_ingest: OnIngest | None = None
    ) -> None:
        """Have the blob here, whole. Raises what the registry and the store raise; then nothing of it is left.
        `on_ingest` is given what is about to come, if it does not come for somebody else: perhaps several times, when
        one source after the other fails."""
        while not await self._run_blocking(self._content.has, wanted.digest, wanted.size):
            running = self._running.get(wanted.digest)
            if running is None:
                await self._lead(remote, wanted, tell, on_ingest)
                return
            with contextlib.suppress(SampanError, asyncio.InvalidStateError):
                # That one may have had other credentials, or another registry: its failure is not ours.
                await running.follow(tell)
        await tell(Progress(status="Already exists", id=short(wanted)))

    async def _lead(
        self, remote: Remote, wanted: Descriptor, tell: OnProgress, on_ingest: OnIngest | None
    ) -> None:  # fmt: skip
        download = _Download(wanted, on_ingest)
        download.task = asyncio.create_task(self._download(remote, download))
        self._running[wanted.digest] = download
        try:
            if not await download.follow(tell):
                raise asyncio.CancelledError
        finally:
            del self._running[wanted.digest]
            if not download.task.done():
                download.task.cancel()
                await asyncio.wait({download.task})
        await tell(Progress(status="Download complete", id=short(wanted)))

    async def _download(self, remote: Remote, download: _Download) -> None:
        async with self._gate:
            await remote.first(lambda source: self._from(source, download))

    async def _from(self, source: Repository, download: _Download) -> None:
        with self._content.ingest() as blob:
            if download.on_ingest is not None:
                download.on_ingest(blob)
            await self._receive(source, download, blob)
            download.say("Verifying Checksum")
            await self._run_blocking(blob.commit, download.wanted.digest, download.wanted.size)

    async def _receive(self, source: Repository, download: _Download, blob: Ingest) -> None:
        attempt = 0
        while True:
            before = blob.size
            try:
                await self._pour(source, download, blob)
                return
            except (ConnectionBroke, ServerStumbled, RateLimited) as error:
                attempt = 1 if blob.size - before >= _HEADWAY else attempt + 1
                if attempt >= source.attempts:
                    raise
                download.say("Retrying")
                if not await source.rest(attempt - 1, error):
                    raise

    async def _pour(self, source: Repository, download: _Download, blob: Ingest) -> None:
        """One connection's worth."""
        wanted = download.wanted
        async with contextlib.aclosing(source.blob(wanted, blob.size)) as pieces:
            async for piece in pieces:
                if blob.size + len(piece) > wanted.size:
                    raise DataCorrupt(f"blob {wanted.digest}: the registry sends more than {wanted.size} bytes")
                await self._run_blocking(blob.write, piece)
                download.current = blob.size
        if blob.size < wanted.size:
            raise ConnectionBroke(f"blob {wanted.digest}: unexpected EOF after {blob.size} of {wanted.size} bytes")


class _Download:
    """What a blob's followers see of it."""

    task: asyncio.Task[None]

    def __init__(self, wanted: Descriptor, on_ingest: OnIngest | None) -> None:
        self.wanted = wanted
        self.on_ingest = on_ingest
        self.current = 0
        self._said: list[str] = []

    def say(self, status: str) -> None:
        self._said.append(status)

    async def follow(self, tell: OnProgress) -> bool:
        """To its end; False if it was cancelled. Raises what it raises."""
        identifier = short(self.wanted)
        meter = Meter(tell, "Downloading", identifier, self.wanted.size)
        told = len(self._said)
        while True:
            done = bool((await asyncio.wait({self.task}, timeout=_TICK))[0])
            while told < len(self._said):
                told += 1
                await tell(Progress(status=self._said[told - 1], id=identifier))
            if done:
                break
            if self.current:
                await meter.at(self.current)
        if self.task.cancelled():
            return False
        self.task.result()
        return True


def short(layer: Descriptor) -> str:
    return encoded(layer.digest)[:12]
