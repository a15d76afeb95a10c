"""Terminals: whoever holds the master end of a container's."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
import time
from types import TracebackType

from tests.contract.box import Box


class Console:
    """A --console-socket: it receives one terminal's master."""

    def __init__(self, box: Box) -> None:
        self.path = f"{box.directory}/console"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen(1)
        self._socket.settimeout(10)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        os.unlink(self.path)

    def receive(self) -> int:
        """The descriptor, which is the caller's to close. One message, with a name that nobody reads."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(10)
            message, descriptors, _, _ = socket.recv_fds(connection, 4096, 4)
        assert message
        assert len(descriptors) == 1
        assert os.isatty(descriptors[0])
        return descriptors[0]


class Screen:
    """What comes out of a terminal's master, which stays the caller's to close."""

    def __init__(self, master: int) -> None:
        self.master = master
        self._unread = b""

    def until(self, text: bytes) -> bytes:
        """All that has come since the last time, up to and with that text."""
        end = time.monotonic() + 10
        while text not in self._unread:
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"{text!r} does not come, after {self._unread!r}"
            self._unread += os.read(self.master, 4096)
        before, _, self._unread = self._unread.partition(text)
        return before + text

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)


def set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
