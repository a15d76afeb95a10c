"""Sockets in the namespaces of sandboxes, for a process that may not enter them.

The resolver has no privilege, as it reads what containers write. A child that it forks before it gives them up keeps
the one that entering takes, reads nothing but the resolver's requests, and answers each with a socket. It ends with the
resolver.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
from typing import NoReturn

from sampan.linux import namespaces, process


class Opener:
    """Safe to call from several threads."""

    def __init__(self) -> None:
        """Forks the child."""
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            if os.fork() == 0:
                _serve(theirs)

    def open(self, namespace: int, family: int, kind: int) -> socket.socket:
        """A socket in the namespace of the descriptor. Raises OSError."""
        with self._lock:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [namespace]))]
            self._connection.sendmsg([bytes((family, kind))], rights, socket.MSG_NOSIGNAL)
            data, descriptors, _, _ = socket.recv_fds(self._connection, 4, 1, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            code = int.from_bytes(data, "big") or 71  # EPROTO: it is gone.
            raise OSError(code, f"open a socket in a namespace: {os.strerror(code)}")
        return socket.socket(fileno=descriptors[0])


def _serve(connection: socket.socket) -> NoReturn:
    """In the child."""
    try:
        process.close_all_but(connection.fileno())
        process.set_name("sampan-opener")
        while True:
            data, descriptors, _, _ = socket.recv_fds(connection, 2, 1, socket.MSG_CMSG_CLOEXEC)
            if len(data) != 2 or not descriptors:
                break
            try:
                namespaces.setns(descriptors[0], namespaces.CLONE_NEWNET)
                with socket.socket(data[0], data[1] | socket.SOCK_CLOEXEC) as made:
                    socket.send_fds(connection, [b"\0\0\0\0"], [made.fileno()])
            except OSError as error:
                connection.send((error.errno or 71).to_bytes(4, "big"))
            finally:
                os.close(descriptors[0])
    finally:
        with contextlib.suppress(BaseException):
            connection.close()
        os._exit(0)
