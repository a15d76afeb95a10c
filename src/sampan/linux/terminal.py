"""Pseudo-terminals: pty(7)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_slave(master: int) -> int:
    """The other end of the pair whose master this is, close-on-exec: by the master and not by a path, which may lead
    elsewhere (TIOCGPTPEER, Linux 4.13)."""
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def set_size(terminal: int, width: int, height: int) -> None:
    """The window's size in characters; the process in the foreground gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def make_controlling(terminal: int) -> None:
    """Make it the controlling terminal of this process, which must lead a session that has none."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
