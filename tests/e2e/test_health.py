"""Health checks through the docker command and ours; they go on without an engine."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:docker")

QUICK = ("--network", "none", "--health-interval", "100ms", "--health-retries", "2", "--health-timeout", "2s")


def run(engine: Engine, *words: str, program: tuple[str, ...] = ("sleep", "600")) -> None:
    # By our command: Docker's of old does not know all the flags.
    engine.sampan("run", "-d", "--name", "checked", *QUICK, *words, "box", *program, check=True)


def state(engine: Engine) -> Any:
    return json.loads(engine.docker("inspect", "-f", "{{json .State}}", "checked", check=True).stdout)


def until(engine: Engine, test: Callable[[Any], bool], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not test(found := state(engine)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def status_is(status: str) -> Callable[[Any], bool]:
    return lambda found: bool(found["Health"]["Status"] == status)


def test_from_start_to_end(engine: Engine) -> None:
    begin = time.time()
    run(engine, "--health-cmd", "echo out; echo err >&2; ls /there", "--health-start-period", "10s",
        "--health-start-interval", "100ms")  # fmt: skip
    assert state(engine)["Health"]["Status"] == "starting"
    assert "(health: starting)" in engine.docker("ps", "--format", "{{.Status}}").stdout
    found = until(engine, lambda found: len(found["Health"]["Log"]) >= 3)["Health"]
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    first = found["Log"][0]
    assert first["ExitCode"] == 1
    assert sorted(first["Output"].splitlines()) == ["err", "ls: /there: No such file or directory", "out"]
    assert first["Start"] < first["End"]
    engine.docker("exec", "checked", "touch", "/there", check=True)
    until(engine, status_is("healthy"))
    assert engine.docker("ps", "--format", "{{.Status}}").stdout.endswith("(healthy)\n")
    assert engine.docker("ps", "-q", "--filter", "health=healthy").stdout
    assert not engine.docker("ps", "-q", "--filter", "health=unhealthy").stdout
    engine.docker("exec", "checked", "rm", "/there", check=True)
    until(engine, status_is("unhealthy"))
    assert "(unhealthy)" in engine.sampan("ps").stdout
    assert len(until(engine, lambda found: found["Health"]["FailingStreak"] >= 6)["Health"]["Log"]) == 5
    engine.docker("stop", "-t", "0", "checked", check=True)
    assert state(engine)["Health"]["Status"] == "unhealthy"
    events = engine.docker(
        "events", "--since", f"{begin:.6f}", "--until", f"{time.time():.6f}", "--filter", "event=health_status",
        "--format", "{{.Action}}",
    ).stdout.splitlines()  # fmt: skip
    assert events == ["health_status: healthy", "health_status: unhealthy"]
    engine.docker("start", "checked", check=True)
    assert (state(engine)["Health"]["Status"], state(engine)["Health"]["FailingStreak"]) == ("starting", 0)
    engine.docker("rm", "-f", "checked", check=True)
    assert engine.left_over() == []


def test_one_that_takes_too_long_or_says_too_much(engine: Engine) -> None:
    run(engine, "--health-cmd", "echo begun; exec sleep 60", "--health-timeout", "200ms")
    found = until(engine, status_is("unhealthy"))["Health"]["Log"][-1]
    assert found["ExitCode"] == -1
    assert found["Output"] == "Health check exceeded timeout (0.2s): begun\n"
    processes = engine.docker("top", "checked").stdout.splitlines()
    assert sum(each.endswith("sleep 60") for each in processes) <= 1  # The next one may be there, the last is not.
    engine.docker("rm", "-f", "checked", check=True)
    run(engine, "--health-cmd", "cat /bin/busybox | wc -c; dd if=/dev/zero bs=1024 count=1024")
    found = until(engine, status_is("healthy"))["Health"]["Log"][-1]
    assert len(found["Output"]) <= 4096 + 3
    assert found["Output"].endswith("...")


def test_a_program_that_is_not_there(engine: Engine) -> None:
    engine.client.call(
        "POST", "/containers/create?name=checked",
        {"Image": "box", "Cmd": ["sleep", "600"], "Healthcheck": {"Test": ["CMD", "/none"], "Interval": 10**8,
         "Retries": 1}, "HostConfig": {"NetworkMode": "none"}},
    )  # fmt: skip
    assert "Health" not in state(engine)
    engine.docker("start", "checked", check=True)
    found = until(engine, status_is("unhealthy"))["Health"]["Log"][0]
    assert found["ExitCode"] == -1
    assert "/none" in found["Output"]


def test_it_goes_on_without_an_engine(engine: Engine) -> None:
    run(engine, "--health-cmd", "ls /there")
    until(engine, status_is("unhealthy"))
    engine.stop(signal.SIGKILL)
    pid = next(
        int(each) for each in os.listdir("/proc") if each.isdigit() and _is_the_containers(pathlib.Path("/proc", each))
    )  # fmt: skip
    pathlib.Path(f"/proc/{pid}/root/there").touch()
    time.sleep(1)
    engine.start()
    found = state(engine)["Health"]
    assert (found["Status"], [each["ExitCode"] for each in found["Log"]]) == ("healthy", [0] * 5)


def _is_the_containers(process: pathlib.Path) -> bool:
    try:
        return (process / "cmdline").read_bytes() == b"sleep\x00600\x00"
    except OSError:
        return False


def test_not_while_it_is_paused(engine: Engine) -> None:
    run(engine, "--health-cmd", "true")
    until(engine, status_is("healthy"))
    engine.docker("pause", "checked", check=True)
    last = state(engine)["Health"]["Log"][-1]
    time.sleep(0.5)
    assert state(engine)["Health"]["Log"][-1] == last
    engine.docker("unpause", "checked", check=True)
    until(engine, lambda found: bool(found["Health"]["Log"][-1] != last))


@pytest.mark.parametrize(
    ("action", "policy", "status", "restarts"),
    [("kill", "no", "exited", 0), ("kill", "always", "running", 1), ("restart", "no", "running", 1),
     ("stop", "always", "exited", 0)],
)  # fmt: skip
def test_what_an_unhealthy_one_gets(engine: Engine, action: str, policy: str, status: str, restarts: int) -> None:
    engine.sampan(
        "run", "-d", "--name", "checked", *QUICK, "--health-cmd", "ls /there", "--health-action", action, "--restart",
        policy, "--stop-signal", "KILL", "box", "sh", "-c", "[ -e /again ] && touch /there; touch /again; sleep 600",
        check=True,
    )  # fmt: skip
    found = until(engine, lambda found: bool(found["Status"] == status and (not restarts or _count(engine))))
    assert found["ExitCode"] == (0 if status == "running" else 137)
    assert _count(engine) == restarts
    if status == "running":
        until(engine, status_is("healthy"))


def _count(engine: Engine) -> int:
    return int(engine.docker("inspect", "-f", "{{.RestartCount}}", "checked", check=True).stdout)


def test_what_is_no_health_check(engine: Engine) -> None:
    with pytest.raises(InvalidArgument, match="Interval in Healthcheck cannot be less than 1ms"):
        engine.client.call("POST", "/containers/create", {"Image": "box", "Cmd": ["x"], "Healthcheck": {"Interval": 5}})
    for words, message in (
        (("--no-healthcheck", "--health-cmd", "x"), "--no-healthcheck conflicts with --health-* options"),
        (("--health-interval", "soon"), "invalid duration: soon"),
        (("--health-action", "reboot"), "invalid health action 'reboot': must be one of none, kill, restart, stop"),
    ):
        done = engine.sampan("create", *words, "box", "true")
        assert done.returncode != 0
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    engine.docker("create", "--name", "checked", "--no-healthcheck", "box", "true", check=True)
    assert engine.docker("inspect", "-f", "{{json .Config.Healthcheck}}", "checked").stdout == '{"Test":["NONE"]}\n'
    assert engine.docker("ps", "-aq", "--filter", "health=none").stdout
