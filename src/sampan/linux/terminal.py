"""Pseudo-terminals: pty(7), of a devpts instance that is given as a directory."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441


def open_pty(ptmx: str = "/dev/ptmx") -> tuple[int, int, str]:
    """A new pair: the master's and the slave's descriptors (close-on-exec), and the slave's name in the instance."""
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
        # By the master and not by the path, which may lead elsewhere (TIOCGPTPEER, Linux 4.13).
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave, f"/dev/pts/{number}"


def set_size(terminal: int, width: int, height: int) -> None:
    """The window's size in characters; the process in the foreground gets SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def make_controlling(terminal: int) -> None:
    """Make it the controlling terminal of this process, which must lead a session that has none."""
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
