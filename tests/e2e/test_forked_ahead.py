"""The shim and the process that wait for the next container: they may be killed, and they end with the engine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Engine, busybox_tar

pytestmark = pytest.mark.requires(
    "root", "overlay", "bridge", "nftables", "cgroup1", "program:docker", "program:busybox"
)


@pytest.fixture
def own() -> Iterator[Engine]:
    """An engine of the test's own, which it may end."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    running = Engine(directory)
    running.start()
    try:
        running.docker("import", "-", "box", stdin=busybox_tar(), check=True)
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.stop()
        running.take_down()
        shutil.rmtree(directory, ignore_errors=True)


def below(pid: int, name: str) -> list[int]:
    """The descendants of a process with this name."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if pathlib.Path(f"/proc/{child}/comm").read_text().strip() == name:
                found.append(int(child))
            found += below(int(child), name)
    return found


def waiting(engine: Engine) -> tuple[int, int]:
    """The shim and the newborn that wait. They are made when the last start is through."""
    for _ in range(200):
        shims, newborns = below(engine.pid, "sampan-shim"), below(engine.pid, "sampan-init")
        if newborns and shims:
            return shims[-1], newborns[-1]
        time.sleep(0.02)
    pytest.fail("nothing is forked ahead")


def run(engine: Engine) -> str:
    return engine.docker("run", "--rm", "--network", "none", "box", "echo", "ran", check=True).stdout


def test_a_killed_one_is_made_up_for(own: Engine) -> None:
    assert run(own) == "ran\n"
    for victim in (0, 1):
        os.kill(waiting(own)[victim], signal.SIGKILL)
        assert run(own) == "ran\n"
    assert own.left_over() == []


def test_starts_at_once(own: Engine) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(run(own))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["ran\n"] * 6
    assert own.left_over() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_they_end_with_the_engine(own: Engine, number: int) -> None:
    both = waiting(own)
    own.stop(number)
    deadline = time.monotonic() + 5
    # The shim is reaped by whoever reaps orphans here; the newborn by the shim.
    while os.path.exists(f"/proc/{both[0]}/exe") or os.path.exists(f"/proc/{both[1]}"):
        assert time.monotonic() < deadline, "they live on"
        time.sleep(0.02)
