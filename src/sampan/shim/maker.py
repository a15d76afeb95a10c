"""A process that makes its shim's container, and ends: what the making touches of memory is not the shim's then.

It is forked ahead of the start, and has the newborn that becomes the container's first process. All are children of the
shim, which reaps them. ::

    shim                    maker                      newborn
      │ fork ──────────────▶ │ clone (CLONE_PARENT) ──▶ │
      │ ── order; 0, 1, 2 ─▶ │ ── order ──────────────▶ │ mounts
      │ (log, streams)       │ cgroup, filter           │
      │                      │ ◀─────────────── READY ─ │
      │ ◀── record; pidfd, ──│ ends                     │
      │   connection, master                            │
      │ ── START ─────────────────────────────────────▶ │ execve

It ends when the shim does, and the newborn with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import NoReturn

import msgspec

from sampan.errors import Internal, SampanError
from sampan.faults import stage
from sampan.linux import process
from sampan.runtime import state, sync
from sampan.runtime.container import Container, Stdio, opened
from sampan.runtime.newborn import bear, rehearse
from sampan.runtime.plan import Options
from sampan.shimapi.messages import Create

_OURS = Options(sibling=True)


class _Order(msgspec.Struct, frozen=True, array_like=True):
    id: str
    bundle: str
    state_root: str
    window: tuple[int, int] | None


# Made in the spawner: a decoder takes milliseconds to make, and memory that each shim and maker would have of its own.
_orders = msgspec.msgpack.Decoder(_Order)
_records = msgspec.msgpack.Decoder(state.Record)


class Maker:
    """The shim's end. The maker is a child of this process, and ends by itself."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def make(self, create: Create, stdio: Stdio, window: tuple[int, int] | None) -> Container | None:
        """The container, or what `Container.create` raises. None if the maker was gone before it knew of it. It is
        used up in any case."""
        order = _Order(create.id, create.bundle, create.state_root, window)
        with self._connection as connection, opened(stdio) as streams:
            try:
                sync.send(connection, sync.ORDER + msgspec.msgpack.encode(order), *streams)
            except OSError:
                return None
            message, descriptors = sync.receive(connection)
        if not message:
            with contextlib.suppress(SampanError):
                Container.load(create.id, create.state_root).delete(force=True)
            raise Internal(f"container {create.id}: the process that made it has died")
        return Container.handed_over(_records.decode(message[1:]), create.state_root, *descriptors)

    def dismiss(self) -> None:
        """End it, and its newborn. Idempotent."""
        self._connection.close()


def fork_maker() -> Maker | None:
    """None where nothing can be forked: the start will say what is the matter."""
    ours, its = sync.pair()
    with its:
        try:
            child = os.fork() == 0
        except OSError:
            ours.close()
            return None
        if child:
            _wait(its)
    return Maker(ours)


def _wait(connection: socket.socket) -> NoReturn:
    """In the maker."""
    try:
        process.close_all_but(connection.fileno())
        process.set_name("sampan-maker")
        newborn = bear()
        rehearse()
        message, stdio = sync.receive(connection)
        if message:
            order = _orders.decode(message[1:])
            container = Container.create(
                order.id, order.bundle, order.state_root, Stdio(*stdio), window=order.window, newborn=newborn,
                options=_OURS,
            )  # fmt: skip
            stage("maker.made")
            try:
                sync.send(connection, sync.MADE + msgspec.msgpack.encode(container.record), *container.descriptors)
            except OSError:  # The shim was killed: nobody would ever start it.
                container.delete(force=True)
    except BaseException as error:
        sync.send_failure(connection, error)
    finally:
        os._exit(0)
