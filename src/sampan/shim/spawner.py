"""The spawner: everything imported once, then one fork for each container.

It is an exec of a sealed copy of the interpreter, so that nobody who reaches /proc/PID/exe from inside a container has
a file of the host before him (CVE-2019-5736). It has one thread, does one thing after the other, and ends with the
engine's end of the socket; the shims live on.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

from sampan.errors import DataCorrupt
from sampan.linux import mount, namespaces, process
from sampan.linux.cgroup import hierarchies
from sampan.shim import supervisor
from sampan.shimapi import framing
from sampan.shimapi.messages import EnterNetns, Envelope, Failure, NetnsOpened, OpenNetns, Spawn

_NETLINK_ROUTE = 0


def main(descriptor: int) -> None:
    """Serve the engine on the socket `descriptor`, until it closes."""
    process.set_name("sampan-spawner")
    # Forked children that nobody waits for vanish by themselves; the shims wait for theirs.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hierarchies()
    # Frozen, no object is touched by a collection any more: the pages stay shared with all children.
    gc.collect()
    gc.freeze()
    gc.disable()
    inbox = framing.Inbox()
    with socket.socket(fileno=descriptor) as connection:
        while inbox.read(connection):
            for envelope, descriptors in inbox.envelopes():
                try:
                    _serve(connection, envelope, descriptors)
                finally:
                    framing.close_all(descriptors)


def _serve(connection: socket.socket, envelope: Envelope, descriptors: list[int]) -> None:
    match envelope.body:
        case Spawn():
            if os.fork() == 0:
                _child(connection, envelope.number, envelope.body, descriptors)
        case OpenNetns() | EnterNetns():
            pid = os.fork()
            if pid == 0:
                _open_in_namespace(connection, envelope.number, envelope.body)
            _wait(pid)
        case _:
            raise DataCorrupt(f"the spawner does not answer {type(envelope.body).__name__}")


def _wait(pid: int) -> None:
    """Wait for a child; the kernel reaps it itself, as SIGCHLD is ignored, and then there is none to wait for."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        return


def _child(connection: socket.socket, number: int, spawn: Spawn, descriptors: list[int]) -> None:
    status = 1
    try:
        connection.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        supervisor.main(number, spawn, descriptors)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _open_in_namespace(connection: socket.socket, number: int, request: OpenNetns | EnterNetns) -> None:
    """In a child, whose namespace may change: answer with a netlink socket that belongs to the other one."""
    try:
        if isinstance(request, OpenNetns):
            os.close(os.open(request.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
            try:
                namespaces.unshare(namespaces.CLONE_NEWNET)
                mount.mount("/proc/self/ns/net", request.path, flags=mount.MS_BIND)
            except OSError:
                os.unlink(request.path)
                raise
        else:
            descriptor = os.open(request.path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(descriptor, namespaces.CLONE_NEWNET)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as netlink:
            framing.send(connection, Envelope(number, NetnsOpened()), [netlink.fileno()])
    except OSError as error:
        message = f"network namespace {request.path}: {(error.strerror or str(error)).lower()}"
        framing.send(connection, Envelope(number, Failure(kind="Unavailable", message=message)))
    finally:
        os._exit(0)
