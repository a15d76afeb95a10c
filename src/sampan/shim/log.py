"""The container's log: what the process prints, cut into lines for whoever keeps them.

The shim writes it, so that no line waits for the engine. A line of more than 16 KiB goes in pieces of which only the
last ends in a newline, as Docker does. Where the lines go to a service of the machine's (syslog, journald), a copy is
kept in a file that `docker logs` reads. What of this a container has no use for is not imported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sampan.shim.jsonlog import JsonLog
from sampan.shim.loop import Loop
from sampan.shimapi.messages import LogConfig

if TYPE_CHECKING:
    from typing import Protocol

    from sampan.shim.sender import Sender

    class Sink(Protocol):
        """Keeps lines. `now`: nanoseconds since the epoch."""

        def lines(self, stream: int, data: bytes, now: int) -> None:
            """Whole lines, each with its newline."""

        def piece(self, stream: int, text: bytes, now: int, piece: Piece) -> None:
            """A piece of a line, without the newline."""

        def close(self) -> None: ...


MAX_RECORD = 16 * 1024


class Piece(msgspec.Struct, frozen=True):
    """A place in a line that goes in pieces: the line's own id, a number from 1, and whether it is the end of it."""

    id: str
    ordinal: int
    last: bool


class Log:
    """`full`: the process is not to be read from until `on_room` is called."""

    def __init__(self, config: LogConfig, loop: Loop | None = None, on_room: Callable[[], None] = lambda: None) -> None:
        """Raises OSError when a file can't be opened, Unavailable when a service does not answer."""
        self._rest: dict[int, bytes] = {1: b"", 2: b""}
        self._pieces: dict[int, Piece | None] = {1: None, 2: None}
        self._sender: Sender | None = None
        self._sinks: list[Sink] = []
        if config.driver == "json-file":
            self._sinks.append(JsonLog(config))
        elif config.driver != "none":
            assert loop is not None
            self._open_others(config, loop, on_room)

    def _open_others(self, config: LogConfig, loop: Loop, on_room: Callable[[], None]) -> None:
        if config.driver == "syslog":
            from sampan.shim.syslog import Syslog

            syslog = Syslog(config, loop, on_room)
            self._sender = syslog.sender
            self._sinks.append(syslog)
        elif config.driver == "journald":
            from sampan.shim.journald import Journald

            journald = Journald(config, loop, on_room)
            self._sender = journald.sender
            self._sinks.append(journald)
        if config.path:
            from sampan.shim.locallog import LocalLog

            self._sinks.append(LocalLog(config))

    @property
    def full(self) -> bool:
        return self._sender is not None and self._sender.full

    @property
    def pending(self) -> bool:
        """Whether a service has not taken all yet."""
        return self._sender is not None and self._sender.pending

    def write(self, stream: int, data: bytes) -> None:
        """Add what the process wrote to `stream` (1 or 2); what has no newline yet waits for it."""
        if not self._sinks:
            return
        if rest := self._rest[stream]:
            data = rest + data
        now = time.time_ns()
        begin = at = 0
        while True:
            newline = data.rfind(b"\n", at, at + MAX_RECORD) if self._pieces[stream] is None else -1
            if newline >= 0:  # Whatever lines there are up to here are short enough.
                at = newline + 1
                continue
            if begin < at:
                self._lines(stream, data[begin:at], now)
                begin = at
            if self._pieces[stream] is not None:
                newline = data.find(b"\n", at, at + MAX_RECORD)
            if newline >= 0:
                self._piece(stream, data[at:newline], now, last=True)
                begin = at = newline + 1
            elif len(data) - at >= MAX_RECORD:
                self._piece(stream, data[at : at + MAX_RECORD], now)
                begin = at = at + MAX_RECORD
            else:
                break
        self._rest[stream] = data[at:]

    def _lines(self, stream: int, data: bytes, now: int) -> None:
        for sink in self._sinks:
            sink.lines(stream, data, now)

    def _piece(self, stream: int, text: bytes, now: int, *, last: bool = False) -> None:
        before = self._pieces[stream]
        piece = Piece(before.id if before else os.urandom(32).hex(), before.ordinal + 1 if before else 1, last)
        for sink in self._sinks:
            sink.piece(stream, text, now, piece)
        self._pieces[stream] = None if last else piece

    def flush(self) -> None:
        """Write what has no newline and will get none: the process has ended."""
        now = time.time_ns()
        for stream, rest in self._rest.items():
            if rest:
                self._piece(stream, rest, now)
            self._rest[stream] = b""
            self._pieces[stream] = None

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        while self._sinks:
            self._sinks.pop().close()
