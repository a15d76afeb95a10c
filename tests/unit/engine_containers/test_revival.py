"""Who is started again by an engine, and in what order. What is said of Docker was seen with dockerd 28.5."""

from __future__ import annotations

import pathlib

import pytest

from sampan.api.containers import ContainerConfig, HostConfig, RestartPolicy
from sampan.engine.containers.record import LastState, Record
from sampan.engine.containers.revival import in_order, is_boot, is_due, needed_by


def due(
    policy: str, *, anew: bool = True, most: int = 0, started: int = 1, code: int = 0, stopped: bool = False,
    count: int = 0,
) -> bool:  # fmt: skip
    restart = RestartPolicy(name=policy, maximum_retry_count=most)
    record = Record(
        id="1" * 64, name="web", created=0, image="sha256:12", config=ContainerConfig(image="box"),
        host_config=HostConfig(restart_policy=restart),
        state=LastState(started_at=started, exit_code=code, stopped_by_user=stopped, restart_count=count),
    )  # fmt: skip
    return is_due(record, anew=anew)


@pytest.mark.parametrize("policy", ["", "no", "always", "unless-stopped", "on-failure"])
def test_policies(policy: str) -> None:
    assert due(policy) == (policy in ("always", "unless-stopped"))
    assert due(policy, code=255) == (policy in ("always", "unless-stopped", "on-failure"))
    assert not due(policy, started=0, code=1)
    # As with Docker: a service that starts brings back what a user stopped, if its policy is not about that.
    assert due(policy, stopped=True, code=137) == (policy in ("always", "on-failure"))
    assert not due(policy, stopped=True, code=137, anew=False)


def test_retries() -> None:
    assert due("on-failure", code=1, most=3, count=2)
    assert not due("on-failure", code=1, most=3, count=3)
    assert due("on-failure", code=1, count=300)


def test_order() -> None:
    assert in_order({"a": [], "b": [], "c": []}) == ["a", "b", "c"]
    assert in_order({"a": ["c"], "b": ["a", "gone"], "c": []}) == ["c", "a", "b"]
    assert in_order({"a": ["b"], "b": ["a"]}) == ["b", "a"]
    host = HostConfig(network_mode="container:n", pid_mode="host", links=("/db:database", "web"))
    assert needed_by(host) == {"n", "db", "web"}


def test_a_boot_is_told_by_what_it_takes(tmp_path: pathlib.Path) -> None:
    assert is_boot(str(tmp_path))
    assert not is_boot(str(tmp_path))
    (tmp_path / "booted").unlink()
    assert is_boot(str(tmp_path))
