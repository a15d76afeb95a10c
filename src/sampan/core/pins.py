"""What is under way: blobs and layers that nothing owns yet, and that a collection must not take.

Whoever makes an image holds a pin set (`Pins.holding`); what it stores, or finds to be there already, is pinned in it
by the stores. A collection reads what images and containers own, and then takes what is neither owned nor pinned, each
thing under the lock: so what was found to be there a moment ago stays. A set that is given back while a collection runs
counts until that ends: the collection may have read the owners before there was one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

_held: ContextVar[set[str] | None] = ContextVar("pins", default=None)
"""The set of whoever asks: it goes along into the tasks and threads that work for it."""


class Pins:
    """Safe to use from several threads. Names are digests and chain ids."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held while one thing is being taken away."""
        self._sets: list[set[str]] = []
        self._late: list[set[str]] = []
        self._collecting = False
        self._collector = threading.Lock()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """What is pinned meanwhile stays until the end. One inside another is a part of that one."""
        if _held.get() is not None:
            yield
            return
        own: set[str] = set()
        with self.lock:
            self._sets.append(own)
        token = _held.set(own)
        try:
            yield
        finally:
            _held.reset(token)
            with self.lock:
                self._sets = [each for each in self._sets if each is not own]
                if self._collecting:
                    self._late.append(own)

    def pin(self, name: str) -> None:
        """For who holds a set now; without one, nothing."""
        own = _held.get()
        if own is not None:
            with self.lock:
                own.add(name)

    def pinned(self, name: str) -> bool:
        return any(name in each for each in (*self._sets, *self._late))

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """One at a time."""
        with self._collector:
            with self.lock:
                self._collecting = True
            try:
                yield
            finally:
                with self.lock:
                    self._collecting = False
                    self._late.clear()
