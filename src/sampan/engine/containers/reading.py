"""A container's files for those who read them: whole, as changes, and as an image; running or not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from sampan.core.snapshots import View
from sampan.engine.blocking import run_blocking
from sampan.engine.containers.container import Container
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_FROZEN = "frozen"
"""The intent that says that a container is paused for us alone."""


@contextlib.asynccontextmanager
async def view(engine: Engine, container: Container) -> AsyncIterator[View]:
    """Its files, whatever becomes of it meanwhile. Nobody has to wait for who reads."""
    if container.running:
        opened = await run_blocking(engine.core.snapshots.open_view, container.id)
    else:
        # What is mounted to be looked at must not meet a start or an end.
        async with container.lock:
            await container.unmounted.wait()
            opened = await run_blocking(engine.core.snapshots.open_view, container.id)
    try:
        yield opened
    finally:
        await run_blocking(opened.close)


@contextlib.asynccontextmanager
async def frozen(engine: Engine, container: Container, wanted: bool) -> AsyncIterator[None]:
    """Paused, if it runs and is not paused by somebody else. An engine that is killed meanwhile leaves it so: the next
    one lets it go on (`thaw`)."""
    if not wanted or not container.running or container.paused or container.restarting:
        yield
        return
    metadata = engine.core.metadata
    intent = await run_blocking(metadata.begin, _FROZEN, container.id)
    try:
        await engine.containers.pause(container)
        try:
            yield
        finally:
            with contextlib.suppress(SampanError):  # It may have been stopped, or let go on, by somebody else.
                await engine.containers.unpause(container)
    finally:
        await run_blocking(metadata.settle, intent)


async def thaw(engine: Engine) -> None:
    """At the start: let go on what an engine before us paused for itself."""
    for intent in await run_blocking(engine.core.metadata.pending, _FROZEN):
        with contextlib.suppress(SampanError):
            await engine.containers.unpause(engine.containers.resolve(intent.subject))
        await run_blocking(engine.core.metadata.settle, intent.id)
