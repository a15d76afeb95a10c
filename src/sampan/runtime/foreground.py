"""A process in the foreground of the command: signals go to it, its terminal is ours, and we end as it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator

from sampan.linux import process, terminal

_CHUNK = 1 << 15
_OURS = {signal.SIGCHLD, signal.SIGWINCH, signal.SIGKILL, signal.SIGSTOP, signal.SIGURG, signal.SIGPIPE}


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Signals that come while a process is made wait for the one who passes them on. (The process unblocks them for
    itself.)"""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OURS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Foreground:
    """`master`: the process's terminal, closed at the end; None if it has none. Made while the signals are held, so
    that none is lost."""

    def __init__(self, master: int | None, subreaper: bool) -> None:
        if subreaper:
            process.become_subreaper()
        self._master = master
        self._pidfd = -1
        self._early: list[int] = []
        self._old: list[int | list[bytes | int]] | None = None
        for number in signal.valid_signals() - _OURS:
            if number < signal.SIGRTMIN:
                with contextlib.suppress(OSError):
                    signal.signal(number, self._forward)

    def _forward(self, number: int, _: object) -> None:
        if self._pidfd < 0:
            self._early.append(number)
            return
        with contextlib.suppress(OSError):
            process.send_signal(self._pidfd, number)

    def wait(self, pid: int, pidfd: int) -> int:
        """Until it has ended, and its terminal is read empty. The shell's exit status."""
        self._pidfd = pidfd
        for number in self._early:
            self._forward(number, None)
        try:
            if self._master is not None:
                self._enter_raw_mode()
                self._resize()
                signal.signal(signal.SIGWINCH, lambda *_: self._resize())
                self._copy(self._master, pidfd)
            return self._reap(pid)
        finally:
            if self._old is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, self._old)
            if self._master is not None:
                os.close(self._master)

    def _reap(self, pid: int) -> int:
        """Whoever else ends meanwhile is ours to reap, as a subreaper."""
        while True:
            ended, status = os.waitpid(-1, 0)
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _enter_raw_mode(self) -> None:
        with contextlib.suppress(termios.error):
            self._old = termios.tcgetattr(0)
            tty.setraw(0)

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(0)
            assert self._master is not None
            terminal.set_size(self._master, size.columns, size.lines)

    def _copy(self, master: int, pidfd: int) -> None:
        """Between our standard streams and its terminal, until it has ended and has nothing more to say."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(master, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        ended = False
        while True:
            ready = dict(poll.poll(0 if ended else None))
            if 0 in ready:
                data = _read(0)
                if data:
                    _write(master, data)
                else:
                    poll.unregister(0)
                    # What ends the input of a program that reads a terminal.
                    _write(master, b"\x04")
            if ready.get(master, 0) & select.POLLIN:
                _write(1, _read(master))
            elif ended or ready.get(master, 0):  # No more: hung up.
                return
            if pidfd in ready:
                ended = True
                poll.unregister(pidfd)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:
        return b""


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
