"""Sandboxes made ahead, so that a start takes one in microseconds instead of waiting for the kernel.

Making a network namespace and wiring it takes the kernel some milliseconds, most of it under one lock for the whole
machine; taking it down, longer. Neither is on the way of a start or of a removal: ready ones are kept, and what is
used up is made again, and what is over taken down, in the background, one at a time.

The one module of this layer that uses asyncio: the engine owns the loop, the spawner makes the namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sampan.errors import SampanError
from sampan.network.controller import NetworkController
from sampan.network.endpoints import Endpoint

_DEFAULT_SIZES = {"bridge": 3, "none": 2}
_QUIET = 0.02
"""Seconds without a start after which filling begins: the start that has just taken one wants the processors."""
_RETRY = 5.0
"""Seconds to wait after a failure to make one; it will be reported by whoever needs it next."""


class SandboxPool:
    def __init__(
        self,
        controller: NetworkController,
        open_netns: Callable[[str], Awaitable[int]],
        run_blocking: Callable[..., Awaitable[Any]],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """`open_netns(path)`: core.tasks.Spawner's; makes and pins a namespace, returns a NETLINK_ROUTE socket in it.
        `run_blocking(function, *args)`: engine.blocking's. `sizes`: how many to keep ready by network name."""
        self._controller = controller
        self._open_netns = open_netns
        self._run = run_blocking
        self._sizes = dict(_DEFAULT_SIZES if sizes is None else sizes)
        self._ready: dict[str, deque[Endpoint]] = {name: deque() for name in self._sizes}
        self._wanted = asyncio.Event()
        self._last_take = 0.0
        self._filler: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin filling in the background. Call after `controller.adopt`, which removes a former engine's pool."""
        if self._filler is None:
            self._wanted.set()
            self._filler = asyncio.create_task(self._fill(), name="sandbox pool")

    def ready(self, network: str) -> int:
        """How many are ready."""
        return len(self._ready.get(network, ()))

    async def take(self, network: str, container_id: str, *, mac: str = "") -> Endpoint:
        """A wired sandbox on `bridge` or `none`, claimed for the container: a ready one, or else one made now.

        Raises what `controller.allocate` and `attach` raise; then nothing is left.
        """
        ready = self._ready.get(network)
        self._last_take = asyncio.get_running_loop().time()
        if ready and not mac:
            endpoint = ready.popleft()
            self._wanted.set()
            # One short write to the database; a thread would cost more than it.
            return self._controller.claim(endpoint, container_id)
        return await self._make(network, container_id, mac)

    async def release(self, container_id: str) -> None:
        """Release what the container holds. Ports are withdrawn and free when this returns; the namespace, unless
        there were ports, may go a moment later."""
        if self._controller.bindings(container_id):
            await self._run(self._controller.release, container_id)
            return
        task = asyncio.create_task(self._release(container_id))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def close(self) -> None:
        """Stop filling, discard the unused sandboxes and wait for releases under way."""
        if self._filler is not None:
            self._filler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filler
            self._filler = None
        for ready in self._ready.values():
            while ready:
                with contextlib.suppress(SampanError):
                    await self._run(self._controller.discard, ready.popleft())
        if self._releases:
            await asyncio.gather(*self._releases, return_exceptions=True)

    async def _release(self, container_id: str) -> None:
        # A failure leaves the row, and the next engine's adoption tries again.
        with contextlib.suppress(SampanError):
            await self._run(self._controller.release, container_id)

    async def _make(self, network: str, container_id: str, mac: str) -> Endpoint:
        endpoint: Endpoint = await self._run(lambda: self._controller.allocate(network, container_id, mac=mac))
        try:
            fd = await self._open_netns(endpoint.path)
            try:
                await self._run(self._controller.attach, endpoint, fd)
            finally:
                os.close(fd)
        except BaseException:
            with contextlib.suppress(SampanError):
                await asyncio.shield(self._run_discard(endpoint))
            raise
        return endpoint

    async def _run_discard(self, endpoint: Endpoint) -> None:
        await self._run(self._controller.discard, endpoint)

    async def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for network, ready in self._ready.items():
                while len(ready) < self._sizes[network]:
                    # While starts follow one another closely, fill only what would otherwise run dry.
                    while len(ready) and (rest := self._last_take + _QUIET - loop.time()) > 0:
                        await asyncio.sleep(rest)
                    try:
                        ready.append(await self._make(network, "", ""))
                    except (SampanError, OSError):
                        loop.call_later(_RETRY, self._wanted.set)
                        break
