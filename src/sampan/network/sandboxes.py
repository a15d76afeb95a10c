"""Sandboxes made ahead, so that a start takes one in microseconds instead of waiting for the kernel.

The one module of this layer that uses asyncio: the engine owns the loop, the spawner makes the namespaces.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sampan.network.controller import NetworkController
from sampan.network.endpoints import Endpoint


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

    def start(self) -> None:
        """Begin filling in the background. Call after `controller.adopt`."""

    async def take(self, network: str, container_id: str, *, mac: str = "") -> Endpoint:
        """A wired sandbox on `bridge` or `none`, claimed for the container: a ready one, or else one made now."""

    async def release(self, container_id: str) -> None:
        """Release what the container holds: rules at once, the namespace in the background."""

    async def close(self) -> None:
        """Stop filling and discard the unused sandboxes."""
