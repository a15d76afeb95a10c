"""When an engine that was started on demand may go: nobody asks it anything, and nothing of its own runs.

A container does not need the engine, yet one that runs keeps it here: whoever has something running will ask again, and
name resolution and the like answer faster from an engine that is warm.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator


class IdleWatch:
    """Counts what is under way and calls `expired` when there has been nothing for `seconds`.

    `busy` is asked when the time is up; while it says so, the time starts again. `seconds` 0: never.
    """

    def __init__(self, seconds: float, busy: Callable[[], bool], expired: Callable[[], None]) -> None:
        self._seconds = seconds
        self._busy = busy
        self._expired = expired
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def under_way(self) -> int:
        """How many requests and streams are open now."""
        return self._under_way

    def start(self) -> None:
        """Begin to count the time."""
        self._restart()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Around a request or a stream: no expiry inside, and the time starts anew after it."""
        self._under_way += 1
        self._cancel()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._restart()

    def stop(self) -> None:
        """No expiry from now on."""
        self._seconds = 0
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _restart(self) -> None:
        self._cancel()
        if self._seconds > 0:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._under_way or self._busy():
            self._restart()
        else:
            self._expired()
