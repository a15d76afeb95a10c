"""The engine as one object: what the routes ask, opened in the one order that loses nothing, closed in reverse."""

from __future__ import annotations

import logging
import os
import time

from sampan.core.remotes.pull import Puller
from sampan.core.remotes.push import Pusher
from sampan.core.service import Core
from sampan.core.tasks import Spawner
from sampan.engine.blocking import run_blocking
from sampan.engine.config import Config
from sampan.engine.containers import sources
from sampan.engine.containers.execs import Execs
from sampan.engine.containers.reading import thaw
from sampan.engine.containers.service import Containers
from sampan.engine.events import EventBus
from sampan.engine.host import backing_filesystem
from sampan.engine.names import Names
from sampan.engine.volumes import Volumes
from sampan.errors import Unavailable
from sampan.network.controller import NetworkController, NetworkSettings
from sampan.network.sandboxes import SandboxPool

_log = logging.getLogger("sampan.engine")


class Engine:
    """All services. Made on the engine's loop; the attributes are there once `start` has returned."""

    core: Core
    puller: Puller
    pusher: Pusher
    spawner: Spawner
    network: NetworkController
    sandboxes: SandboxPool
    names: Names
    volumes: Volumes
    containers: Containers
    execs: Execs

    def __init__(self, config: Config) -> None:
        self.config = config
        self.events = EventBus()
        self.started_at = time.time_ns()

    async def start(self) -> None:
        """Open everything and take over what a former engine left. Raises SampanError; then all is closed again.

        What lives is known first (the shims), then what the network keeps for it; what is left over goes, before
        anything new is made.
        """
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        begun = time.monotonic()
        paths = self.config.paths
        if backing_filesystem(paths.data_root) == "overlay":
            # The kernel takes no overlay as another one's upper directory: no container could ever be mounted.
            raise Unavailable(
                f"{paths.data_root} is on an overlay file system: put the data root onto a volume or a disk"
            )
        layers, keep = self.config.layers, self.config.keep_blobs
        self.core = await run_blocking(lambda: Core(paths, layers=layers, keep_blobs=keep))
        self.puller = Puller(self.core, self.config.remotes, run_blocking)
        self.pusher = Pusher(self.core, self.config.remotes, run_blocking)
        self.spawner = await Spawner.start()
        settings = NetworkSettings(
            bridge=paths.bridge, table=paths.table, netns_dir=paths.netns, bridge_address=self.config.bip,
            mtu=self.config.mtu,
        )  # fmt: skip
        self.network = await run_blocking(NetworkController, self.core.metadata, settings)
        self.sandboxes = SandboxPool(
            self.network, self.spawner.open_netns, self.spawner.enter_netns, run_blocking
        )  # fmt: skip
        self.volumes = await run_blocking(
            Volumes, self.core.metadata, paths.volumes, self.events.publish,
            lambda name: self.containers.using_volume(name),
        )  # fmt: skip
        self.containers = Containers(self)
        self.execs = Execs(self)
        self.names = Names(self)
        live = await self.containers.adopt()
        await run_blocking(sources.sweep, self, live)
        await thaw(self)
        await run_blocking(self.network.setup)
        await run_blocking(self.network.adopt, live)
        self.sandboxes.start()
        await self.names.adopt()
        await self.containers.revive()
        _log.debug("services ready in %.0f ms, %d containers live", (time.monotonic() - begun) * 1000, len(live))

    async def close(self) -> None:
        """Let go of everything; the containers go on. Safe after a start that failed half-way."""
        self.events.close()
        for name in ("containers", "names", "sandboxes", "spawner"):
            service: Containers | Names | SandboxPool | Spawner | None = getattr(self, name, None)
            if service is not None:
                await service.close()
        if (puller := getattr(self, "puller", None)) is not None:
            puller.close()
        for name in ("network", "core"):
            store: NetworkController | Core | None = getattr(self, name, None)
            if store is not None:
                await run_blocking(store.close)

    @property
    def id(self) -> str:
        """The engine's identity, a UUID that stays with the data root (`ID` of /info)."""
        path = f"{self.config.data_root}/engine-id"
        try:
            with open(path) as file:
                return file.read().strip()
        except FileNotFoundError:
            return _make_id(path)


def _make_id(path: str) -> str:
    with open("/proc/sys/kernel/random/uuid") as file:
        identity = file.read().strip()
    temporary = f"{path}.new"
    with open(temporary, "w") as file:
        file.write(f"{identity}\n")
    os.rename(temporary, path)
    return identity
