"""The pool of sandboxes, with a controller and a spawner that only note what they are asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, cast

import pytest

from sampan.network.controller import NetworkController
from sampan.network.endpoints import Endpoint
from sampan.network.sandboxes import SandboxPool


class _Noting:
    """`allocate`, `attach` and `discard` of a controller."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def allocate(self, network: str, container_id: str, *, mac: str) -> Endpoint:
        self.notes.append("allocate")
        return Endpoint(id="e", sandbox_id="s", network=network, network_id="n", path="/pin")

    def attach(self, endpoint: Endpoint, descriptor: int) -> None:
        self.notes.append("attach")

    def discard(self, endpoint: Endpoint) -> None:
        self.notes.append("discard")


async def test_one_that_nobody_waits_for_any_more_is_removed_when_it_is_there() -> None:
    controller = _Noting()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def open_netns(path: str) -> int:
        asked.set()
        await answer.wait()
        controller.notes.append("pinned")
        return os.open("/dev/null", os.O_RDONLY)

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    pool = SandboxPool(cast(NetworkController, controller), open_netns, open_netns, run)
    taking = asyncio.create_task(pool.take("bridge", "box"))
    await asked.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    answer.set()
    await pool.close()
    assert controller.notes == ["allocate", "pinned", "attach", "discard"]
