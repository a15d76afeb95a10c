"""The container's process and the execs beside it: the runtime's container with its streams."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.errors import SampanError
from sampan.runtime.container import Container, Stdio
from sampan.shim.log import Log
from sampan.shim.loop import Loop, Timer
from sampan.shim.maker import Maker
from sampan.shim.streams import Streams
from sampan.shimapi.messages import Attachment, Create, Exec, ExecExited, WindowSize

if TYPE_CHECKING:
    from sampan.shim.runtimes import RunningContainer

_DRAIN = 1.0
"""Seconds that an ended process's streams are still read where somebody else holds them."""


class Pipes:
    """The pipes of a process without a terminal: the shim's ends and the process's."""

    def __init__(self, stdin: bool) -> None:
        self.stdin: tuple[int, int] | None = os.pipe2(os.O_CLOEXEC) if stdin else None
        self.stdout = os.pipe2(os.O_CLOEXEC)
        self.stderr = os.pipe2(os.O_CLOEXEC)

    @property
    def stdio(self) -> Stdio:
        return Stdio(self.stdin[0] if self.stdin else None, self.stdout[1], self.stderr[1])

    def hand_over(self, streams: Streams) -> None:
        """The process has its ends: close them here, and read from ours."""
        self._close_theirs()
        streams.use_pipes(self.stdin[1] if self.stdin else None, self.stdout[0], self.stderr[0])

    def _close_theirs(self) -> None:
        for descriptor in (self.stdin[0] if self.stdin else None, self.stdout[1], self.stderr[1]):
            if descriptor is not None:
                os.close(descriptor)

    def close(self) -> None:
        """The process was not made."""
        self._close_theirs()
        for descriptor in (self.stdin[1] if self.stdin else None, self.stdout[0], self.stderr[0]):
            if descriptor is not None:
                os.close(descriptor)


def exit_status(status: int) -> int:
    """The shell's number for waitpid's: 128 + n for a death by signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _size(window: WindowSize | None) -> tuple[int, int] | None:
    return (window.width, window.height) if window else None


class Running:
    """A process with streams. `on_exit(status)` is called once, when it has ended and its output is drained."""

    def __init__(self, loop: Loop, streams: Streams, on_exit: Callable[[int], None]) -> None:
        self.pid = 0
        self.streams = streams
        self._loop = loop
        self._on_exit = on_exit
        self._status: int | None = None
        self._timer: Timer | None = None

    def reaped(self, status: int) -> None:
        """waitpid's status: the process has ended."""
        self._status = exit_status(status)
        if self.streams.ended:
            self._finish()
        else:
            self._timer = self._loop.later(_DRAIN, self.streams.drain)

    def output_ended(self) -> None:
        if self._status is not None:
            self._finish()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        assert self._status is not None
        self._on_exit(self._status)


class Task(Running):
    """The container's own process, from its creation to its end. Made anew for each restart."""

    def __init__(
        self,
        loop: Loop,
        create: Create,
        log: Log,
        attachments: list[tuple[int, Attachment]],
        window: WindowSize | None,
        on_exit: Callable[[int], None],
        on_detach: Callable[[], None],
        maker: Maker | None,
    ) -> None:
        """Raises what the runtime raises; then nothing is left, and the attachments are closed."""
        streams = Streams(loop, log, self.output_ended, on_detach, close_input_with_client=create.stdin_once)
        super().__init__(loop, streams, on_exit)
        self.started_at = 0
        pipes = None if create.terminal else Pipes(create.stdin)
        try:
            self.container = _create(create, pipes.stdio if pipes else Stdio(), _size(window), maker)
        except BaseException:
            if pipes is not None:
                pipes.close()
            for descriptor, _ in attachments:
                os.close(descriptor)
            raise
        self.pid = self.container.pid
        for descriptor, attachment in attachments:
            streams.attach(descriptor, attachment)
        if pipes is not None:
            pipes.hand_over(streams)
        else:
            assert self.container.master is not None
            streams.use_terminal(self.container.master, create.stdin)

    def start(self) -> None:
        """Execute the program. Raises what the runtime raises; the process is reaped then as any other."""
        self.container.start()
        self.started_at = time.time_ns()


class ExecTask(Running):
    """One more process in the container."""

    def __init__(
        self, loop: Loop, container: RunningContainer, request: Exec, attachments: list[tuple[int, Attachment]],
        on_exit: Callable[[ExecExited], None], on_detach: Callable[[], None],
    ) -> None:  # fmt: skip
        """Runs it. Raises what the runtime raises; the attachments are left to the caller then."""
        streams = Streams(loop, None, self.output_ended, on_detach, close_input_with_client=True)
        super().__init__(loop, streams, self._exited)
        self.exec_id = request.exec_id
        self.exited: ExecExited | None = None
        self._tell = on_exit
        terminal = request.process.terminal
        pipes = None if terminal else Pipes(request.stdin)
        try:
            process = container.exec(request.process, pipes.stdio if pipes else Stdio(), _size(request.window))
        except BaseException:
            if pipes is not None:
                pipes.close()
            raise
        self.pid = process.pid
        os.close(process.pidfd)
        for descriptor, attachment in attachments:
            streams.attach(descriptor, attachment)
        if pipes is not None:
            pipes.hand_over(streams)
        else:
            assert process.master is not None
            streams.use_terminal(process.master, request.stdin)

    def _exited(self, status: int) -> None:
        self.exited = ExecExited(exec_id=self.exec_id, pid=self.pid, exit_status=status, exited_at=time.time_ns())
        self._tell(self.exited)
        self.streams.finish()


def _create(create: Create, stdio: Stdio, window: tuple[int, int] | None, maker: Maker | None) -> RunningContainer:
    if not create.runtime:
        made = maker.make(create, stdio, window) if maker is not None else None
        return made or Container.create(create.id, create.bundle, create.state_root, stdio, window=window)
    if maker is not None:
        maker.dismiss()
    # Here and not above: those that have no use for it do without its memory.
    from sampan.shim.foreign import ForeignContainer

    return ForeignContainer.create(create, stdio, window)


def delete_quietly(container: RunningContainer) -> None:
    """Remove a container whose process has ended, or never was."""
    with contextlib.suppress(SampanError, OSError):
        container.delete(force=True)
