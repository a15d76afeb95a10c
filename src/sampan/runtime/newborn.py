"""A process that is born before its container is known: half of what a fork costs is then paid before a start.

It has the namespaces that nearly every container has of its own and that hold nothing of the host's (a mount namespace
would: the host's mounts of the moment), and waits for its order.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

import msgspec

from sampan.linux import capabilities, namespaces, process
from sampan.linux.cgroup import hierarchies
from sampan.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, CLONE_PARENT
from sampan.oci.runtime import Spec
from sampan.runtime import init, sync
from sampan.runtime.confine import environment
from sampan.runtime.example import EXAMPLE
from sampan.runtime.plan import Plan, plan

_BORN_IN = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
_MADE_LATER = CLONE_NEWNS | CLONE_NEWNET


class _Order(msgspec.Struct, frozen=True, array_like=True):
    plan: Plan
    window: tuple[int, int] | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Order)


class Newborn(msgspec.Struct, frozen=True):
    """`connection` is the parent's end: when it closes, the process ends."""

    pid: int
    pidfd: int
    connection: socket.socket

    def order(self, what: Plan, stdio: tuple[int, int, int], window: tuple[int, int] | None) -> bool:
        """Have it become the container's first process. False if it can't: by its namespaces, or because it is gone."""
        flags = what.clone_flags
        if flags & _BORN_IN != _BORN_IN or flags & ~(_BORN_IN | _MADE_LATER) or what.user_namespace:
            return False
        if what.options.detached or what.options.preserved:  # It has inherited neither.
            return False
        message = sync.ORDER + _encoder.encode(_Order(what, window))
        if len(message) > sync.MAX_ORDER:
            return False
        try:
            sync.send(self.connection, message, *stdio)
        except OSError:
            return False
        return True

    def dismiss(self) -> None:
        """End it; its parent reaps it as any other child. Idempotent."""
        if self.connection.fileno() >= 0:
            self.connection.close()
            os.close(self.pidfd)


def bear() -> Newborn | None:
    """Fork one, as a child of this process's parent. None where it would be of no use: with cgroup v2 a process is best
    born in its group."""
    if hierarchies().unified:
        return None
    parent, child = sync.pair()
    try:
        with child:
            pid, pidfd = namespaces.clone(_BORN_IN | CLONE_PARENT)
            if pid == 0:
                _wait(child)
    except OSError:
        parent.close()
        return None
    return Newborn(pid, pidfd, parent)


def rehearse() -> None:
    """Plan an example and order it, without doing it.

    The pages of memory that a start changes are this process's own after that: a fork leaves them shared, and the
    copying of one takes two to three microseconds.
    """
    configuration = msgspec.json.decode(msgspec.json.encode(EXAMPLE), type=Spec)
    order = _decoder.decode(_encoder.encode(_Order(plan(configuration, "rehearsal", "/"), None)))
    environment(order.plan.process)
    process.ignored_signals()
    capabilities.permitted()


def _wait(connection: socket.socket) -> NoReturn:
    try:
        # The parent's descriptors are not held: their other ends would not see them close.
        process.close_all_but(connection.fileno())
        process.set_name("sampan-init")
        rehearse()
        message, stdio = sync.receive(connection)
        if not message:
            os._exit(0)
        order = _decoder.decode(message[1:])
        later = order.plan.clone_flags & _MADE_LATER
        init.run(order.plan, (stdio[0], stdio[1], stdio[2]), order.window, connection, later)
    except BaseException as error:
        sync.send_failure(connection, error)
        os._exit(1)
