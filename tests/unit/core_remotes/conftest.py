"""A registry on loopback, plain."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.core_remotes.served import Registry


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    made = Registry()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def other() -> AsyncIterator[Registry]:
    """Another host (the port counts), to be led to."""
    made = Registry()
    await made.start()
    yield made
    await made.stop()
