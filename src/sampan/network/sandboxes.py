"""Sandboxes made ahead, so that a start takes one in microseconds instead of waiting for the kernel.

Making a network namespace and wiring it takes the kernel some milliseconds, most of it under one lock for the whole
machine; taking it down, longer. Neither is on the way of a start or of a removal: ready ones are kept, and what is
used up is made again, and what is over taken down, in the background, one at a time. The same task of the engine's
loop notices when something else on the host flushes our rules, and has them restored.

The one module of this layer that uses asyncio: the engine owns the loop, the spawner makes the namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from sampan.errors import NotFound, SampanError
from sampan.linux.netlink.socket import Netlink
from sampan.network.controller import NetworkController
from sampan.network.endpoints import Endpoint

_DEFAULT_SIZES = {"bridge": 3, "none": 2}
_QUIET = 0.02
"""Seconds without a start after which filling begins: the start that has just taken one wants the processors."""
_SETTLE = 0.2
"""Seconds from a change of the host's rules to the check of ours: changes come in bursts, most of them our own."""
_RETRY = 5.0
"""Seconds to wait after a failure to make one; it will be reported by whoever needs it next."""


class SandboxPool:
    def __init__(
        self,
        controller: NetworkController,
        open_netns: Callable[[str], Awaitable[int]],
        enter_netns: Callable[[str], Awaitable[int]],
        run_blocking: Callable[..., Awaitable[Any]],
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """`open_netns(path)`: core.tasks.Spawner's; makes and pins a namespace, returns a NETLINK_ROUTE socket in it.
        `enter_netns(path)`: the same for one that is there.
        `run_blocking(function, *args)`: engine.blocking's. `sizes`: how many to keep ready by network name."""
        self._controller = controller
        self._open_netns = open_netns
        self._enter_netns = enter_netns
        self._run = run_blocking
        self._sizes = dict(_DEFAULT_SIZES if sizes is None else sizes)
        self._ready: dict[str, deque[Endpoint]] = {name: deque() for name in self._sizes}
        self._wanted = asyncio.Event()
        self._last_take = 0.0
        self._filler: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._watch: Netlink | None = None
        self._check: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin filling, and watching the rules, in the background. Call after `controller.adopt`, which removes a
        former engine's pool. Raises Unavailable."""
        if self._filler is None:
            self._watch = self._controller.watch()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._rules_changed)
            self._wanted.set()
            self._filler = asyncio.create_task(self._fill(), name="sandbox pool")

    def ready(self, network: str) -> int:
        """How many are ready."""
        return len(self._ready.get(network, ()))

    async def take(self, network: str, container_id: str, *, mac: str = "", bare: bool = False) -> Endpoint:
        """A wired sandbox on `bridge` or `none`, claimed for the container: a ready one, or else one made now. `bare`:
        one on `none` that stands for no network.

        Raises what `controller.allocate` and `attach` raise; then nothing is left.
        """
        ready = self._ready.get(network)
        self._last_take = asyncio.get_running_loop().time()
        if ready and not mac:
            endpoint = ready.popleft()
            self._wanted.set()
            try:
                # One short write to the database; a thread would cost more than it.
                return self._controller.claim(endpoint, container_id, bare=bare)
            except BaseException:
                self._in_background(self._discard(endpoint))
                raise
        made = await self._make(network, container_id, mac)
        if not bare:
            return made
        try:
            return self._controller.claim(made, container_id, bare=True)
        except BaseException:
            self._in_background(self._discard(made))
            raise

    async def connect(
        self, container_id: str, network: str, *, ip: str = "", ip6: str = "", mac: str = "", priority: int = 0
    ) -> Endpoint:
        """Put the sandbox that the container holds onto a network. Raises what `controller.connect` raises."""
        held = self._controller.endpoint(container_id)
        if held is None:
            raise NotFound(f"container {container_id} has no sandbox")
        descriptor = await self._enter_netns(held.path)
        try:
            made: Endpoint = await self._run(
                lambda: self._controller.connect(
                    container_id, network, descriptor, ip=ip, ip6=ip6, mac=mac, priority=priority
                )
            )  # fmt: skip
        finally:
            os.close(descriptor)
        return made

    async def disconnect(self, container_id: str, network: str) -> Endpoint:
        """Take it off one. Raises what `controller.disconnect` raises."""
        held = self._controller.endpoint(container_id)
        if held is None:
            raise NotFound(f"container {container_id} has no sandbox")
        descriptor = await self._enter_netns(held.path)
        try:
            gone: Endpoint = await self._run(self._controller.disconnect, container_id, network, descriptor)
        finally:
            os.close(descriptor)
        return gone

    async def release(self, container_id: str) -> None:
        """Release what the container holds. Ports are withdrawn and free when this returns; the namespace, unless
        there were ports, may go a moment later."""
        endpoint = self._controller.endpoint(container_id)
        if endpoint is None:
            return
        several = endpoint.bare or len(self._controller.endpoints(container_id)) > 1
        if several or self._controller.bindings(container_id):
            await self._run(self._controller.release, container_id)
            return
        # By endpoint: the container may hold another one by then.
        self._in_background(self._discard_later(endpoint))

    async def close(self) -> None:
        """Stop filling, discard the unused sandboxes and wait for what is under way."""
        if self._filler is not None:
            self._filler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filler
            self._filler = None
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
        if self._check is not None:
            self._check.cancel()
        for ready in self._ready.values():
            while ready:
                await self._discard(ready.popleft())
        if self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    def _rules_changed(self) -> None:
        if self._watch is None:
            return
        with contextlib.suppress(OSError):  # ENOBUFS: more than the queue holds; what it was does not matter.
            self._watch.events()
        if self._check is None:
            self._check = asyncio.get_running_loop().call_later(_SETTLE, self._check_rules)

    def _check_rules(self) -> None:
        self._check = None
        self._in_background(self._repair())

    async def _repair(self) -> None:
        # Where the rules cannot be restored now, whoever publishes next reports it.
        with contextlib.suppress(SampanError):
            await self._run(self._controller.repair)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _discard_later(self, endpoint: Endpoint) -> None:
        """When those who wait for the container's end have heard of it: taking a namespace down takes the processors'
        time from that."""
        await asyncio.sleep(_QUIET)
        await self._discard(endpoint)

    async def _make(self, network: str, container_id: str, mac: str) -> Endpoint:
        making = asyncio.ensure_future(self._made(network, container_id, mac))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            self._in_background(self._discard_made(making))
            raise

    async def _discard_made(self, making: asyncio.Task[Endpoint]) -> None:
        """What the spawner and the threads have begun goes on; only when it is there can it be removed."""
        with contextlib.suppress(SampanError, OSError):
            await self._discard(await making)

    async def _made(self, network: str, container_id: str, mac: str) -> Endpoint:
        endpoint: Endpoint = await self._run(lambda: self._controller.allocate(network, container_id, mac=mac))
        try:
            fd = await self._open_netns(endpoint.path)
            try:
                await self._run(self._controller.attach, endpoint, fd)
            finally:
                os.close(fd)
        except BaseException:
            # Not awaited: what failed may be a cancellation, and the caller has its answer.
            self._in_background(self._discard(endpoint))
            raise
        return endpoint

    async def _discard(self, endpoint: Endpoint) -> None:
        # A failure leaves the row, and the next engine's adoption tries again.
        with contextlib.suppress(SampanError):
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
