"""The daemon: one engine, its listening sockets, its pid file, its signals.

SIGTERM and SIGINT end it: it stops accepting, lets the requests under way end for a moment, and lets go of the
containers, which do not notice. SIGHUP is taken and ignored, as a reload of nothing. A second engine on the same data
root is kept out by a lock that the kernel releases however the first one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from sampan.engine import descriptors
from sampan.engine.config import Config
from sampan.engine.http.connection import Server
from sampan.engine.http.request import Request
from sampan.engine.http.router import Router
from sampan.engine.idle import IdleWatch
from sampan.engine.listeners import close_listeners, is_served, notify, open_listeners
from sampan.engine.routes import all_routes
from sampan.engine.services import Engine
from sampan.engine.tls_listener import TLSListener, tls_context
from sampan.errors import Conflict, ResourceExhausted, SampanError

if TYPE_CHECKING:
    from ssl import SSLContext

_log = logging.getLogger("sampan.daemon")
_LEVELS = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "fatal": "CRITICAL"}
_GRACE = 5.0
"""Seconds for the requests under way when the engine ends."""
_PATIENCE = 10.0
"""Seconds that an engine started on demand waits for the one before it to be gone."""


def configure_logging(level: str) -> None:
    """`time level logger message` on standard error; `level` is one of dockerd's names."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sampan").setLevel(_LEVELS[level])


class AlreadyServed(Conflict):
    """What this engine was started for, another one does."""


class Lock:
    """The pid file, and the lock on the data root that says whose it is."""

    def __init__(self, config: Config) -> None:
        """Raises Conflict when another engine has the data root, ResourceExhausted when a file cannot be written.

        One that is started on demand waits for the one before it, which may be on its way out. Raises
        `AlreadyServed` when that one answers: two clients came at once, and one engine is enough.
        """
        self._deadline = time.monotonic() + (_PATIENCE if config.on_demand else 0)
        self._listen = config.listen
        self._pidfile = config.pid_path
        self._descriptors: list[int] = []
        try:
            for directory, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
                os.makedirs(directory, mode=mode, exist_ok=True)
                self._take(f"{directory}/engine.lock", directory)
            os.makedirs(os.path.dirname(self._pidfile), exist_ok=True)
            with open(f"{self._pidfile}.new", "w") as file:
                file.write(f"{os.getpid()}\n")
            os.rename(f"{self._pidfile}.new", self._pidfile)
        except OSError as error:
            self.close()
            raise ResourceExhausted(f"{error.filename or self._pidfile}: {(error.strerror or '').lower()}") from error
        except SampanError:
            self.close()
            raise

    def _take(self, path: str, directory: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._descriptors.append(descriptor)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < self._deadline:
                    if all(is_served(host) for host in self._listen):
                        raise AlreadyServed(f"another engine serves {directory}") from None
                    time.sleep(0.02)
                    continue
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                who = f" (process {holder})" if holder else ""
                raise Conflict(f"another engine{who} is using {directory}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def remove(self) -> None:
        """Remove the pid file, if it is still ours, and release the locks."""
        with contextlib.suppress(OSError):
            with open(self._pidfile) as file:
                own = file.read().strip() == str(os.getpid())
            if own:
                os.unlink(self._pidfile)
        self.close()

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


class Daemon:
    """Serves one engine until it is told to end, or until nobody needs it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._end = asyncio.Event()
        self._engine = Engine(config)
        seconds = config.idle_timeout if config.on_demand else 0
        self._idle = IdleWatch(seconds, self._busy, self._expired)

    def _busy(self) -> bool:
        return self._engine.containers.counts().total > self._engine.containers.counts().stopped

    def _expired(self) -> None:
        _log.info("nothing to do for %g seconds: the engine ends", self._config.idle_timeout)
        self._end.set()

    def _told(self, number: signal.Signals) -> None:
        if self._end.is_set():
            _log.warning("%s again: the engine ends at once", number.name)
            os._exit(1)
        _log.info("%s: the engine ends, containers go on", number.name)
        self._end.set()

    async def run(self) -> None:
        """Until the end. Raises SampanError when it cannot start."""
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told, number)
        loop.add_signal_handler(signal.SIGHUP, _log.info, "SIGHUP: nothing is reloaded")
        lock = Lock(self._config)
        sockets: list[socket.socket] = []
        try:
            # Before the engine is ready: a client that comes now waits in the socket's queue, and is not refused.
            context = tls_context(self._config)
            sockets = open_listeners(self._config.listen, self._config.group, guarded=self._config.tlsverify)
            await self._engine.start()
            try:
                await self._serve(sockets, context, begun)
            finally:
                await self._engine.close()
        finally:
            close_listeners(sockets)
            lock.remove()

    async def _serve(self, sockets: list[socket.socket], context: SSLContext | None, begun: float) -> None:
        loop = asyncio.get_running_loop()
        router = Router(all_routes(self._engine))

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            with self._idle.hold():
                return await router(request)

        server = Server(
            handle, request_factory=partial(Request, loop=loop), handler_cancellation=True, access_log=None,
            auto_decompress=False, keepalive_timeout=3600.0,
        )  # fmt: skip
        # An engine lives long with few garbage cycles; what was imported is none.
        gc.collect()
        gc.freeze()
        listeners: list[asyncio.Server | TLSListener] = []
        for each in sockets:
            if context is not None and each.family != socket.AF_UNIX:
                listeners.append(TLSListener(each.dup(), context, server))
            else:
                listeners.append(await loop.create_server(server, sock=each.dup(), backlog=128))
        _log.info("ready in %.0f ms", (time.monotonic() - begun) * 1000)
        notify("READY=1")
        self._idle.start()
        try:
            await self._end.wait()
        finally:
            notify("STOPPING=1")
            self._idle.stop()
            for listener in listeners:
                listener.close()
            # What ends by itself, as the events do now, gets to write its last chunk.
            self._engine.events.close()
            await asyncio.sleep(0)
            router.cancel_streams()
            await server.end(_GRACE)


async def _run(config: Config) -> None:
    await Daemon(config).run()


def run(config: Config) -> int:
    """The daemon's life; returns the exit status. What stops it from starting is told in one line."""
    configure_logging(config.level)
    os.umask(0o022)
    descriptors.take_all()
    try:
        asyncio.run(_run(config))
    except AlreadyServed as error:
        _log.info("%s", error.message)
        return 0
    except SampanError as error:
        _log.critical("failed to start: %s", error.message)
        return 1
    return 0
