"""One container while the engine lives: its record, its shim, and those who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from sampan.core.tasks import Task
from sampan.engine.containers.record import LastState, Record
from sampan.errors import ResourceExhausted
from sampan.shimapi.messages import Attachment, Health

_log = logging.getLogger("sampan.containers")


@dataclass(frozen=True)
class End:
    """How a run ended, for those who wait."""

    exit_code: int
    error: str = ""


class Container:
    """`lock`: held while its state is being changed by a request. `save` keeps a changed record."""

    def __init__(self, record: Record, save: Callable[[Record], None]) -> None:
        self.record = record
        self.task: Task | None = None
        self.lock = asyncio.Lock()
        self.paused = False
        self.restarting = False
        self.removing = False
        self.dead = False
        self.released = False
        """Nothing of an earlier run is left: no mount, address or cgroup. Not known of one that was there before us."""
        self.given_back = asyncio.Event()
        """Not set while what an ended run took is being given back: those who wait are not told yet, and the next run
        would lose its own."""
        self.given_back.set()
        self.unmounted = asyncio.Event()
        """Not set while the file system of a run whose end has been told is being unmounted."""
        self.unmounted.set()
        self.pending: list[tuple[int, Attachment]] = []
        """Connections that were attached before the start."""
        self._save = save
        self._ended: set[asyncio.Future[End]] = set()
        self._removed: set[asyncio.Future[End]] = set()

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def running(self) -> bool:
        """It has a process, or will have one again by itself."""
        return self.task is not None

    @property
    def status(self) -> str:
        """In Docker's words."""
        if self.dead:
            return "dead"
        if self.removing:
            return "removing"
        if self.running:
            return "restarting" if self.restarting else "paused" if self.paused else "running"
        return "exited" if self.record.state.started_at or self.record.state.finished_at else "created"

    @property
    def pid(self) -> int:
        return self.task.pid if self.task is not None and not self.restarting else 0

    def update(self, **changes: object) -> None:
        """Change the record, and keep it."""
        self.record = msgspec.structs.replace(self.record, **changes)
        self._save(self.record)

    def set_state(self, **changes: object) -> None:
        """Change the state in the record, and keep it. What has happened has happened, on a full disk too: it is then
        kept in memory alone, until the next change."""
        state: LastState = msgspec.structs.replace(self.record.state, **changes)
        try:
            self.update(state=state)
        except ResourceExhausted as error:
            _log.warning("container %s: its state is not saved: %s", self.id[:12], error.message)

    def note_health(self, health: Health) -> None:
        """In memory alone: its status is as it was."""
        self.record = msgspec.structs.replace(
            self.record, state=msgspec.structs.replace(self.record.state, health=health)
        )  # fmt: skip

    # --- Waiting ----------------------------------------------------------------------------------

    def next_end(self) -> Awaitable[End]:
        """The end of the present run, or of the next one."""
        return _future(self._ended)

    def removal(self) -> Awaitable[End]:
        """The container's removal; the exit code is that of its last run."""
        return _future(self._removed)

    def tell_ended(self, end: End) -> None:
        _resolve(self._ended, end)

    def tell_removed(self, end: End) -> None:
        _resolve(self._removed, end)
        _resolve(self._ended, end)

    def take_pending(self) -> list[tuple[int, Attachment]]:
        """The connections that wait for the start; they are the caller's now."""
        pending, self.pending = self.pending, []
        return pending

    def drop_pending(self) -> None:
        """Close them: there will be no start."""
        for descriptor, _ in self.take_pending():
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _future(waiting: set[asyncio.Future[End]]) -> asyncio.Future[End]:
    future: asyncio.Future[End] = asyncio.get_running_loop().create_future()
    waiting.add(future)
    future.add_done_callback(waiting.discard)
    return future


def _resolve(waiting: set[asyncio.Future[End]], end: End) -> None:
    for future in list(waiting):
        if not future.done():
            future.set_result(end)
