"""An image's layers, made while they come: the blob's file is the buffer between who fetches and who makes.

```
registry ─▶ Downloads ─▶ content/ingest/… ─▶ Follower ─▶ decompressed ─▶ make_body ──┐
            (verifies)   (whole: a blob)     (a thread)                  (verifies)   ├─▶ add_layer, bottom first
                                                      the layer below it stands ──────┘
```

Several layers at a time, as a body needs no parent yet. A blob is decompressed before it is verified: what a body is
made of by then is thrown away with it when it turns out to be another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from sampan.core.compression import decompressed
from sampan.core.content import Follower, Ingest
from sampan.core.remotes.download import Downloads, short
from sampan.core.remotes.http import RunBlocking
from sampan.core.remotes.progress import Meter, OnProgress, Progress
from sampan.core.remotes.remote import Remote
from sampan.core.service import Core
from sampan.core.snapshots import Body
from sampan.errors import InvalidArgument
from sampan.oci.digest import ChainID, Digest, chain_ids
from sampan.oci.image import Descriptor, ImageConfig, Manifest

_MAKERS = min(4, os.cpu_count() or 1)
"""Layers in the making at a time; they wait for what is fetched, so in threads of their own."""
_TICK = 0.1


class _Wanted:
    """A layer of an image that is not here."""

    def __init__(self, blob: Descriptor, diff_id: Digest, chain_id: ChainID) -> None:
        self.blob = blob
        self.diff_id = diff_id
        self.chain_id = chain_id
        self.parent: ChainID | None = None
        self.below: _Wanted | None = None
        """The parent, where that is wanted too."""
        self.plain = blob.digest == diff_id
        """Not compressed: it is the layer's tar."""
        self.stands = asyncio.Event()


class Layers:
    """Of all pulls of an engine. For its loop alone."""

    def __init__(self, core: Core, downloads: Downloads, run_blocking: RunBlocking) -> None:
        self._core = core
        self._downloads = downloads
        self._run_blocking = run_blocking
        self._threads = ThreadPoolExecutor(_MAKERS, thread_name_prefix="layers")
        self._locks: weakref.WeakValueDictionary[ChainID, asyncio.Lock] = weakref.WeakValueDictionary()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def make(
        self, remote: Remote, repository: str, manifest: Manifest, config: ImageConfig, tell: OnProgress
    ) -> None:
        """Have all layers here; the first failure ends all. `repository`: where they come from, to be remembered."""
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise InvalidArgument(f"invalid image: {len(manifest.layers)} layers, and {len(diff_ids)} diff ids")
        chain = chain_ids(diff_ids)
        standing = await self._run_blocking(self._standing, chain)
        wanted: list[_Wanted] = []
        parent: ChainID | None = None
        for layer, diff_id, chain_id in zip(manifest.layers, diff_ids, chain, strict=True):
            if chain_id in standing:
                await tell(Progress(status="Already exists", id=short(layer)))
            else:
                each = _Wanted(layer, diff_id, chain_id)
                each.parent = parent
                each.below = wanted[-1] if wanted else None
                wanted.append(each)
                await tell(Progress(status="Pulling fs layer", id=short(layer)))
            parent = chain_id
        try:
            async with asyncio.TaskGroup() as group:
                for each in wanted:
                    group.create_task(self._have(remote, repository, each, tell))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _standing(self, chain: Sequence[ChainID]) -> set[ChainID]:
        """Those that are here; they stay (`core.pins`)."""
        for chain_id in chain:
            self._core.pins.pin(chain_id)
        return {chain_id for chain_id in chain if self._core.snapshots.has_layer(chain_id)}

    async def _have(self, remote: Remote, repository: str, wanted: _Wanted, tell: OnProgress) -> None:
        lock = self._locks.setdefault(wanted.chain_id, asyncio.Lock())
        if lock.locked():
            # Another pull makes it: its progress is ours. The blob is there then should that one fail.
            await self._downloads.fetch(remote, wanted.blob, tell)
        async with lock:
            if not await self._run_blocking(self._core.snapshots.has_layer, wanted.chain_id):
                await self._make(remote, wanted, tell)
                await self._run_blocking(self._core.known.remember, wanted.diff_id, wanted.blob, repository)
        wanted.stands.set()
        await tell(Progress(status="Pull complete", id=short(wanted.blob)))

    async def _make(self, remote: Remote, wanted: _Wanted, tell: OnProgress) -> None:
        body = await self._body(remote, wanted, tell)
        try:
            if wanted.below is not None:
                await wanted.below.stands.wait()
        except BaseException:
            await to_its_end(self._run_blocking(self._core.snapshots.discard, body.name))
            raise
        await to_its_end(self._run_blocking(self._core.snapshots.add_layer, wanted.chain_id, wanted.parent, body))

    async def _body(self, remote: Remote, wanted: _Wanted, tell: OnProgress) -> Body:
        making = _Making(self._core, self._threads, wanted)
        try:
            await self._downloads.fetch(remote, wanted.blob, tell, None if wanted.plain else making.begin)
            making.ensure()
            return await making.told(tell)
        except BaseException:
            await to_its_end(making.give_up())
            raise


class _Making:
    """A body in the making, by a thread."""

    def __init__(self, core: Core, threads: ThreadPoolExecutor, wanted: _Wanted) -> None:
        self._core = core
        self._threads = threads
        self._wanted = wanted
        self._sources: list[Follower] = []
        self._tasks: list[asyncio.Future[Body]] = []
        """The last one counts: what those before it read was given up, and fetched from elsewhere."""

    def begin(self, ingest: Ingest) -> None:
        """From what comes."""
        self._follow(ingest.follow())

    def ensure(self) -> None:
        """From the blob, which is there, where nothing has begun."""
        digest = self._wanted.blob.digest
        if self._wanted.plain:
            # It becomes the layer's tar as it is, by one more name.
            path = self._core.content.path(digest)
            self._start(lambda: self._core.snapshots.adopt_body(self._wanted.diff_id, path))
        elif not self._tasks:
            self._follow(self._core.content.follow(digest))

    def _follow(self, source: Follower) -> None:
        def make() -> Body:
            with source:
                return self._core.snapshots.make_body(self._wanted.diff_id, decompressed(cast(BinaryIO, source)))

        self._sources.append(source)
        self._start(make)

    def _start(self, make: Callable[[], Body]) -> None:
        run = contextvars.copy_context().run
        self._tasks.append(asyncio.get_running_loop().run_in_executor(self._threads, run, make))

    async def told(self, tell: OnProgress) -> Body:
        """The body, and meanwhile how much of the blob has been read. Raises what `make_body` does."""
        blob, task = self._wanted.blob, self._tasks[-1]
        meter = Meter(tell, "Extracting", short(blob), blob.size)
        while not (await asyncio.wait({task}, timeout=_TICK))[0]:
            if self._sources:
                await meter.at(self._sources[-1].offset)
        await self._discard(self._tasks[:-1])
        await tell(Progress(status="Extracting", id=short(blob), current=blob.size, total=blob.size))
        return task.result()

    async def give_up(self) -> None:
        """Nothing is left of it then."""
        for source in self._sources:
            source.give_up()
        await self._discard(self._tasks)

    async def _discard(self, tasks: Sequence[asyncio.Future[Body]]) -> None:
        for each in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(each, Body):
                await asyncio.get_running_loop().run_in_executor(None, self._core.snapshots.discard, each.name)


async def to_its_end(work: Awaitable[object]) -> None:
    """Cancelled or not: a thread that makes layers must have ended before a collection may run."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait({task})
