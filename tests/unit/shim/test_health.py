"""What probes make of a container's health, and the rules of a health check."""

from __future__ import annotations

import msgspec
import pytest

from sampan.api.containers import HealthConfig
from sampan.engine.containers import health as wanted
from sampan.errors import InvalidArgument
from sampan.oci.image import Healthcheck
from sampan.oci.runtime import Process
from sampan.shim.health import after
from sampan.shimapi.messages import Health, HealthCheck, Probe

SECOND = 1_000_000_000
CHECK = HealthCheck(
    process=Process(cwd="/", args=("x",)), interval=1, timeout=1, start_period=5, start_interval=1, retries=2
)  # fmt: skip


def probe(at: float, status: int) -> Probe:
    return Probe(started_at=int(at * SECOND), ended_at=int((at + 0.1) * SECOND), exit_status=status, output="")


def story(*probes: tuple[float, int]) -> list[tuple[str, int]]:
    found = []
    health = Health()
    for at, status in probes:
        health = after(health, probe(at, status), CHECK, 0)
        found.append((health.status, health.failing_streak))
    return found


def test_failures_count_when_the_start_period_is_over() -> None:
    assert story((1, 1), (4.9, 1), (5, 1), (6, 1), (7, 1)) == [
        ("starting", 0), ("starting", 0), ("starting", 1), ("unhealthy", 2), ("unhealthy", 3),
    ]  # fmt: skip


def test_one_success_makes_it_healthy_and_ends_the_start_period() -> None:
    assert story((1, 1), (2, 0), (3, 1), (4, -1), (5, 0)) == [
        ("starting", 0), ("healthy", 0), ("healthy", 1), ("unhealthy", 2), ("healthy", 0),
    ]  # fmt: skip


def test_the_last_five_probes_are_kept() -> None:
    health = Health()
    for at in range(8):
        health = after(health, probe(at, 0), CHECK, 0)
    assert [each.started_at // SECOND for each in health.log] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HealthConfig(test=("NOPE", "x")), 'unknown type "NOPE" in Healthcheck'),
        (HealthConfig(test=("CMD",)), "a health check of type CMD needs a command"),
        (HealthConfig(interval=999_999), "Interval in Healthcheck cannot be less than 1ms"),
        (HealthConfig(start_period=-1), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (HealthConfig(retries=-1), "Retries in Healthcheck cannot be negative"),
    ],
)
def test_what_is_no_health_check(config: HealthConfig, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        wanted.check(config, {})


def test_an_action_that_there_is_not() -> None:
    with pytest.raises(
        InvalidArgument, match="invalid health action 'reboot': must be one of none, kill, restart, stop"
    ):
        wanted.check(None, {wanted.ACTION: "reboot"})


def test_the_images_says_what_the_request_does_not() -> None:
    image = Healthcheck(test=("CMD", "look"), interval=7, retries=4)
    assert wanted.merged(None, None) is None
    assert wanted.merged(None, image) == HealthConfig(test=("CMD", "look"), interval=7, retries=4)
    own = HealthConfig(interval=9, timeout=8)
    assert wanted.merged(own, image) == HealthConfig(test=("CMD", "look"), interval=9, timeout=8, retries=4)
    none = HealthConfig(test=("NONE",))
    merged = wanted.merged(none, image)
    assert merged is not None
    assert merged.test == ("NONE",)
    assert msgspec.structs.replace(own, test=("CMD", "x")) == wanted.merged(
        msgspec.structs.replace(own, test=("CMD", "x")), None
    )
