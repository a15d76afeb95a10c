"""The engine's side of the resolver: who is on which network by which names, told to the process that answers for it.

The process is made when the first container is put onto a user-defined network, by the spawner, and lives on without
the engine; the next one finds it by its socket. Should it die, another takes its place with all that is known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from sampan.engine.blocking import run_blocking
from sampan.engine.containers import networking
from sampan.engine.containers.container import Container
from sampan.engine.containers.record import Record
from sampan.errors import SampanError, Unavailable
from sampan.network import redirect
from sampan.network.endpoints import way_out
from sampan.resolver import control
from sampan.shimapi.framing import close_all

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_log = logging.getLogger("sampan.names")
_PATIENCE = 5.0
"""Seconds that the resolver may take to hear."""
_RETRY = 1.0


class Names:
    """Made on the engine's loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._path = engine.core.paths.names
        self._connection: socket.socket | None = None
        self._served: set[str] = set()
        self._starting = asyncio.Lock()
        self._restoring: asyncio.Task[None] | None = None

    async def adopt(self) -> None:
        """Find what a former engine left, and tell it how things stand: once, when it is known who lives."""
        with contextlib.suppress(SampanError):
            await run_blocking(self._reach)
            self._watch()
        await self._restore()

    async def serve_new(self, record: Record) -> int | None:
        """`serve` for a container that is being started. Returns a descriptor that its shim is to hold, so that its end
        is noticed when there is no engine; None where the container is on no user-defined network."""
        serve = self._wanted(record)
        if serve is None or not serve.places:
            return None
        life, its = socket.socketpair()
        with its:
            try:
                await self._begin(record, serve, its.fileno())
            except BaseException:
                life.close()
                raise
        return life.detach()

    async def serve(self, record: Record) -> None:
        """Let a container with a sandbox of its own be found on its networks, and find others: after a change of its
        places or names. With its lock held. Raises Unavailable."""
        serve = self._wanted(record)
        if serve is None:
            return
        if serve.sandbox in self._served:
            self._send(serve)
        elif serve.places:
            await self._begin(record, serve, None)

    def withdraw(self, container_id: str) -> None:
        """It is gone, or will be. No error if it was not served."""
        endpoint = self._engine.network.endpoint(container_id)
        if endpoint is not None and endpoint.sandbox_id in self._served:
            self._served.discard(endpoint.sandbox_id)
            with contextlib.suppress(Unavailable):
                self._send(control.Stop(sandbox=endpoint.sandbox_id))

    async def close(self) -> None:
        """The resolver goes on, if there is anybody to serve."""
        if self._restoring is not None:
            self._restoring.cancel()
        self._drop()

    # --- What is to be known ----------------------------------------------------------------------

    def _wanted(self, record: Record) -> control.Serve | None:
        """None: it has no sandbox of its own."""
        sandbox = self._engine.network.endpoint(record.id)
        if sandbox is None:
            return None
        endpoints = self._engine.network.endpoints(record.id)
        out = way_out(endpoints)
        wanted = networking.wanted_of(record)
        places: list[control.Place] = []
        for each in sorted(endpoints, key=lambda each: (each is not out, -each.priority, each.network)):
            if not self._engine.network.network(each.network_id).predefined and each.network in wanted:
                names = networking.dns_names(record, wanted[each.network])
                places.append(control.Place(each.network, each.addresses, names))
        servers = record.host_config.dns or self._engine.config.dns
        return control.Serve(
            sandbox=sandbox.sandbox_id, places=tuple(places), servers=tuple(servers), forward=out is not None
        )

    def _all(self) -> Iterator[tuple[Container, control.Serve]]:
        for container in self._engine.containers.all():
            serve = self._wanted(container.record) if container.running else None
            if serve is not None and (serve.places or serve.sandbox in self._served):
                yield container, serve

    # --- The process ------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Have a resolver. Raises Unavailable."""
        async with self._starting:
            if self._connection is not None:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(self._path)
                os.chmod(self._path, 0o600)
                listener.listen(1)
                await self._engine.spawner.start_names(listener.fileno())
            await run_blocking(self._reach)
            self._watch()

    def _reach(self) -> None:
        """Connect to the one that is there. Blocks. Raises Unavailable."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(self._path)
            received = control.receive(connection)
            if received is None or not isinstance(received[0], control.Serving):
                raise ConnectionResetError("it has ended")
        except (OSError, msgspec.DecodeError) as error:
            connection.close()
            raise Unavailable(f"the resolver does not answer: {error}") from error
        self._served = set(received[0].sandboxes)
        self._connection = connection

    async def _begin(self, record: Record, serve: control.Serve, life: int | None) -> None:
        """Open what it listens by in the container's sandbox, and hand it over."""
        if self._connection is None:
            await self._start()
        endpoint = self._engine.network.endpoint(record.id)
        if endpoint is None:
            raise Unavailable(f"container {record.id} has no sandbox")
        datagrams, streams, netfilter = descriptors = await self._engine.spawner.open_names(endpoint.path)
        try:
            descriptors.append(os.open(endpoint.path, os.O_RDONLY | os.O_CLOEXEC))
            await run_blocking(redirect.lead_to, netfilter, datagrams, streams)
            others = [] if life is None else [life]
            self._send(serve, [datagrams, streams, descriptors[-1], *others])
        except OSError as error:
            raise Unavailable(f"serve names in {endpoint.path}: {error.strerror}") from error
        finally:
            close_all(descriptors)
        self._served.add(serve.sandbox)

    def _send(self, message: control.AnyMessage, descriptors: list[int] | None = None) -> None:
        if self._connection is None:
            raise Unavailable("the resolver is gone")
        try:
            control.send(self._connection, message, descriptors or ())
        except OSError as error:
            self._lost()
            raise Unavailable(f"the resolver does not hear: {(error.strerror or str(error)).lower()}") from error

    def _watch(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().add_reader(self._connection.fileno(), self._lost)

    def _drop(self) -> None:
        if self._connection is not None:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None
        self._served = set()

    def _lost(self) -> None:
        """It never speaks again after its greeting: what is readable is its end."""
        _log.warning("the resolver has ended, and is started again")
        self._drop()
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(self._restore())

    async def _restore(self) -> None:
        """Tell all that is to be known. A container whose sandbox cannot be served stays without, and is tried again at
        its next change."""
        while self._connection is None and any(True for _ in self._all()):
            try:
                await self._start()
            except SampanError as error:
                _log.warning("%s", error.message)
                await asyncio.sleep(_RETRY)
        found = list(self._all())
        with contextlib.suppress(Unavailable):  # Then it is lost again, and all begins anew.
            if self._connection is not None:
                self._send(control.Settle(sandboxes=tuple(serve.sandbox for _, serve in found)))
                self._served &= {serve.sandbox for _, serve in found}
        await asyncio.gather(*(self._restore_one(container) for container, _ in found))

    async def _restore_one(self, container: Container) -> None:
        async with container.lock:  # Whoever changes it now tells of it, too.
            if not container.running:
                return
            try:
                await self.serve(container.record)
            except SampanError as error:
                _log.warning("container %s: %s", container.id[:12], error.message)
