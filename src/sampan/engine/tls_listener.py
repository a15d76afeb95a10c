"""TLS on TCP: a thread for each connection ends it, and the engine gets a plain socket, which it can hand to a shim.

So an attached stream by TLS goes on while its container runs, and ends with the engine: the thread is the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.engine.config import Config
from sampan.errors import SampanError

if TYPE_CHECKING:
    from ssl import SSLContext

_MOST = 512
"""Connections at once: each is a thread."""
_log = logging.getLogger("sampan.daemon")


def tls_context(config: Config) -> SSLContext | None:
    """None where TCP is spoken without TLS. Raises InvalidArgument."""
    if not config.secured or all(host.scheme == "unix" for host in config.listen):
        return None
    from sampan import tls

    return tls.server_context(config.tls_files, verify=config.tlsverify)


class TLSListener:
    """Accepts on a listening socket until it is closed."""

    def __init__(
        self, listening: socket.socket, context: SSLContext, factory: Callable[[], asyncio.Protocol]
    ) -> None:  # fmt: skip
        self._listening = listening
        self._context = context
        self._factory = factory
        self._slots = threading.BoundedSemaphore(_MOST)
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._loop.add_reader(listening, self._accept)

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _accept(self) -> None:
        try:
            connection, address = self._listening.accept()
        except OSError:
            return
        if not self._slots.acquire(blocking=False):
            _log.warning("a connection from %s is refused: there are %d by TLS", address[0], _MOST)
            connection.close()
            return
        thread = threading.Thread(target=self._end_tls, args=(connection, address[0]), name="tls", daemon=True)
        thread.start()

    def _end_tls(self, connection: socket.socket, address: str) -> None:
        from sampan import tls

        try:
            tls.serve(connection, self._context, self._take)
        except SampanError as error:
            _log.info("a connection from %s: %s", address, error.message)
        finally:
            self._slots.release()

    def _take(self, plain: socket.socket) -> None:
        plain.setblocking(False)
        try:
            self._loop.call_soon_threadsafe(self._connect, plain)
        except RuntimeError:
            plain.close()  # The engine has ended meanwhile.

    def _connect(self, plain: socket.socket) -> None:
        task: asyncio.Task[object] = self._loop.create_task(self._served(plain))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _served(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._factory, plain)
