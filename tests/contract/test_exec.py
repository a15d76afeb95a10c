"""`exec`: one more process in a container."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from tests.contract.box import FOREVER, Box, wait_for
from tests.contract.terminal import Console, Screen, set_size


def execute(box: Box, *words: str, flags: Sequence[str] = (), **how: Any) -> str:
    """What it prints; it must succeed."""
    return box.call("exec", *flags, box.id, *words, **how).succeeded().out


def process(box: Box, *args: str, **changes: Any) -> str:
    """A file that describes a process, for --process; in Docker's manner it says all."""
    path = box.directory / "process.json"
    capabilities = {each: ["CAP_KILL"] for each in ("bounding", "effective", "permitted")}
    path.write_text(
        json.dumps(
            {
                "args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                "capabilities": capabilities, **changes,
            }
        )
    )  # fmt: skip
    return str(path)


STATUS = "grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status"


def status(shown: str) -> dict[str, int]:
    """Of what STATUS shows."""
    return {name: int(value, 16) for name, value in (line.split(":") for line in shown.splitlines() if ":" in line)}


def test_streams_and_status(running: Box) -> None:
    script = "cat; echo to stderr >&2; echo $$; exit 5"
    outcome = running.call("exec", running.id, "sh", "-c", script, input=b"in\n")
    assert outcome.status == 5
    assert outcome.err == "to stderr\n"
    first, pid = outcome.out.split()
    assert (first, pid.isdigit(), int(pid) > 1) == ("in", True, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_by_a_signal(running: Box, number: int) -> None:
    assert running.call("exec", running.id, "sh", "-c", f"kill -{number} $$").status == 128 + number


def test_signals_to_the_runtime_are_passed_on(running: Box) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    outcome = running.spawn("exec", running.id, "sh", "-c", script)
    outcome.until("ready")
    outcome.process.terminate()
    assert outcome.wait().status == 9


def test_words_after_the_id_are_the_programs(running: Box) -> None:
    assert execute(running, "echo", "-n", "--cwd", "--", "x") == "--cwd -- x"


def test_it_has_what_the_container_has(running: Box) -> None:
    shown = execute(running, "sh", "-c", f"readlink /proc/self/ns/mnt; readlink /proc/1/ns/mnt; pwd; env; {STATUS}")
    lines = shown.splitlines()
    assert lines[0] == lines[1] != running.runtime.namespace("mnt")
    assert lines[2] == "/"
    assert {"PATH=/bin", "HOME=/"} <= set(lines)
    got = status("\n".join(lines[-3:]))
    no_more = 0 if running.runtime.differs("exec-new-privileges") else 1
    assert got == {"CapEff": 0x20000420, "CapBnd": 0x20000420, "NoNewPrivs": no_more}
    groups = pathlib.Path("/proc/self/cgroup").read_text()
    assert execute(running, "cat", "/proc/self/cgroup") != groups
    assert execute(running, "cat", "/proc/self/cgroup") == execute(running, "cat", "/proc/1/cgroup")


def test_flags(running: Box) -> None:
    assert execute(running, "pwd", flags=["--cwd", "/etc"]) == "/etc\n"
    assert execute(running, "id", flags=["--user", "5"]) == "uid=5 gid=0\n"
    assert execute(running, "id", flags=["-u", "5:6"]) == "uid=5 gid=6\n"
    flags = ["--user", "5:6", "--additional-gids", "7", "--additional-gids", "8"]
    if not running.runtime.differs("no-additional-gids"):
        assert execute(running, "id", flags=flags) == "uid=5 gid=6 groups=7,8\n"
    shown = execute(running, "/bin/env", flags=["-e", "A=b", "-e", "C=d e", "-e", "PATH=/other"])
    assert {"A=b", "C=d e", "PATH=/other"} <= set(shown.splitlines())


def test_the_environment_is_added_to(running: Box) -> None:
    shown = set(execute(running, "/bin/env", flags=["--env", "A=b"]).splitlines())
    assert "A=b" in shown
    assert ("PATH=/bin" in shown) != running.runtime.differs("env-replaced")


def test_a_capability_more(running: Box) -> None:
    got = status(execute(running, "sh", "-c", STATUS, flags=["--cap", "CAP_SYS_PTRACE"]))
    own = 0 if running.runtime.differs("cap-replaced") else 0x20000420
    assert (got["CapBnd"], got["CapEff"]) == (own | 1 << 19, own | 1 << 19)


def test_no_new_privileges(box: Box) -> None:
    box.launch(*FOREVER, process={"noNewPrivileges": False})
    assert status(execute(box, "sh", "-c", STATUS))["NoNewPrivs"] == 0
    assert status(execute(box, "sh", "-c", STATUS, flags=["--no-new-privs"]))["NoNewPrivs"] == 1


@pytest.mark.parametrize("user", ["root", "5:x", ":", "5:6:7"])
def test_users_are_numbers(running: Box, user: str) -> None:
    outcome = running.call("exec", "--user", user, running.id, "true")
    if user in ("5:6:7", ":") and outcome.status == 0 and running.runtime.differs("lax-user"):
        return
    assert outcome.status in (1, 255), outcome


@pytest.mark.parametrize("user", ["-1", "4294967295", "4294967296", "99999999999", "0x10", " 5", "5:4294967296", "٣"])
def test_users_are_in_range(running: Box, user: str) -> None:
    """CVE-2024-40635's like: runc 1.1 and crun 1.8 take a number too large modulo 2**32, which can be root's."""
    outcome = running.call("exec", "--user", user, running.id, "true")
    if not running.runtime.differs("wrapped-user"):
        assert outcome.status == 255, outcome
        assert len(outcome.err.splitlines()) == 1


# --- --process ----------------------------------------------------------------------------------------


def test_a_process_from_a_file(running: Box) -> None:
    script = f"id; pwd; echo $X; {STATUS}"
    path = process(
        running, "sh", "-c", script, cwd="/tmp", env=["PATH=/bin", "X=y"], noNewPrivileges=False,
        user={"uid": 5, "gid": 6, "additionalGids": [7, 8]},
    )  # fmt: skip
    lines = running.call("exec", "--process", path, running.id).succeeded().out.splitlines()
    assert lines[:3] == ["uid=5 gid=6 groups=7,8", "/tmp", "y"]
    assert status("\n".join(lines[3:])) == {"CapBnd": 1 << 5, "CapEff": 0, "NoNewPrivs": 0}


def test_a_processs_limits(running: Box) -> None:
    limits = [{"type": "RLIMIT_CORE", "soft": 512, "hard": 1024}]
    path = process(running, "sh", "-c", "grep 'core file' /proc/self/limits", rlimits=limits)
    assert running.call("exec", "-p", path, running.id).succeeded().out.split()[4:6] == ["512", "1024"]


def test_a_process_that_does_not_read(running: Box) -> None:
    path = process(running, "true")
    missing = str(running.directory / "none")
    status = 1 if running.runtime.name == "crun" else 255
    running.call("exec", "--process", missing, running.id).refused(
        "no such file or directory", crun="No such file", status=status
    )
    pathlib.Path(path).write_text("{")
    assert running.call("exec", "--process", path, running.id).status == status
    assert running.call("exec", "--process", process(running), running.id).status == 255
    for cwd in ("", "relative"):
        outcome = running.call("exec", "--process", process(running, "true", cwd=cwd), running.id)
        assert outcome.status == 255


# --- Detached, and terminals --------------------------------------------------------------------------


def test_detached(running: Box) -> None:
    path = running.directory / "pid"
    outcome = running.call("exec", "-d", "--pid-file", str(path), running.id, "sh", "-c", "echo out; exit 4")
    outcome.succeeded()
    assert running.reap(int(path.read_text())) == 4
    assert outcome.out == "out\n"


def test_a_pid_file_in_the_foreground(running: Box) -> None:
    path = running.directory / "foreground-pid"
    outcome = running.spawn("exec", "--pid-file", str(path), running.id, "sh", "-c", "echo ready; exec sleep 1000")
    outcome.until("ready")
    os.kill(int(wait_for(lambda: path.exists() and path.read_text())), signal.SIGKILL)
    assert outcome.wait().status == 128 + signal.SIGKILL


def test_a_pid_file_that_cannot_be(box: Box) -> None:
    box.launch()
    outcome = box.call("exec", "--pid-file", "/nope/pid", box.id, *FOREVER)
    outcome.refused("no such file or directory", crun="No such file", status=255, crun_status=1)
    if not box.runtime.differs("exec-left"):
        wait_for(lambda: len(json.loads(box.call("ps", "--format", "json", box.id).out)) == 1)


def test_a_terminal_in_the_foreground(running: Box) -> None:
    master, slave = pty.openpty()
    set_size(slave, 33, 111)
    line = ["--root", str(running.state_root), "exec", "--tty", running.id, "sh", "-c", "tty; read line; exit $line"]
    with subprocess.Popen(
        [*running.runtime.argv(str(running.bundle)), *line], stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    ) as process:  # fmt: skip
        screen = Screen(master)
        assert screen.until(b"\r\n").startswith(b"/dev/pts/")
        screen.type(b"8\n")
        assert process.wait(10) == 8
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("how", ["flag", "file"])
def test_a_terminal_for_someone_else(running: Box, how: str) -> None:
    """As containerd's shim and conmon run `docker exec -it`."""
    script = ("sh", "-c", "tty; read line; exit $line")
    pid_file = running.directory / "pid"
    flags = ["--detach", "--pid-file", str(pid_file)]
    with Console(running) as console:
        flags += ["--console-socket", console.path]
        if how == "flag":
            running.call("exec", "--tty", *flags, running.id, *script).succeeded()
        else:
            path = process(running, *script, terminal=True)
            running.call("exec", *flags, "--process", path, running.id).succeeded()
        screen = Screen(console.receive())
    assert screen.until(b"\r\n").startswith(b"/dev/pts/")
    screen.type(b"8\n")
    assert running.reap(int(pid_file.read_text())) == 8
    os.close(screen.master)


def test_a_terminal_needs_a_socket(running: Box) -> None:
    outcome = running.call("exec", "--tty", "--detach", running.id, "true")
    outcome.refused("cannot allocate tty if", crun="tcgetattr", status=255, crun_status=1)


# --- What cannot run ----------------------------------------------------------------------------------

NOT_THERE = [
    ("nope", 'exec: "nope": executable file not found in $PATH', "executable file `nope` not found in $PATH"),
    ("/nope", 'exec: "/nope": stat /nope: no such file or directory', "executable file `/nope` not found"),
    ("/etc", "permission denied", "open executable: Operation not permitted"),
    ("/etc/data", 'exec: "/etc/data": permission denied', "open executable: Permission denied"),
    ("-x", 'exec: "-x": executable file not found in $PATH', "executable file `-x` not found in $PATH"),
]


@pytest.mark.parametrize(("program", "says", "crun"), NOT_THERE, ids=[each[0] for each in NOT_THERE])
def test_a_program_that_cannot_run(running: Box, program: str, says: str, crun: str) -> None:
    running.call("exec", running.id, program).refused(says, crun=crun, status=255)
    outcome = running.call("exec", "--detach", "--pid-file", "../pid", running.id, program)
    outcome.refused(says, crun=crun, status=255)


def test_no_program_at_all(running: Box) -> None:
    says = "process args cannot be empty"
    running.call("exec", running.id).refused(says, crun="requires a minimum of 2", status=255, crun_status=1)


def test_a_working_directory_that_is_not_there(running: Box) -> None:
    says = 'chdir to cwd ("/nope") set in config.json failed: no such file or directory'
    running.call("exec", "--cwd", "/nope", running.id, "true").refused(says, crun="chdir `/nope`", status=255)


def test_in_every_state(box: Box) -> None:
    box.create()
    pid = box.pid
    assert execute(box, "echo", "created") == "created\n"
    box.start()
    box.call("pause", box.id).succeeded()
    outcome = box.call("exec", box.id, "true")
    outcome.refused("cannot exec in a paused container", crun="is paused", status=255, crun_status=1)
    box.call("resume", box.id).succeeded()
    box.end(pid)
    outcome = box.call("exec", box.id, "true")
    outcome.refused("cannot exec in a stopped container", crun="is not running", status=255, crun_status=1)


def test_in_a_paused_container_on_request(running: Box) -> None:
    """It starts when the container is resumed, not before."""
    if running.runtime.differs("no-ignore-paused"):
        running.call("exec", "--ignore-paused", running.id, "true").refused("", crun="unrecognized", crun_status=64)
        return
    running.call("pause", running.id).succeeded()
    outcome = running.spawn("exec", "--ignore-paused", running.id, "echo", "ran")
    with pytest.raises(subprocess.TimeoutExpired):
        outcome.process.wait(0.2)
    running.call("resume", running.id).succeeded()
    assert outcome.wait().succeeded().out == "ran\n"


def test_descriptors_that_are_passed_on(running: Box) -> None:
    path = running.directory / "three"
    path.write_text("three\n")
    prefix = ("sh", "-c", f'exec "$@" 3<{path} 4<{path}', "sh")
    script = ("sh", "-c", "cat <&3; ls /proc/self/fd | wc -l")
    assert execute(running, *script, flags=["--preserve-fds", "1"], prefix=prefix) == "three\n5\n"


def test_many_at_once(running: Box) -> None:
    calls = [running.spawn("exec", running.id, "sh", "-c", f"echo {number}; exit {number}") for number in range(8)]
    ended = [each.wait() for each in calls]
    assert [each.status for each in ended] == list(range(8)), ended
    assert [each.out for each in ended] == [f"{number}\n" for number in range(8)]
