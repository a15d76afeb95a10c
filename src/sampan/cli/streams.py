"""A process's streams on this terminal: output is told apart, input and signals go the other way."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from sampan.client.frames import Demultiplexer

_CHUNK = 1 << 16
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def write_all(descriptor: int, data: bytes) -> None:
    """All of it, however slowly it is read."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def terminal_size() -> tuple[int, int] | None:
    """Height and width of this terminal; None if there is none."""
    for stream in (sys.stdout, sys.stdin):
        with contextlib.suppress(OSError, ValueError):
            size = os.get_terminal_size(stream.fileno())
            return size.lines, size.columns
    return None


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Every key goes through as it is; the terminal is as before at the end, whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Attached:
    """Copies between a stream and this process until the stream ends."""

    def __init__(
        self,
        connection: socket.socket,
        first: bytes,
        *,
        framed: bool,
        stdin: bool,
        on_signal: Callable[[int], None] | None = None,
        on_resize: Callable[[], None] | None = None,
    ) -> None:
        """`on_signal`: what to do with a signal to this process; None: what it does by itself."""
        self._connection = connection
        self._first = first
        self._demultiplexer = Demultiplexer() if framed else None
        self._stdin = stdin
        self._on_signal = on_signal
        self._on_resize = on_resize
        self._signals: list[int] = []

    def run(self) -> None:
        """Until the other side ends the stream."""
        wake, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handled = [*(FORWARDED if self._on_signal else ()), *((signal.SIGWINCH,) if self._on_resize else ())]
        before = {number: signal.signal(number, self._note) for number in handled}
        try:
            self._copy(wake)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(writer)
            self._connection.close()

    def _note(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _copy(self, wake: int) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(wake, select.POLLIN)
        if self._stdin:
            poll.register(0, select.POLLIN)
        self._show(self._first)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake:
                    os.read(wake, 4096)
                    self._pass_signals()
                elif descriptor == 0:
                    if not self._type():
                        poll.unregister(0)
                else:
                    try:
                        data = self._connection.recv(_CHUNK)
                    except ConnectionError:
                        return
                    if not data:
                        return
                    self._show(data)

    def _pass_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGWINCH and self._on_resize:
                self._on_resize()
            elif self._on_signal:
                self._on_signal(number)

    def _type(self) -> bool:
        """Pass input on; False at its end."""
        data = os.read(0, _CHUNK)
        try:
            if data:
                self._connection.sendall(data)
                return True
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return False

    def _show(self, data: bytes) -> None:
        if self._demultiplexer is None:
            write_all(1, data)
            return
        for stream, piece in self._demultiplexer.feed(data):
            write_all(2 if stream == 2 else 1, piece)
