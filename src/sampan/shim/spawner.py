"""The spawner: everything imported once, then one fork for each container.

It is an exec of a sealed copy of the interpreter, so that nobody who reaches /proc/PID/exe from inside a container has
a file of the host before him (CVE-2019-5736). It has one thread, does one thing after the other, and ends with the
engine's end of the socket; the shims live on. ::

    engine                  spawner                 shim (forked ahead)       newborn
      │                        │ fork ────────────────▶ │ fork ────────────────▶ │
      │ ── Spawn ────────────▶ │ ── Spawn ────────────▶ │ ── order ────────────▶ │ becomes the container's process
      │ ◀──────────────────────┼────────────── Started ─│                        │
      │                        │ ◀────── (closes) ───── │
      │                        │ fork ─────────▶ the next one
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from typing import NoReturn

from sampan.errors import DataCorrupt, SampanError, kind_of
from sampan.faults import stage
from sampan.linux import mount, namespaces, process
from sampan.linux.cgroup import hierarchies
from sampan.runtime.newborn import rehearse
from sampan.shim import supervisor
from sampan.shimapi import framing
from sampan.shimapi.messages import (
    CleanUp,
    Done,
    EnterNetns,
    Envelope,
    Failure,
    NetnsOpened,
    OpenNames,
    OpenNetns,
    Reply,
    Spawn,
    StartNames,
)

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_NAMES = "127.0.0.11"
"""Where the containers' resolv.conf says that names are served."""
_BACKLOG = 64


def main(descriptor: int) -> None:
    """Serve the engine on the socket `descriptor`, until it closes."""
    process.set_name("sampan-spawner")
    # Forked children that nobody waits for vanish by themselves; the shims wait for theirs.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The engine's terminal or supervisor must not end a shim, which it does not own; only SIGKILL does. A shim inherits
    # it. The spawner ends with the engine's end of the socket.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    hierarchies()
    # What msgspec learns of a type when it first decodes one is kept in the type: once here, for all who are forked.
    rehearse()
    # Frozen, no object is touched by a collection any more: the pages stay shared with all children.
    gc.collect()
    gc.freeze()
    gc.disable()
    with socket.socket(fileno=descriptor) as connection:
        Spawner(connection).run()


class Spawner:
    """Serves one engine. One shim is always forked ahead, so that a start finds it ready."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._inbox = framing.Inbox()
        self._poll = select.poll()
        self._netns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._spare: socket.socket | None = None
        self._starting: dict[int, socket.socket] = {}
        """Shims that have their container and are starting it, by the descriptor that they close when it is done."""

    def run(self) -> None:
        """Until the engine's end of the connection closes."""
        self._poll.register(self._connection, select.POLLIN)
        self._fork_ahead()
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._connection.fileno():
                    self._shim_closed(descriptor)
                elif not self._inbox.read(self._connection):
                    return
                else:
                    for envelope, descriptors in self._inbox.envelopes():
                        try:
                            self._serve(envelope, descriptors)
                        finally:
                            framing.close_all(descriptors)

    def _serve(self, envelope: Envelope, descriptors: list[int]) -> None:
        match envelope.body:
            case Spawn():
                stage("spawner.asked")
                self._spawn(envelope, descriptors)
                stage("spawner.handed")
            case OpenNetns() | EnterNetns() | OpenNames():
                self._open_in_namespace(envelope.number, envelope.body)
            case StartNames():
                self._start_names(envelope.number, descriptors[0])
            case CleanUp():
                if os.fork() == 0:
                    _clean_up(self._connection, envelope.number, envelope.body)
            case _:
                raise DataCorrupt(f"the spawner does not answer {type(envelope.body).__name__}")

    def _open_in_namespace(self, number: int, request: OpenNetns | EnterNetns | OpenNames) -> None:
        """Answer with sockets of another network namespace. A visit costs less than a child would."""
        try:
            if isinstance(request, OpenNetns):
                os.close(os.open(request.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
                try:
                    namespaces.unshare(namespaces.CLONE_NEWNET)
                    stage("spawner.unshared")
                    mount.mount("/proc/self/ns/net", request.path, flags=mount.MS_BIND)
                except OSError:
                    os.unlink(request.path)
                    raise
            else:
                with open(request.path, "rb") as file:
                    namespaces.setns(file.fileno(), namespaces.CLONE_NEWNET)
            with contextlib.ExitStack() as opened:
                made = [opened.enter_context(each) for each in _sockets(names=isinstance(request, OpenNames))]
                framing.send(self._connection, Envelope(number, NetnsOpened()), [each.fileno() for each in made])
        except OSError as error:
            message = f"network namespace {request.path}: {(error.strerror or str(error)).lower()}"
            framing.send(self._connection, Envelope(number, Failure(kind="Unavailable", message=message)))
        finally:
            # It can't fail; if it did, the spawner would have to end: whoever is forked now would be in there too.
            namespaces.setns(self._netns, namespaces.CLONE_NEWNET)

    def _start_names(self, number: int, listener: int) -> None:
        """The resolver is a child that lives on, like a shim, and like it is nobody's who would end it."""
        answer: Reply = Done()
        try:
            if os.fork() == 0:
                _be_resolver(listener)
        except OSError as error:
            answer = Failure(kind="Unavailable", message=f"start the resolver: {(error.strerror or '').lower()}")
        framing.send(self._connection, Envelope(number, answer))

    def _spawn(self, envelope: Envelope, descriptors: list[int]) -> None:
        """Hand the container to a shim: to the one that is there, or else to one that is forked now."""
        try:
            while self._spare is not None:
                shim, self._spare = self._spare, None
                try:
                    framing.send(shim, envelope, descriptors)
                except BrokenPipeError:
                    self._forget(shim)  # It was killed.
                else:
                    self._starting[shim.fileno()] = shim
                    return
            shim = self._fork(ahead=False)
            self._starting[shim.fileno()] = shim
            framing.send(shim, envelope, descriptors)
        except OSError as error:
            message = f"start a shim: {(error.strerror or str(error)).lower()}"
            with socket.socket(fileno=os.dup(descriptors[0])) as control, contextlib.suppress(OSError):
                framing.send(control, Envelope(envelope.number, Failure(kind="Unavailable", message=message)))

    def _shim_closed(self, descriptor: int) -> None:
        """A shim has started its container, or died. When all are through, the next one is forked: not earlier, as it
        would take processor time from them."""
        if self._spare is not None and self._spare.fileno() == descriptor:
            shim, self._spare = self._spare, None
            self._forget(shim)
            return
        self._forget(self._starting.pop(descriptor))
        if self._spare is None and not self._starting:
            self._fork_ahead()

    def _forget(self, shim: socket.socket) -> None:
        self._poll.unregister(shim)
        shim.close()

    def _fork_ahead(self) -> None:
        with contextlib.suppress(OSError):  # Without one, the next start says what is the matter.
            self._spare = self._fork(ahead=True)

    def _fork(self, ahead: bool) -> socket.socket:
        """A new shim, which waits for its Spawn on the other end of the socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                if os.fork() == 0:
                    _be_shim(theirs, ahead)
        except OSError:
            ours.close()
            raise
        self._poll.register(ours, select.POLLIN)
        return ours


def _sockets(*, names: bool) -> Iterator[socket.socket]:
    """In the namespace that this process is in."""
    if not names:
        yield _netlink(_NETLINK_ROUTE)
        return
    # Any port: 53 may be wanted by the container itself, whose bind to all addresses this would keep from it.
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        yield made
        made.bind((_NAMES, 0))
        if kind == socket.SOCK_STREAM:
            made.listen(_BACKLOG)
    yield _netlink(_NETLINK_NETFILTER)


def _netlink(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)


def _be_resolver(listener: int) -> NoReturn:
    status = 1
    try:
        process.close_all_but(listener)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        # Only here, as what the spawner imports is every shim's memory.
        from sampan.resolver import server

        server.main(socket.socket(fileno=listener))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _be_shim(connection: socket.socket, ahead: bool) -> NoReturn:
    status = 1
    try:
        # The spawner's other sockets are its own: who waits for their end must see it.
        process.close_all_but(connection.fileno())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        supervisor.main(connection, ahead)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _clean_up(connection: socket.socket, number: int, request: CleanUp) -> NoReturn:
    """In a child, which nobody waits for: a runtime takes its time."""
    try:
        process.close_all_but(connection.fileno())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from sampan.shim import foreign

        answer: Reply = Done()
        try:
            foreign.clean_up(request)
        except SampanError as error:
            answer = Failure(kind=kind_of(error), message=error.message)
        framing.send(connection, Envelope(number, answer))
    finally:
        os._exit(0)
