"""Execs: created first, started later, and inspectable until their container ends."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import words
from sampan.api.exec import ExecCreateRequest, ExecInspect, ExecProcess
from sampan.engine import runtimes
from sampan.engine.containers.container import Container
from sampan.engine.containers.detach import DEFAULT, parse_detach_keys
from sampan.engine.containers.record import Record
from sampan.engine.containers.spec import environment, rlimits
from sampan.engine.containers.users import resolve_user
from sampan.engine.security.capabilities import available
from sampan.errors import CommandNotExecutable, CommandNotFound, Conflict, InvalidArgument, NotFound, SampanError
from sampan.faults import stage
from sampan.oci.runtime import Box, Capabilities, Process
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_KEPT_AFTER_END = 256
"""Ended execs that can still be inspected; clients ask for the exit code right after the stream's end."""


@dataclass
class Exec:
    id: str
    container: Container
    request: ExecCreateRequest
    detach_keys: bytes
    """As they were given; empty: the default ones."""
    pid: int = 0
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def command(self) -> str:
        """As events have it: the program, a space, and its arguments."""
        program, *arguments = words(self.request.cmd)
        return f"{program} {' '.join(arguments)}"


class Execs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._execs: dict[str, Exec] = {}

    def get(self, exec_id: str) -> Exec:
        """Raises NotFound in Docker's words."""
        found = self._execs.get(exec_id)
        if found is None:
            candidates = [each for key, each in self._execs.items() if exec_id and key.startswith(exec_id)]
            if len(candidates) != 1:
                raise NotFound(f"No such exec instance: {exec_id}")
            found = candidates[0]
        return found

    def of_container(self, container_id: str) -> list[str]:
        """Those that run."""
        return [each.id for each in self._execs.values() if each.container.id == container_id and each.running]

    def create(self, container: Container, request: ExecCreateRequest) -> Exec:
        """Raises InvalidArgument and Conflict."""
        if not words(request.cmd):
            raise InvalidArgument("No exec command specified")
        self._engine.containers.live(container)
        if container.paused:
            raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
        if container.restarting:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if request.working_dir and not request.working_dir.startswith("/"):
            raise InvalidArgument(f"the working directory '{request.working_dir}' is invalid, it needs to be absolute")
        keys = parse_detach_keys(request.detach_keys) if request.detach_keys else b""
        made = Exec(os.urandom(32).hex(), container, request, keys)
        self._forget_old()
        self._execs[made.id] = made
        self._publish(made, f"exec_create: {made.command}")
        return made

    def _forget_old(self) -> None:
        over = [each.id for each in self._execs.values() if each.ended.is_set()]
        for exec_id in over[: max(0, len(over) - _KEPT_AFTER_END)]:
            del self._execs[exec_id]

    def check_start(self, exec_id: str) -> Exec:
        """Before the connection is taken: what can be said by a status. Raises NotFound, Conflict."""
        found = self.get(exec_id)
        if found.running:
            raise Conflict(f"exec command {found.id} is already running")
        if found.started:
            raise Conflict(f"exec command {found.id} has already run")
        self._engine.containers.live(found.container)
        if found.container.paused:
            raise Conflict(f"Container {found.container.id} is paused, unpause the container before exec")
        found.started = True
        return found

    async def start(
        self,
        found: Exec,
        attachments: list[tuple[int, msg.Attachment]],
        size: tuple[int, int] | None = None,
    ) -> None:
        """Run it; the descriptors are given away. Raises what the runtime raises, with Docker's words before it."""
        request, container = found.request, found.container
        descriptors = [descriptor for descriptor, _ in attachments]
        try:
            root = self._engine.core.snapshots.graph_data(container.id).merged_dir
            made = process(root, container.record, request, size)
            task = self._engine.containers.live(container)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            found.exit_code = 126
            found.ended.set()
            raise
        window = msg.WindowSize(width=size[1], height=size[0]) if size and any(size) else None
        message = msg.Exec(
            exec_id=found.id, process=made, stdin=request.attach_stdin, window=window,
            attachments=tuple(each for _, each in attachments),
        )  # fmt: skip
        found.running = True
        self._publish(found, f"exec_start: {found.command}")
        stage("exec.asked")
        try:
            started = await task.exec(message, descriptors)
        except SampanError as error:
            found.running = False
            found.exit_code = (
                127 if isinstance(error, CommandNotFound) else 126 if isinstance(error, CommandNotExecutable) else 128
            )
            found.ended.set()
            foreign = runtimes.is_foreign(self._engine.config, container.record.host_config.runtime)
            own = "" if foreign else "exec failed: unable to start container process: "
            raise type(error)(f"OCI runtime exec failed: {own}{error.message}") from error
        found.pid = started.pid
        stage("exec.started")

    def attachment(self, found: Exec, received: bytes) -> msg.Attachment:
        """How the client's connection is attached."""
        request = found.request
        return msg.Attachment(
            stdin=request.attach_stdin, stdout=request.attach_stdout, stderr=request.attach_stderr,
            framed=not request.tty, received=received,
            # Without a terminal the input is a program's, and any byte may be in it.
            detach_keys=(found.detach_keys or DEFAULT) if request.tty else b"",
        )  # fmt: skip

    async def resize(self, found: Exec, height: int, width: int) -> None:
        """Raises Conflict if it does not run."""
        if not found.running:
            raise Conflict(f"cannot resize a stopped container: exec {found.id} is not running")
        task = self._engine.containers.live(found.container)
        await task.resize(msg.WindowSize(width=width, height=height), exec_id=found.id)

    def ended(self, container: Container, event: msg.ExecExited) -> None:
        """The shim says so."""
        found = self._execs.get(event.exec_id)
        if found is None:
            return  # Started by an engine before this one.
        self._end(found, event.exit_status)
        if container.task is not None:
            self._engine.containers.in_background(_forget(container, event.exec_id))

    def container_ended(self, container: Container) -> None:
        """Nothing of it runs any more."""
        for found in self._execs.values():
            if found.container is container and found.running:
                self._end(found, 137)

    def _end(self, found: Exec, exit_code: int) -> None:
        found.running = False
        found.exit_code = exit_code
        found.ended.set()
        self._publish(found, "exec_die", {"exitCode": str(exit_code)})

    def _publish(self, found: Exec, action: str, attributes: dict[str, str] | None = None) -> None:
        self._engine.containers.publish(found.container, action, {"execID": found.id, **(attributes or {})})

    def inspect(self, found: Exec) -> ExecInspect:
        request = found.request
        command = words(request.cmd)
        return ExecInspect(
            id=found.id, running=found.running, exit_code=found.exit_code,
            process_config=ExecProcess(
                tty=request.tty, entrypoint=command[0], arguments=command[1:], privileged=request.privileged,
                user=request.user or found.container.record.config.user or msgspec.UNSET,
            ),
            open_stdin=request.attach_stdin, open_stderr=request.attach_stderr, open_stdout=request.attach_stdout,
            can_remove=False, container_id=found.container.id, detach_keys=found.detach_keys, pid=found.pid,
        )  # fmt: skip


def process(root: str, record: Record, request: ExecCreateRequest, size: tuple[int, int] | None = None) -> Process:
    """One more process of a container whose file system is mounted at `root`. Blocks: users are looked up in there."""
    user = resolve_user(root, request.user or record.config.user, record.host_config.group_add or ())
    own = {entry.partition("=")[0] for entry in request.env or ()}
    env = (*(each for each in environment(record) if each.partition("=")[0] not in own), *(request.env or ()))
    if request.tty and not any(each.startswith("TERM=") for each in env):
        env = (*env, "TERM=xterm")
    privileged = (
        Capabilities(bounding=available(), effective=available(), permitted=available()) if request.privileged else None
    )
    return Process(
        args=words(request.cmd), cwd=request.working_dir or record.config.working_dir or "/",
        env=tuple(each for each in env if "=" in each), terminal=request.tty, user=user,
        rlimits=rlimits(record.host_config), capabilities=privileged,
        console_size=Box(height=size[0], width=size[1]) if size and any(size) else None,
        no_new_privileges=any(
            option in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true")
            for option in record.host_config.security_opt or ()
        ),
    )  # fmt: skip


async def _forget(container: Container, exec_id: str) -> None:
    if container.task is not None:
        try:
            await container.task.delete_exec(exec_id)
        except SampanError:
            return
