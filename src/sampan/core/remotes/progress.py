"""What a transfer tells while it goes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

_EVERY = 0.1
"""Seconds between two words about one transfer."""


class Pushed(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What a push has made in the registry."""

    tag: str
    digest: str
    size: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One step, in Docker's words. `current` and `total`: bytes, if it is about such."""

    status: str = ""
    id: str = ""
    current: int = 0
    total: int = 0
    aux: Pushed | None = None


OnProgress = Callable[[Progress], Awaitable[None]]


class Meter:
    """One transfer's bytes, told now and then."""

    def __init__(self, tell: OnProgress, status: str, identifier: str, total: int) -> None:
        self._tell = tell
        self._status = status
        self._id = identifier
        self._total = total
        self._last = 0.0

    async def at(self, current: int) -> None:
        now = time.monotonic()
        if now - self._last > _EVERY:
            self._last = now
            await self._tell(Progress(status=self._status, id=self._id, current=current, total=self._total))


async def nobody(progress: Progress) -> None:
    """For what need not be told."""
