"""Health checks: what was asked for, what the shim is told to do, and how the outcome is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.api import container_documents as api
from sampan.api.containers import HealthConfig
from sampan.engine.containers.record import Record
from sampan.engine.containers.signals import parse_signal
from sampan.engine.timestamps import rfc3339
from sampan.errors import InvalidArgument
from sampan.oci.image import Healthcheck
from sampan.oci.runtime import Process
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from collections.abc import Callable

ACTION = "io.sampan.health-action"
"""The annotation that says what an unhealthy container gets."""
_ACTIONS = ("none", "kill", "restart", "stop")
_NANO = 1e9
_SHORTEST = 1_000_000
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES, _STOP_TIMEOUT = 30.0, 30.0, 5.0, 3, 10
_SHELL = ("/bin/sh", "-c")


def check(wanted: HealthConfig | None, annotations: dict[str, str]) -> None:
    """Raises InvalidArgument, in Docker's words."""
    if annotations.get(ACTION, "none") not in _ACTIONS:
        raise InvalidArgument(f"invalid health action '{annotations[ACTION]}': must be one of {', '.join(_ACTIONS)}")
    if wanted is None:
        return
    test = wanted.test or ()
    if test and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f'unknown type "{test[0]}" in Healthcheck')
    if test and test[0] != "NONE" and len(test) < 2:
        raise InvalidArgument(f"a health check of type {test[0]} needs a command")
    for name, value in (
        ("Interval", wanted.interval), ("Timeout", wanted.timeout), ("StartPeriod", wanted.start_period),
        ("StartInterval", wanted.start_interval),
    ):  # fmt: skip
        if value and value < _SHORTEST:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if wanted.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def merged(wanted: HealthConfig | None, image: Healthcheck | None) -> HealthConfig | None:
    """The request's, with the image's where it says nothing."""
    if image is None:
        return wanted
    own = msgspec.to_builtins(wanted) if wanted is not None else {}
    return msgspec.convert({**msgspec.to_builtins(image), **own}, HealthConfig)


def wanted(record: Record, process: Callable[[tuple[str, ...]], Process]) -> msg.HealthCheck | None:
    """For the shim. `process`: a command as it is executed in the container."""
    config = record.config.healthcheck
    test = (config.test or ()) if config is not None else ()
    if config is None or not test or test[0] == "NONE":
        return None
    stop_timeout = record.config.stop_timeout
    return msg.HealthCheck(
        process=process(test[1:] if test[0] == "CMD" else (*(record.config.shell or _SHELL), *test[1:])),
        interval=config.interval / _NANO or _INTERVAL, timeout=config.timeout / _NANO or _TIMEOUT,
        start_period=config.start_period / _NANO, start_interval=config.start_interval / _NANO or _START_INTERVAL,
        retries=config.retries or _RETRIES, action=(record.host_config.annotations or {}).get(ACTION, "none"),
        stop_signal=parse_signal(record.config.stop_signal or "SIGTERM"),
        stop_timeout=float(_STOP_TIMEOUT if stop_timeout is None else stop_timeout),
    )  # fmt: skip


def begun(record: Record) -> msg.Health | None:
    """At a start: of the run before, the log is left."""
    config = record.config.healthcheck
    if config is None or not config.test or config.test[0] == "NONE":
        return None
    return msg.Health(log=record.state.health.log if record.state.health is not None else ())


def ended(health: msg.Health | None) -> msg.Health | None:
    """Nobody would call it healthy."""
    return msgspec.structs.replace(health, status="unhealthy") if health is not None else None


def shown(health: msg.Health | None) -> api.Health | msgspec.UnsetType:
    """As inspect shows it; nothing for a container that was never checked."""
    if health is None:
        return msgspec.UNSET
    return api.Health(
        status=health.status, failing_streak=health.failing_streak,
        log=tuple(
            api.HealthLog(
                start=rfc3339(each.started_at), end=rfc3339(each.ended_at), exit_code=each.exit_status,
                output=each.output,
            )
            for each in health.log
        ),
    )  # fmt: skip


def words(health: msg.Health | None) -> str:
    """What `ps` says of a container that runs."""
    if health is None:
        return ""
    return f" (health: {health.status})" if health.status == "starting" else f" ({health.status})"
