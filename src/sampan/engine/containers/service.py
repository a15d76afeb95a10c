"""The containers service: every container that there is, and what can be done to it.

Each change of a container holds its lock. Its end comes as an event from its shim, whenever it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.api.containers import CreateRequest, HostConfig, UpdateRequest
from sampan.core.tasks import Task
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import accept, health, limits, links, revival, starting, updating
from sampan.engine.containers.adoption import adopt
from sampan.engine.containers.container import Container, End
from sampan.engine.containers.creation import make
from sampan.engine.containers.names import random_name
from sampan.engine.containers.record import MountPoint, Record, Records
from sampan.engine.containers.remains import discard, give_back, release, remove_files, remove_remains, unmount
from sampan.engine.containers.signals import parse_signal
from sampan.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    Internal,
    InvalidArgument,
    NotFound,
    NotModified,
    SampanError,
    Unavailable,
)
from sampan.faults import stage
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_DEFAULT_STOP_TIMEOUT = 10
_KILL_TIMEOUT = 30.0
_DISCARD_TIMEOUT = 5.0


@dataclass(frozen=True)
class Counts:
    """For `info`."""

    running: int
    paused: int
    stopped: int
    total: int


class Containers:
    def __init__(self, engine: Engine) -> None:
        """Reads the records; `adopt` then finds out how things stand."""
        self._engine = engine
        self._records = Records(engine.core.metadata)
        self._containers = {record.id: Container(record, self._records.replace) for record in self._records.all()}
        self._background: set[asyncio.Task[None]] = set()
        self._discards: set[asyncio.Task[None]] = set()
        self.to_revive: list[Container] = []
        """What `adopt` found ended that must run again, by its restart policy."""

    async def adopt(self) -> set[str]:
        """Once, before the API answers: connect to living shims, learn of ends that were missed. Returns the ids of
        those that live."""
        return await adopt(self._engine, self)

    async def revive(self) -> None:
        """After `adopt`, when the network stands: start again what must run, when its last run is cleaned up."""
        if self._background:
            await asyncio.wait(set(self._background))
        revived, self.to_revive = self.to_revive, []
        self.in_background(revival.revive(self._engine, revived))

    async def close(self) -> None:
        """The engine goes; the containers stay."""
        for work in list(self._background):
            work.cancel()
        if self._discards:
            await asyncio.wait(set(self._discards), timeout=_DISCARD_TIMEOUT)
        for container in self._containers.values():
            container.drop_pending()
            if container.task is not None:
                container.task.close()

    # --- Looking up -------------------------------------------------------------------------------

    def all(self) -> list[Container]:
        """The newest first."""
        return [self._containers[record.id] for record in self._records.all()]

    def has(self, container: Container) -> bool:
        """Whether it has not been removed."""
        return container.id in self._containers

    def records(self) -> list[Record]:
        return list(self._records.all())

    def counts(self) -> Counts:
        statuses = [container.status for container in self._containers.values()]
        paused = statuses.count("paused")
        running = statuses.count("running") + statuses.count("restarting")
        return Counts(running, paused, len(statuses) - running - paused, len(statuses))

    def using_image(self, image_id: str) -> list[Record]:
        """Made of it, or with it mounted."""
        return [
            record
            for record in self._records.all()
            if record.image == image_id or any(point.image == image_id for point in record.mounts)
        ]

    def is_running(self, container_id: str) -> bool:
        container = self._containers.get(container_id)
        return container is not None and container.running

    def using_volume(self, name: str) -> list[str]:
        return [
            record.id
            for record in self._records.all()
            if any(point.type == "volume" and point.name == name for point in record.all_mounts)
        ]

    def resolve(self, name_or_id: str) -> Container:
        """By id, name, or a unique beginning of the id. Raises NotFound in Docker's words."""
        if not name_or_id:
            raise InvalidArgument('invalid name or ID supplied: ""')
        found = self._containers.get(name_or_id)
        if found is not None:
            return found
        record = self._records.by_name(name_or_id.removeprefix("/"))
        if record is None and (link := self.link(name_or_id)) is not None and link[1] in self._containers:
            return self._containers[link[1]]
        if record is None:
            candidates = self._records.by_prefix(name_or_id)
            if len(candidates) > 1:
                raise InvalidArgument(f"multiple IDs found with provided prefix: {name_or_id}")
            record = candidates[0] if candidates else None
        if record is None:
            raise NotFound(f"No such container: {name_or_id}")
        return self._containers[record.id]

    def find(self, container_id: str) -> Container | None:
        """By its id."""
        return self._containers.get(container_id)

    def link(self, name: str) -> tuple[Record, str] | None:
        """What `LINKING/ALIAS` is: the linking container and the other one's id."""
        return links.by_name(name, self._records.by_name) if "/" in name.strip("/") else None

    def forget(self, container: Container) -> None:
        """It is removed."""
        self._records.remove(container.id)
        self._containers.pop(container.id, None)

    # --- Create -----------------------------------------------------------------------------------

    async def create(
        self, request: CreateRequest, name: str = "", platform: str = "", deep_read_only: bool = True
    ) -> tuple[Container, tuple[str, ...]]:
        """The container, and warnings for the client. `deep_read_only`: as of `make`. Raises InvalidArgument,
        Unsupported, NotFound (no such image), Conflict (the name); then nothing is left."""
        accept.check(request)
        if name:
            name = accept.check_name(name)
            # Said before anything is made; `Records.add` says it again where two come at once.
            self._records.check_free(name)
        runtime = accept.check_runtime(request.host_config or HostConfig(), self._engine.config)
        name = name or random_name(lambda each: self._records.by_name(each) is not None)
        host, warnings = limits.discarded(
            msgspec.structs.replace(request.host_config or HostConfig(), runtime=runtime)
        )  # fmt: skip
        if request.volumes or host.binds or host.mounts or self._image_has_volumes(request.image):
            record = await run_blocking(
                make, self._engine, self._records, request, host, name, platform, deep_read_only
            )
        else:
            # A few small files and a row are done sooner than a thread is woken.
            record = make(self._engine, self._records, request, host, name, platform)
        container = Container(record, self._records.replace)
        container.released = True
        self._containers[record.id] = container
        self.publish(container, "create")
        return container, warnings

    def _image_has_volumes(self, image: str) -> bool:
        return bool(self._engine.core.images.get(image).config.run.volumes)

    def remove_anonymous(self, points: Iterable[MountPoint]) -> None:
        """Those of these volumes that were made along with a container, and that nobody uses."""
        for point in points:
            if point.type == "volume" and point.anonymous and not self.using_volume(point.name):
                with contextlib.suppress(SampanError):
                    self._engine.volumes.remove(point.name)

    # --- Start and end ----------------------------------------------------------------------------

    async def start(self, container: Container) -> None:
        """Raises NotModified if it runs, Conflict if it is paused or going; else what `starting.start` raises."""
        async with container.lock:
            await self._start(container)

    async def _start(self, container: Container) -> None:
        if container.removing:
            raise Conflict("container is marked for removal and cannot be started")
        if container.paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        if container.running:
            raise NotModified(f"container {container.id} is running")
        await container.given_back.wait()
        await container.unmounted.wait()
        if container.record.edit is not None:
            await updating.settle(self._engine, container)
        early: list[msg.Event] = []
        container.released = False

        def on_event(event: msg.Event) -> None:
            # The end may come before `start` has come back with the task.
            if container.task is None:
                early.append(event)
            else:
                self._heard(container, event)

        try:
            task = await starting.start(self._engine, container, on_event, lambda: self._lost(container))
        except SampanError as error:
            if isinstance(error, Unavailable):  # The shim was killed, and what it had made by then is there still.
                await remove_remains(self._engine, container)
            self._not_started(container, error)
            raise
        container.task = task
        stage("start.known")
        container.set_state(
            started_at=task.started_at, running=True, error="", exit_code=0, oom_killed=False, stopped_by_user=False,
            restart_count=0, health=health.begun(container.record),
        )  # fmt: skip
        self.publish(container, "start")
        links.refresh(self._engine, self._containers.values(), container.id)
        for event in early:
            self._heard(container, event)
        if not task.is_open:  # It was lost before it was known.
            self._lost(container)

    def _not_started(self, container: Container, error: SampanError) -> None:
        code = 127 if isinstance(error, CommandNotFound) else 126 if isinstance(error, CommandNotExecutable) else 128
        container.drop_pending()
        # It has not run: its times are those of the run before, if there was one.
        container.set_state(exit_code=code, error=error.message, running=False)
        container.tell_ended(End(code, error.message))
        if container.record.host_config.auto_remove:
            self.in_background(self._remove_ended(container))

    def heard(self, container: Container) -> tuple[Any, Any]:
        """The two callbacks for `Task.connect`."""
        return (lambda event: self._heard(container, event)), (lambda: self._lost(container))

    def _heard(self, container: Container, event: msg.Event) -> None:
        match event:
            case msg.Exited():
                self.ended(container, event)
            case msg.Started():
                container.restarting = False
                if container.task is not None:
                    container.task.pid = event.pid
                container.set_state(
                    started_at=event.started_at, restart_count=event.restart_count, running=True,
                    exit_code=0, error="", health=health.begun(container.record),
                )  # fmt: skip
                self.publish(container, "start")
            case msg.Probed() if event.changed:
                container.set_state(health=event.health)
                self.publish(container, f"health_status: {event.health.status}")
            case msg.Probed():
                container.note_health(event.health)
            case msg.ExecExited():
                self._engine.execs.ended(container, event)
            case msg.OutOfMemory():
                self.publish(container, "oom")
            case msg.Detached():
                self.publish(container, "detach")

    def _lost(self, container: Container) -> None:
        """The shim's connection ended without a word: it was killed, and its container with it."""
        if container.task is None:
            return
        self.ended(
            container,
            msg.Exited(
                id=container.id, pid=container.task.pid, exit_status=137, exited_at=time.time_ns(),
                error="the shim has died",
            ),
        )  # fmt: skip
        ended_at = container.record.state.finished_at

        def unchanged() -> bool:
            state = container.record.state
            return self.has(container) and container.task is None and state.finished_at == ended_at

        self.in_background(revival.after_shim(self._engine, container, unchanged))

    def ended(self, container: Container, exited: msg.Exited) -> None:
        """The process has ended: for good, or until the shim starts it again."""
        stage("end.heard")
        container.paused = False
        state = container.record.state
        ran = max(0, exited.exited_at - state.started_at) // 1_000_000_000
        container.set_state(
            exit_code=exited.exit_status, finished_at=exited.exited_at, oom_killed=exited.oom_killed,
            error=exited.error, restart_count=max(state.restart_count, exited.restart_count + exited.will_restart),
            running=exited.will_restart,
            stopped_by_user=state.stopped_by_user or exited.stopped_by_user,
            health=exited.health or health.ended(state.health),
        )  # fmt: skip
        if not container.restarting:  # Else it has not run since it was told last.
            self.publish(container, "die", {"exitCode": str(exited.exit_status), "execDuration": str(ran)})
        if exited.will_restart:
            container.restarting = True
            container.tell_ended(End(exited.exit_status))
            return
        container.restarting = False
        task, container.task = container.task, None
        self._engine.execs.container_ended(container)
        container.given_back.clear()
        container.unmounted.clear()
        self.in_background(self._clean_up(container, task, End(exited.exit_status)))

    async def _clean_up(self, container: Container, task: Task | None, end: End) -> None:
        """Give back what a run took. Those who wait are told when it is done: what comes next finds it free. The mount
        nobody has to wait for but the next start; what is removed with the container is unmounted there."""
        auto_remove = container.record.host_config.auto_remove
        try:
            try:
                await give_back(self._engine, container, task)
            finally:
                container.given_back.set()
            stage("end.given-back")
            container.released = True
            container.tell_ended(end)
            if not auto_remove:
                await unmount(self._engine, container)
        finally:
            container.unmounted.set()
        if auto_remove:
            await self._remove_ended(container)

    async def _remove_ended(self, container: Container) -> None:
        with contextlib.suppress(SampanError):
            await self.remove(container, volumes=True)

    def in_background(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]] | None = None) -> None:
        tasks = self._background if among is None else among
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # --- Signals ----------------------------------------------------------------------------------

    def live(self, container: Container) -> Task:
        """Raises Conflict in Docker's words if it does not run."""
        if container.task is None:
            raise Conflict(f"container {container.id} is not running")
        return container.task

    def stop_signal(self, container: Container) -> int:
        return parse_signal(container.record.config.stop_signal or "SIGTERM")

    async def kill(self, container: Container, signal: int) -> None:
        """Raises Conflict if it does not run."""
        if container.task is None:
            raise Conflict(f"container {container.id} is not running")
        stop = signal in (9, self.stop_signal(container))
        if stop:
            container.set_state(stopped_by_user=True)
        if not container.restarting:  # Else there is nobody to get it.
            self.publish(container, "kill", {"signal": str(signal)})
        try:
            await container.task.kill(signal, stop=stop)
        except NotFound:
            raise Conflict(f"container {container.id} is not running") from None

    async def stop(self, container: Container, timeout: int | None = None, signal: str = "") -> None:
        """Signal, wait, and kill when the time is up. Raises NotModified if it does not run."""
        if container.task is None:
            raise NotModified(f"container {container.id} is not running")
        async with container.lock:
            await self._stop(container, timeout, signal)
        self.publish(container, "stop")

    async def _stop(self, container: Container, timeout: int | None, signal: str) -> None:
        if container.task is None:
            return
        if timeout is None:
            configured = container.record.config.stop_timeout
            timeout = _DEFAULT_STOP_TIMEOUT if configured is None else configured
        number = parse_signal(signal) if signal else self.stop_signal(container)
        ended = asyncio.ensure_future(_end(container))
        container.set_state(stopped_by_user=True)
        try:
            with contextlib.suppress(NotFound, Conflict):
                self.publish(container, "kill", {"signal": str(number)})
                await container.task.kill(number, stop=True)
            stage("stop.signalled")
            if container.paused and container.task is not None:
                with contextlib.suppress(NotFound, Conflict):  # A frozen process may be killed.
                    await container.task.resume()
                container.paused = False
            done, _ = await asyncio.wait({ended}, timeout=None if timeout < 0 else timeout)
            if done:
                return
            with contextlib.suppress(NotFound, Conflict):
                if container.task is not None:
                    self.publish(container, "kill", {"signal": "9"})
                    await container.task.kill(9, stop=True)
            done, _ = await asyncio.wait({ended}, timeout=_KILL_TIMEOUT)
            if not done:
                raise Internal(f"container {container.id}: it does not die")
        finally:
            ended.cancel()

    async def restart(self, container: Container, timeout: int | None = None, signal: str = "") -> None:
        async with container.lock:
            # A container that removes itself at its end would be gone between the two.
            auto_remove = container.record.host_config.auto_remove
            if auto_remove:
                raise Conflict(f"cannot restart container {container.id}: it is removed when it stops")
            if container.task is not None:
                await self._stop(container, timeout, signal)
            stage("restart.stopped")
            await self._start(container)
        self.publish(container, "restart")

    async def pause(self, container: Container) -> None:
        async with container.lock:
            task = self.live(container)
            if container.paused:
                raise Conflict(f"Container {container.id} is already paused")
            await task.pause()
            container.paused = True
        self.publish(container, "pause")

    async def unpause(self, container: Container) -> None:
        async with container.lock:
            if not container.paused or container.task is None:
                raise Conflict(f"Container {container.id} is not paused")
            await container.task.resume()
            container.paused = False
        self.publish(container, "unpause")

    # --- Other changes ----------------------------------------------------------------------------

    async def rename(self, container: Container, name: str) -> None:
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        if name.removeprefix("/") == container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        async with container.lock:
            try:
                name = accept.check_name(f"/{name.removeprefix('/')}")
                self._records.check_free(name)
            except SampanError as error:
                raise type(error)(f"Error when allocating new name: {error.message}") from None
            old = container.name
            container.update(name=name)
            if container.running:
                await self._engine.names.serve(container.record)
        self.publish(container, "rename", {"oldName": f"/{old}"})

    async def update(self, container: Container, request: UpdateRequest) -> tuple[str, ...]:
        """See `updating.update`."""
        warnings = await updating.update(self._engine, container, request)
        self.publish(container, "update")
        return warnings

    async def remove(
        self, container: Container, *, force: bool = False, volumes: bool = False, called: str = ""
    ) -> None:
        """Raises Conflict if it runs and `force` is not set. `volumes`: its anonymous ones too. `called`: by what name
        the client did."""
        if container.removing:
            raise Conflict(f"removal of container {container.name} is already in progress")
        async with container.lock:
            if container.id not in self._containers:
                return
            if container.running and not force:
                state = "paused" if container.paused else "restarting" if container.restarting else "running"
                advice = {
                    "paused": "unpause and then stop the container before removing or force remove",
                }.get(state, "stop the container before removing or force remove")
                raise Conflict(f'cannot remove container "{called or container.name}": container is {state}: {advice}')
            container.removing = True
            try:
                if container.task is not None:
                    await self._stop(container, 0, "SIGKILL")
                stage("remove.stopped")
                if not container.released:
                    await release(self._engine, container)
                stage("remove.released")
                layer = await run_blocking(remove_files, self._engine, container, volumes)
            finally:
                container.removing = False
        if layer is not None:
            self.in_background(discard(self._engine, container, layer), self._discards)
        container.drop_pending()
        self.publish(container, "destroy")
        container.tell_removed(End(container.record.state.exit_code))

    def publish(self, container: Container, action: str, attributes: dict[str, str] | None = None) -> None:
        """An event about a container, with Docker's attributes: image, name and labels."""
        record = container.record
        self._engine.events.publish(
            "container",
            action,
            record.id,
            {**(record.config.labels or {}), "image": record.config.image, "name": record.name, **(attributes or {})},
        )


async def _end(container: Container) -> End:
    """The end for good: a container that is started again has not stopped."""
    while True:
        end = await container.next_end()
        if container.task is None:
            return end
