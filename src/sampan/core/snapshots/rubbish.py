"""Directories that nobody knows any more, on their way out: one after the other, by a thread that ends with the last.

What is left when the engine ends is removed when the store is opened again, as it has no row.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_PATIENCE = 5.0
_log = logging.getLogger("sampan.snapshots")


class Rubbish:
    """Safe to use from several threads."""

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._names: deque[str] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def remove(self, name: str) -> None:
        """Soon."""
        with self._lock:
            self._names.append(name)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rubbish", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._names:
                    self._thread = None
                    return
                name = self._names.popleft()
            try:
                self._remove(name)
            except OSError as error:
                _log.warning("remove %s: %s", name, error)

    def close(self) -> None:
        """Finish the one that is under way, if that does not take long; the others stay for the next opening."""
        with self._lock:
            self._names.clear()
            thread = self._thread
        if thread is not None:
            thread.join(_PATIENCE)
