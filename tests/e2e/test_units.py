"""What systemd's units run, without systemd: `start --wait`, `generate systemd`. With it: tests/privileged/systemd."""

from __future__ import annotations

import pathlib
import signal
import socket
import subprocess
import sys

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")


def waiting(engine: Engine, notify: pathlib.Path, name: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """`start --wait`, and the socket of the service manager."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(notify))
    manager.settimeout(30)
    process = subprocess.Popen(
        [sys.executable, "-m", "sampan.cli", "start", "--wait", name],
        env={**engine.environment, "NOTIFY_SOCKET": str(notify)},
    )  # fmt: skip
    return process, manager


def test_it_says_when_it_has_started_and_ends_as_the_container(engine: Engine, short_dir: pathlib.Path) -> None:
    engine.docker("create", "--name", "unit", "box", "sh", "-c", "trap 'exit 7' TERM; sleep 600 & wait", check=True)
    process, manager = waiting(engine, short_dir / "n", "unit")
    with manager:
        assert manager.recv(100) == b"READY=1"
        assert engine.docker("inspect", "-f", "{{.State.Running}}", "unit").stdout == "true\n"
        # An engine that goes and comes back is nothing to it.
        engine.stop(signal.SIGKILL)
        engine.start()
        assert process.poll() is None
        engine.docker("stop", "unit", check=True)
        assert process.wait(30) == 7


def test_it_takes_over_what_runs_and_stays_for_the_next_run(engine: Engine, short_dir: pathlib.Path) -> None:
    engine.docker(
        "run", "-d", "--name", "unit", "--restart", "on-failure:3", "box", "sh", "-c", "sleep 0.4; exit 5", check=True
    )
    process, manager = waiting(engine, short_dir / "n", "unit")
    with manager:
        assert manager.recv(100) == b"READY=1"
        assert process.wait(30) == 5
    assert engine.docker("inspect", "-f", "{{.RestartCount}}", "unit").stdout == "3\n"


def test_what_is_generated(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.docker("create", "--name", "unit", "--stop-signal", "INT", "box", "true", check=True)
    shown = engine.sampan("generate", "systemd", "-t", "3", "unit", check=True).stdout
    assert f"ExecStart={sys.executable} -I -m sampan.cli -H {engine.host} start --wait unit\n" in shown
    assert "SuccessExitStatus=130\n" in shown
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "generate", "systemd", "-f", "unit"], env=engine.environment, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    path = tmp_path / "container-unit.service"
    assert done.stdout == f"{path}\n"
    assert path.read_text() == engine.sampan("generate", "systemd", "unit", check=True).stdout
    assert "No such container: nope" in engine.sampan("generate", "systemd", "nope").stderr
    engine.docker("create", "--rm", "--name", "once", "box", "true", check=True)
    assert "is removed when it ends" in engine.sampan("generate", "systemd", "once").stderr
