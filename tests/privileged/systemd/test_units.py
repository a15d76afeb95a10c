"""`system install`, a container's unit, the journal, and `system uninstall`, with the machine's own systemd."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.core.paths import Paths
from tests.e2e.conftest import busybox_tar, take_down

pytestmark = pytest.mark.requires("root", "systemd", "overlay", "bridge", "nftables", "program:busybox")

UNIT = pathlib.Path("/etc/systemd/system/container-web.service")


def run(*words: str, check: bool = True, stdin: bytes = b"") -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, check=False, timeout=900)
    if check:
        assert done.returncode == 0, (words, done.stderr.decode())
    return done.stdout.decode().strip()


def sampan(*words: str, check: bool = True, stdin: bytes = b"") -> str:
    return run(sys.executable, "-m", "sampan.cli", *words, check=check, stdin=stdin)


def shown(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 600
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert condition(), what


@pytest.fixture
def installed() -> Iterator[None]:
    if os.path.exists("/etc/systemd/system/sampan.socket") or os.path.exists("/var/lib/sampan"):
        pytest.skip("Sampan is installed here, and has something")
    run("useradd", "--no-create-home", "sampantest")
    try:
        sampan("system", "install", "--user", "sampantest", "--", "--log-level", "debug")
        yield
    finally:
        with contextlib.suppress(AssertionError):
            for each in sampan("ps", "-aq").split():
                sampan("rm", "-f", each)
        run("userdel", "sampantest", check=False)
        sampan("system", "uninstall", check=False)
        UNIT.unlink(missing_ok=True)
        take_down(Paths())
        shutil.rmtree("/var/lib/sampan", ignore_errors=True)


def test_units(installed: None) -> None:
    # The socket and the service stand, and whose they are.
    status = os.stat("/run/sampan/sampan.sock")
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_gid == grp.getgrnam("sampan").gr_gid
    assert grp.getgrnam("sampan").gr_mem == ["sampantest"]
    assert shown("sampan.service", "ActiveState") == "active"
    assert shown("sampan.service", "UnitFileState") == "enabled"
    engine = shown("sampan.service", "MainPID")
    # Once more, with other options: what runs is replaced.
    sampan("system", "install")
    until(lambda: shown("sampan.service", "MainPID") not in (engine, "0"), "the service with its new options")
    engine = shown("sampan.service", "MainPID")
    assert b"debug" not in pathlib.Path(f"/proc/{engine}/cmdline").read_bytes()
    run("runuser", "-u", "sampantest", "--", sys.executable, "-m", "sampan.cli", "version")

    # A service that is stopped and started again: the containers stay, and a client brings it up.
    tar = pathlib.Path("/tmp/sampan-box.tar")
    tar.write_bytes(busybox_tar())
    sampan("import", str(tar), "box")
    tar.unlink()
    sampan("run", "-d", "--name", "stays", "box", "sleep", "6000")
    pid = sampan("inspect", "-f", "{{.State.Pid}}", "stays")
    run("systemctl", "stop", "sampan.service")
    assert os.path.exists(f"/proc/{pid}")
    assert sampan("inspect", "-f", "{{.State.Pid}}", "stays") == pid
    assert shown("sampan.service", "MainPID") != engine

    # The journal.
    sampan("run", "--name", "talks", "--log-driver", "journald", "box", "sh", "-c", "echo hello; echo bad >&2")
    entries: list[dict[str, str]] = []

    def told() -> bool:
        lines = run("journalctl", "-o", "json", "CONTAINER_NAME=talks").splitlines()
        entries[:] = [json.loads(line) for line in lines]
        return len(entries) == 2

    until(told, "the journal's entries")
    by_text = {each["MESSAGE"]: each for each in entries}
    assert by_text["hello"]["PRIORITY"] == "6"
    assert by_text["bad"]["PRIORITY"] == "3"
    assert by_text["hello"]["IMAGE_NAME"] == "box"
    assert by_text["hello"]["CONTAINER_ID_FULL"] == sampan("inspect", "-f", "{{.Id}}", "talks")
    assert sampan("logs", "talks").splitlines()[0] == "hello"

    # A container's unit: up, up again when it fails, and down.
    sampan(
        "create", "--name", "web", "--stop-timeout", "2", "box", "sh", "-c", "trap 'exit 143' TERM; sleep 6000 & wait"
    )
    UNIT.write_text(sampan("generate", "systemd", "web"))
    run("systemctl", "daemon-reload")
    run("systemctl", "start", UNIT.name)
    assert sampan("inspect", "-f", "{{.State.Running}}", "web") == "true"
    first = sampan("inspect", "-f", "{{.State.Pid}}", "web")
    run("systemctl", "restart", "sampan.service")
    assert shown(UNIT.name, "ActiveState") == "active"
    os.kill(int(first), 9)
    until(lambda: sampan("inspect", "-f", "{{.State.Pid}}", "web") not in (first, "0"), "the second run")
    until(lambda: shown(UNIT.name, "ActiveState") == "active", "the unit")
    run("systemctl", "stop", UNIT.name)
    assert shown(UNIT.name, "ActiveState") == "inactive"
    assert sampan("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web") == "exited 143"

    # Away with it.
    for name in ("stays", "talks", "web"):
        sampan("rm", "-f", name)
    run("userdel", "sampantest")
    sampan("system", "uninstall")
    assert not list(pathlib.Path("/etc/systemd/system").glob("**/sampan.*"))
    assert shown("sampan.service", "ActiveState") == "inactive"
    assert not os.path.exists("/run/sampan/sampan.sock")
    with pytest.raises(KeyError):
        grp.getgrnam("sampan")
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "system", "uninstall"], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert "no sampan.socket and sampan.service" in done.stderr
