"""Health checks: a program that is executed in the container again and again, whether or not there is an engine.

Docker's rules: a container is `starting` until a probe succeeds, or as many have failed in a row as `retries` says;
failures in the first `start_period` do not count. The next probe begins an interval after the end of the last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import SampanError
from sampan.linux import process
from sampan.runtime.container import Stdio
from sampan.shim.loop import READ, Loop, Timer
from sampan.shim.task import exit_status
from sampan.shimapi.messages import Health, HealthCheck, Probe

if TYPE_CHECKING:
    from sampan.shim.runtimes import RunningContainer

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
_LOG_ENTRIES = 5
_OUTPUT = 4096
_CHUNK = 1 << 14


def after(health: Health, probe: Probe, check: HealthCheck, started_at: int) -> Health:
    """What one more probe makes of it. Pure; `started_at`: nanoseconds since the epoch."""
    status, streak = health.status, health.failing_streak
    if probe.exit_status == 0:
        status, streak = HEALTHY, 0
    elif status != STARTING or probe.started_at - started_at >= check.start_period * 1e9:
        streak += 1
        if streak >= check.retries:
            status = UNHEALTHY
    return Health(status=status, failing_streak=streak, log=(*health.log, probe)[-_LOG_ENTRIES:])


class Checker:
    """The checks of one run of a container. `probed(health, changed)` is called after each; `changed`: its status is
    another than before."""

    def __init__(
        self, loop: Loop, check: HealthCheck, container: RunningContainer, before: Health | None,
        probed: Callable[[Health, bool], None],
    ) -> None:  # fmt: skip
        """`before`: of the run before, whose log is kept."""
        self.health = Health(log=before.log if before is not None else ())
        self._loop = loop
        self._check = check
        self._container = container
        self._probed = probed
        self._started_at = time.time_ns()
        self._timer: Timer | None = None
        self._running: _Running | None = None
        self._schedule()

    def reaped(self, pid: int, status: int) -> bool:
        """Whether it was ours."""
        if self._running is None or self._running.pid != pid:
            return False
        running, self._running = self._running, None
        self._result(running.finish(exit_status(status)))
        return True

    def pause(self) -> None:
        """No more probes; one that runs is frozen with the container, and is given up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._running.give_up()
            self._running = None

    def resume(self) -> None:
        self._schedule()

    def end(self) -> Health:
        """The container has ended: nobody would call it healthy."""
        self.pause()
        self.health = msgspec.structs.replace(self.health, status=UNHEALTHY)
        return self.health

    def _schedule(self) -> None:
        check = self._check
        early = self.health.status == STARTING and time.time_ns() - self._started_at < check.start_period * 1e9
        self._timer = self._loop.later(check.start_interval if early else check.interval, self._probe)

    def _probe(self) -> None:
        self._timer = None
        begin = time.time_ns()
        try:
            self._running = _Running(self._loop, self._container, self._check)
        except (SampanError, OSError) as error:
            message = error.message if isinstance(error, SampanError) else str(error)
            self._result(Probe(started_at=begin, ended_at=time.time_ns(), exit_status=-1, output=message))

    def _result(self, probe: Probe) -> None:
        before = self.health
        self.health = after(before, probe, self._check, self._started_at)
        self._schedule()
        self._probed(self.health, self.health.status != before.status)


class _Running:
    """One probe. Raises what the runtime raises."""

    def __init__(self, loop: Loop, container: RunningContainer, check: HealthCheck) -> None:
        self._loop = loop
        self._timeout = check.timeout
        self._output = bytearray()
        self._cut = False
        self._late = False
        self._begin = time.time_ns()
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(theirs, True)
            started = container.exec(check.process, Stdio(None, theirs, theirs), None)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        self.pid = started.pid
        self._pidfd = started.pidfd
        loop.watch(self._pipe, READ, self._read)
        self._timer = loop.later(self._timeout, self._too_late)

    def _read(self, events: int) -> None:
        """What is over the limit is read too, and dropped: the program must not be held up."""
        while True:
            try:
                data = os.read(self._pipe, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self._loop.forget(self._pipe)
                return
            room = _OUTPUT - len(self._output)
            self._output += data[:room]
            self._cut = self._cut or len(data) > room

    def _too_late(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self._pidfd, signal.SIGKILL)

    def finish(self, status: int) -> Probe:
        """It has ended; what it said at last is read, whoever else may hold the pipe."""
        self._read(READ)
        output = self._output.decode("utf-8", "replace") + ("..." if self._cut else "")
        if self._late:
            status = -1
            output = f"Health check exceeded timeout ({_seconds(self._timeout)})" + (f": {output}" if output else "")
        self._close()
        return Probe(started_at=self._begin, ended_at=time.time_ns(), exit_status=status, output=output)

    def give_up(self) -> None:
        """Its end will be reaped as that of any other child."""
        self._kill()
        self._close()

    def _close(self) -> None:
        self._timer.cancel()
        self._loop.forget(self._pipe)
        os.close(self._pipe)
        os.close(self._pidfd)


def _seconds(value: float) -> str:
    """As Go prints a duration: `30s`, `1.5s`, `1m30s`."""
    minutes, seconds = divmod(value, 60)
    text = f"{seconds:g}s"
    return f"{minutes:.0f}m{text}" if minutes else text
