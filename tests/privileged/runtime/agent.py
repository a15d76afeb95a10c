"""A seccomp agent: takes listeners at a socket, says on its output what it was told, and answers calls.

    python agent.py SOCKET [NUMBER=ERRNO…]

A call whose number is given fails with that error; every other goes on. On its output: one line for each listener (the
container process state), one for each call that did not go on. It ends with its standard input.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import sys

RECEIVE, SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND. linux/seccomp.h"""
CONTINUE = 1


def main(path: str, *answers: str) -> None:
    errors = {int(number): int(error) for number, error in (each.split("=") for each in answers)}
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen()
    print("ready", flush=True)
    watched = select.poll()
    watched.register(0, select.POLLIN)
    watched.register(server, select.POLLIN)
    while True:
        for descriptor, event in watched.poll():
            if descriptor == 0:
                return
            if descriptor == server.fileno():
                watched.register(take(server), select.POLLIN)
            elif event & select.POLLIN:
                answer(descriptor, errors)
            else:  # Nobody obeys this filter any more.
                watched.unregister(descriptor)
                os.close(descriptor)


def take(server: socket.socket) -> int:
    connection, _ = server.accept()
    with connection:
        document, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(64))
        while more := connection.recv(1 << 16):
            document += more
    ((_, _, data),) = ancillary
    (descriptor,) = array.array("i", data)
    print(document.decode(), flush=True)
    return int(descriptor)


def answer(descriptor: int, errors: dict[int, int]) -> None:
    request = bytearray(80)
    try:
        fcntl.ioctl(descriptor, RECEIVE, request)
        identity, pid, _, number = struct.unpack_from("=QIIi", request)
        error = errors.get(number)
        if error is not None:
            print(f"{pid} {number}", flush=True)
        reply = struct.pack("=QqiI", identity, 0, -(error or 0), 0 if error is not None else CONTINUE)
        fcntl.ioctl(descriptor, SEND, bytearray(reply))
    except FileNotFoundError:
        return  # The caller was killed meanwhile.


if __name__ == "__main__":
    main(*sys.argv[1:])
