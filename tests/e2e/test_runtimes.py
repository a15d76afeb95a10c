"""The docker command, unmodified, against our engine and shim, with our runtime in process and with others' commands.

One suite over all of them: what runc and crun do is what is expected of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.core.tasks import Task
from sampan.errors import Conflict
from sampan.oci.runtime import LinuxResources, Pids, Process
from sampan.shimapi import messages
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires(
    "root", "overlay", "bridge", "nftables", "program:docker", "program:busybox", "program:runc", "program:crun"
)

_CRUN = """#!/bin/sh
exec unshare --mount sh -c 'umount /sys/fs/cgroup/unified; exec crun "$@"' crun "$@"
"""
"""crun 1.8 refuses a machine that has both versions of cgroups mounted."""
_PLAIN_CRUN = """#!/bin/sh
exec crun "$@"
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One that knows runc by its name in PATH, and crun by a script's path."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    crun = directory / "crun"
    crun.write_text(_CRUN if os.path.isdir("/sys/fs/cgroup/unified") else _PLAIN_CRUN)
    crun.chmod(0o755)
    broken = directory / "broken"
    broken.write_text('#!/bin/sh\necho "no such machine $1" >&2\nexit 1\n')
    broken.chmod(0o755)
    slow = directory / "slow"
    slow.write_text('#!/bin/sh\ncase $* in *\' create \'*) runc "$@"; exec sleep 30;; esac\nexec runc "$@"\n')
    slow.chmod(0o755)
    settings = directory / "daemon.json"
    runtimes = {
        "runc": {"path": "runc"}, "crun": {"path": str(crun)},
        "command": {"path": f"{os.path.dirname(sys.executable)}/sampan-runtime"},
        "broken": {"path": str(broken), "runtimeArgs": ["--quietly"]}, "gone": {"path": "/nowhere/runtime"},
        "slow": {"path": str(slow)},
    }  # fmt: skip
    settings.write_text(json.dumps({"runtimes": runtimes}))
    running = Engine(directory, "--config-file", str(settings))
    running.start()
    try:
        running.load_box()
        yield running
        running.remove_containers()
        assert running.left_over() == []
    finally:
        running.stop()
        running.take_down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sampan", "command", "runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Ours in process, ours by its command, and others."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _nothing_left(engine: Engine) -> Iterator[None]:
    """No group, runtime's state, shim or mount outlives its container, and the host's /dev/null is root's as before."""
    began = time.time()
    yield
    engine.remove_containers()
    assert engine.left_over() == []
    made = engine.docker(
        "events", "--since", f"{began:.6f}", "--until", f"{time.time():.6f}", "--filter", "event=create", "--format",
        "{{.ID}}", check=True,
    ).stdout.split()  # fmt: skip
    assert [_groups(each) for each in made] == [[]] * len(made)
    assert os.stat("/dev/null").st_uid == 0


def _groups(container_id: str) -> list[str]:
    """A container's groups in every hierarchy, also in the one that our runtime does not use here."""
    root = "/sys/fs/cgroup"
    paths = [f"{tree}/sampan/{container_id}" for tree in (root, *(f"{root}/{name}" for name in os.listdir(root)))]
    return [path for path in paths if os.path.exists(path)]


def _until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"in vain: {what}")
        time.sleep(0.05)


def _state(engine: Engine, name: str, shown: str = "{{.State.Status}} {{.State.ExitCode}}") -> str:
    return engine.docker("inspect", "-f", shown, name, check=True).stdout.strip()


def test_output_status_and_removal(engine: Engine, runtime: str) -> None:
    script = "echo out; echo err >&2; exit 3"
    done = engine.docker("run", "--rm", "--runtime", runtime, "box", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    text = b"line\n" * 50_000
    done = engine.docker("run", "--rm", "-i", "--runtime", runtime, "box", "cat", stdin=text)
    assert done.stdout.encode() == text


def test_a_process_has_what_it_is_given_and_nothing_else(engine: Engine, runtime: str) -> None:
    script = "ls /proc/self/fd; grep -E '^(Sig(Blk|Ign)|Cap|NoNew|Seccomp:)' /proc/self/status; id; pwd; hostname"
    done = engine.docker(
        "run", "--rm", "--runtime", runtime, "-w", "/tmp", "--hostname", "inside", "--security-opt",
        "no-new-privileges", "box", "sh", "-c", script, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [
        "0", "1", "2", "3",  # ls has the directory itself open
        "SigBlk:", "0" * 16, "SigIgn:", "0" * 16, "CapInh:", "0" * 16, "CapPrm:", "00000000a80425fb",
        "CapEff:", "00000000a80425fb", "CapBnd:", "00000000a80425fb", "CapAmb:", "0" * 16, "NoNewPrivs:", "1",
        "Seccomp:", "2", "uid=0(root)", "gid=0(root)", "groups=0(root)", "/tmp", "inside",
    ]  # fmt: skip


def test_options_mean_the_same(engine: Engine, runtime: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "here").write_text("bound\n")
    script = (
        "cat /bound/here; touch /bound/x; touch /x; touch /tmp/x; grep ' /tmp ' /proc/mounts;"
        " stat -c '%A %t %T' /dev/other; echo there > /dev/other; cat /proc/sys/net/ipv4/ip_unprivileged_port_start;"
        " ulimit -n; umask; grep ' /dev/shm ' /proc/mounts; cat /data/file; cat /proc/keys | head -c 1;"
        " mount -t tmpfs t /mnt; echo $PPID; cat /etc/hostname; head -n 1 /proc/self/attr/current"
    )
    done = engine.docker(
        "run", "--rm", "--runtime", runtime, "--read-only", "--tmpfs", "/tmp:size=1m", "-v", f"{tmp_path}:/bound:ro",
        "-v", "/data", "--device", "/dev/null:/dev/other:rw", "--sysctl", "net.ipv4.ip_unprivileged_port_start=7",
        "--ulimit", "nofile=100:200", "--shm-size", "1m", "--cap-drop", "SYS_CHROOT", "--hostname", "inside",
        "--cgroupns", "private", "--oom-score-adj", "10", "box", "sh", "-c", script,
    )  # fmt: skip
    assert [line.replace(",inode64", "") for line in done.stdout.splitlines()[:9]] == [
        "bound", "tmpfs /tmp tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k 0 0", "crw-rw-rw- 1 3", "7", "100",
        "0022", "shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k 0 0", "from the image", "0",
    ]  # fmt: skip
    for refused in ("touch: /bound/x: Read-only", "touch: /x: Read-only", "mount: permission denied"):
        assert refused in done.stderr
    privileged = engine.docker(
        "run", "--rm", "--privileged", "--runtime", runtime, "box", "sh", "-c",
        "grep -E '^(CapEff|Seccomp:)' /proc/self/status; ls /dev/tty0; echo 1 > /proc/sys/net/ipv4/ip_forward",
        check=True,
    )  # fmt: skip
    with open("/proc/1/status") as file:
        everything = next(line.split()[1] for line in file if line.startswith("CapBnd"))
    assert privileged.stdout.split()[1:] == [everything, "Seccomp:", "0", "/dev/tty0"]
    engine.docker("run", "-d", "--name", "plain", "--runtime", runtime, "box", "sleep", "600", check=True)
    executed = engine.docker("exec", "--privileged", "plain", "grep", "CapEff", "/proc/self/status", check=True)
    assert executed.stdout.split()[1] == everything
    engine.docker("rm", "-f", "plain", check=True)


def test_the_user_owns_the_streams_and_not_the_null_device(engine: Engine, runtime: str) -> None:
    script = "echo told > /dev/stderr; echo said > /dev/stdout; stat -L -c %u /proc/self/fd/1"
    done = engine.docker("run", "--rm", "--runtime", runtime, "-u", "user", "box", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("said\n1000\n", "told\n")
    engine.docker("run", "-d", "--name", "own", "--runtime", runtime, "box", "sleep", "600", check=True)
    assert engine.docker("exec", "-u", "user", "own", "sh", "-c", script).stdout == "said\n1000\n"
    engine.docker("rm", "-f", "own", check=True)


def test_the_life_of_a_detached_container(engine: Engine, runtime: str) -> None:
    docker = engine.docker
    docker(
        "run", "-d", "--name", "life", "--runtime", runtime, "-e", "A=b", "--memory", "64m", "box", "sh", "-c",
        "echo up; exec sleep 600", check=True,
    )  # fmt: skip
    assert _state(engine, "life", "{{.State.Status}} {{.HostConfig.Runtime}}") == f"running {runtime}"
    _until(lambda: docker("logs", "life").stdout == "up\n", "the log")
    done = docker("exec", "life", "sh", "-c", "echo $A; exit 4")
    assert (done.returncode, done.stdout) == (4, "b\n")
    assert docker("exec", "-i", "life", "cat", stdin=b"typed").stdout == "typed"
    top = docker("top", "life").stdout.splitlines()
    assert len(top) == 2
    assert top[1].endswith("sleep 600")
    for _ in range(2):
        docker("pause", "life", check=True)
        assert _state(engine, "life", "{{.State.Status}}") == "paused"
        docker("unpause", "life", check=True)
    docker("update", "--memory", "128m", "--memory-swap", "256m", "life", check=True)
    assert engine.docker("exec", "life", "cat", _memory_limit()).stdout == f"{128 << 20}\n"
    docker("update", "--restart", "always", "life", check=True)
    docker("update", "--restart", "no", "life", check=True)
    docker("restart", "-t", "0", "life", check=True)
    docker("stop", "-t", "1", "life", check=True)
    assert _state(engine, "life") == "exited 137"
    docker("start", "life", check=True)
    docker("kill", "-s", "TERM", "life", check=True)
    docker("kill", "life", check=True)
    assert docker("wait", "life").stdout == "137\n"
    assert docker("logs", "life").stdout == "up\n" * 3
    docker("rm", "life", check=True)


def _memory_limit() -> str:
    root = "/sys/fs/cgroup"
    one_tree = os.path.exists(f"{root}/cgroup.controllers")
    return f"{root}/memory.max" if one_tree else f"{root}/memory/memory.limit_in_bytes"


def test_a_signal_is_handled_by_the_program(engine: Engine, runtime: str) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while true; do sleep 0.05; done"
    engine.docker("run", "-d", "--name", "traps", "--runtime", runtime, "box", "sh", "-c", script, check=True)
    _until(lambda: "ready" in engine.docker("logs", "traps").stdout, "the trap")
    engine.docker("stop", "traps", check=True)
    assert _state(engine, "traps") == "exited 9"
    assert engine.docker("logs", "traps").stdout == "ready\ncaught\n"
    engine.docker("rm", "traps", check=True)


def test_a_paused_container_is_killed(engine: Engine, runtime: str) -> None:
    engine.docker("run", "-d", "--name", "cold", "--runtime", runtime, "box", "sleep", "600", check=True)
    engine.docker("pause", "cold", check=True)
    engine.docker("kill", "cold", check=True)
    assert engine.docker("wait", "cold").stdout == "137\n"
    engine.docker("start", "cold", check=True)
    engine.docker("pause", "cold", check=True)
    engine.docker("stop", "-t", "1", "cold", check=True)
    assert _state(engine, "cold") == "exited 137"
    engine.docker("rm", "cold", check=True)


class Terminal:
    """The docker command on a terminal of its own."""

    def __init__(self, engine: Engine, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(
            ["docker", *words], stdin=slave, stdout=slave, stderr=slave, env=engine.environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: bytes) -> None:
        while text not in self.seen:
            self.seen += os.read(self.master, 4096)

    def end(self) -> int:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 4096):
                self.seen += data
        os.close(self.master)
        return self.process.wait(20)


@pytest.mark.parametrize("how", ["run", "exec"])
def test_an_interactive_terminal_is_resized(engine: Engine, runtime: str, how: str) -> None:
    words: tuple[str, ...] = ("run", "--rm", "-it", "--runtime", runtime, "box", "sh")
    if how == "exec":
        engine.docker("run", "-d", "--name", "tty", "--runtime", runtime, "box", "sleep", "600", check=True)
        words = ("exec", "-it", "tty", "sh")
    terminal = Terminal(engine, *words)
    os.write(terminal.master, b"tty; id -u; echo $((6*7))\n")
    terminal.read_until(b"42\r\n")
    terminal.resize(33, 99)
    while b"33 99" not in terminal.seen:
        # The docker command takes a while before it listens to the signal.
        os.kill(terminal.process.pid, signal.SIGWINCH)
        time.sleep(0.1)
        os.write(terminal.master, b"busybox stty size; echo as''ked\n")
        terminal.seen = terminal.seen.replace(b"asked", b"")
        terminal.read_until(b"asked")
    os.write(terminal.master, b"exit 5\n")
    assert terminal.end() == 5
    assert b"/dev/pts/0\r\n0\r\n" in terminal.seen
    engine.docker("rm", "-f", "tty")


@pytest.mark.parametrize(
    ("words", "status"),
    [(("nope",), 127), (("/nope",), 127), (("/data",), 126), (("/data/file",), 126)],
)
def test_a_program_that_cannot_run_says_why(engine: Engine, runtime: str, words: tuple[str, ...], status: int) -> None:
    done = engine.docker("run", "--name", "wrong", "--runtime", runtime, "box", *words)
    assert done.returncode == status, done.stderr
    assert "OCI runtime create failed: " in done.stderr
    assert _state(engine, "wrong", "{{.State.ExitCode}}") == str(status)
    assert engine.left_over() == []
    engine.docker("rm", "wrong", check=True)
    engine.docker("run", "-d", "--name", "fine", "--runtime", runtime, "box", "sleep", "600", check=True)
    done = engine.docker("exec", "fine", *words)
    assert done.returncode == status, done.stdout
    assert engine.docker("exec", "fine", "echo", "alive").stdout == "alive\n"
    engine.docker("rm", "-f", "fine", check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--memory", "64m", "--runtime", "nope"), "unknown or invalid runtime name: nope"),
        (("--runtime", "broken"), "OCI runtime create failed: no such machine --quietly"),
        (("--init", "--runtime", "runc"), "--init is not supported with --runtime runc"),
    ],
)
def test_a_run_that_the_engine_or_the_runtime_refuses(engine: Engine, words: tuple[str, ...], message: str) -> None:
    done = engine.docker("run", "--rm", *words, "box", "true")
    assert done.returncode == 125
    assert message in done.stderr


def test_a_runtime_that_is_not_there(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--runtime", "gone", "box", "true")
    assert done.returncode == 127  # The docker command's, by the words.
    assert "runtime /nowhere/runtime: no such file or directory" in done.stderr


def test_out_of_memory_is_told(engine: Engine, runtime: str) -> None:
    eat = "x=a; while true; do x=$x$x$x; done"
    began = time.time()
    engine.docker("run", "--name", "eats", "--runtime", runtime, "--memory", "16m", "box", "sh", "-c", eat)
    assert _state(engine, "eats", "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 137"
    told = engine.docker(
        "events", "--since", f"{began:.6f}", "--until", f"{time.time() + 0.2:.6f}", "--filter", "container=eats",
        "--format", "{{.Action}}",
    ).stdout.split()  # fmt: skip
    assert "oom" in told
    engine.docker("rm", "eats", check=True)


def test_a_restart_policy(engine: Engine, runtime: str) -> None:
    engine.docker(
        "run", "-d", "--name", "again", "--runtime", runtime, "--restart", "on-failure:2", "box", "sh", "-c",
        "echo run; exit 6", check=True,
    )  # fmt: skip
    _until(lambda: _state(engine, "again") == "exited 6", "the third end")
    assert _state(engine, "again", "{{.RestartCount}}") == "2"
    assert engine.docker("logs", "again").stdout == "run\n" * 3
    engine.docker("rm", "again", check=True)


def test_a_restarted_terminal_keeps_its_size(engine: Engine, runtime: str) -> None:
    engine.docker(
        "run", "-dt", "--name", "sized", "--runtime", runtime, "--restart", "always", "box", "sh", "-c",
        "sleep 0.5; busybox stty size", check=True,
    )  # fmt: skip
    engine.client.call("POST", "/containers/sized/resize", h=33, w=99)
    _until(lambda: engine.docker("logs", "sized").stdout.count("33 99") > 1, "the size after a restart")
    engine.docker("rm", "-f", "sized", check=True)


def test_what_is_left_in_a_shared_pid_namespace_ends_with_the_first_process(engine: Engine, runtime: str) -> None:
    done = engine.docker(
        "run", "--name", "shares", "--runtime", runtime, "--pid", "host", "box", "sh", "-c",
        "sleep 8765 & (sleep 0.9; echo late) & sleep 0.1", check=True,
    )  # fmt: skip
    # What still holds the streams is waited for a second, if it lives.
    assert done.stdout == ""
    assert [line for line in _command_lines() if line == ["sleep", "8765"]] == []
    engine.docker("rm", "shares", check=True)


def _command_lines() -> list[list[str]]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_text().rstrip("\0").split("\0"))
    return found


def test_the_engine_is_killed_and_adopts_what_lives(engine: Engine, runtime: str) -> None:
    docker = engine.docker
    run = ("run", "-d", "--runtime", runtime)
    count = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 6"
    docker(*run, "--name", "stays", "box", "sleep", "600", check=True)
    docker(*run, "--name", "ends", "box", "sh", "-c", "sleep 0.7; exit 9", check=True)
    docker(*run, "--name", "again", "--restart", "always", "box", "sh", "-c", "sleep 0.3", check=True)
    docker(*run, "--name", "counts", "box", "sh", "-c", count, check=True)
    docker(*run, "--rm", "--name", "self", "box", "sleep", "0.5", check=True)
    # Unbuffered: what readline() had read ahead, communicate() would not see.
    attached = subprocess.Popen(
        ["docker", "attach", "--no-stdin", "counts"], stdout=subprocess.PIPE, bufsize=0, stderr=subprocess.DEVNULL,
        env=engine.environment,
    )  # fmt: skip
    assert attached.stdout is not None
    first = int(attached.stdout.readline())
    engine.stop(signal.SIGKILL)
    time.sleep(1.5)
    engine.start()
    assert _state(engine, "ends") == "exited 9"
    assert int(_state(engine, "again", "{{.RestartCount}}")) >= 1
    assert docker("exec", "stays", "echo", "alive").stdout == "alive\n"
    docker("pause", "stays", check=True)
    docker("unpause", "stays", check=True)
    assert docker("wait", "counts").stdout == "6\n"
    assert docker("logs", "counts").stdout == "".join(f"{number}\n" for number in range(300))
    seen = [int(line) for line in attached.communicate(timeout=20)[0].split()]
    assert [first, *seen] == list(range(first, 300))
    _until(lambda: "self" not in docker("ps", "-a").stdout, "the removal of what removes itself")
    docker("rm", "-f", "counts", "stays", "ends", "again", check=True)


def test_a_killed_shim_takes_its_container_along(engine: Engine, runtime: str) -> None:
    docker = engine.docker
    run = docker("run", "-d", "--name", "victim", "--runtime", runtime, "box", "sleep", "600", check=True)
    pid = int(_state(engine, "victim", "{{.State.Pid}}"))
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        shim = int(file.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{shim}/comm") as file:
        assert file.read() == "sampan-shim\n"
    os.kill(shim, signal.SIGKILL)
    assert docker("wait", "victim", check=True).stdout == "137\n"
    _until(lambda: engine.left_over() == [], "the runtime's clean-up")
    _until(lambda: _groups(run.stdout.strip()) == [], "the end of its groups")
    assert not pathlib.Path(f"/proc/{pid}/root/bin").exists()
    docker("start", "victim", check=True)
    assert docker("exec", "victim", "echo", "again").stdout == "again\n"
    docker("rm", "-f", "victim", check=True)


def test_a_start_right_after_an_end_finds_everything_free(engine: Engine, runtime: str) -> None:
    engine.docker("run", "-d", "--name", "soon", "--runtime", runtime, "box", "sleep", "600", check=True)
    for _ in range(3):
        engine.client.call("POST", "/containers/soon/kill")
        while engine.client.call("GET", "/containers/soon/json")["State"]["Running"]:
            time.sleep(0.001)
        engine.client.call("POST", "/containers/soon/start")
        time.sleep(0.3)
        assert engine.docker("exec", "soon", "echo", "alive").stdout == "alive\n"
    engine.docker("rm", "-f", "soon", check=True)


def test_a_shim_that_is_killed_in_the_middle_of_a_start_leaves_nothing(engine: Engine) -> None:
    """The runtime has made the container by then, and the shim does not know of it."""
    starting = subprocess.Popen(
        ["docker", "run", "--name", "half", "--runtime", "slow", "box", "sleep", "600"], env=engine.environment,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    state = pathlib.Path(f"{engine.paths.exec_root}/runtimes/slow")
    _until(lambda: any(state.glob("*/state.json")), "the half-made container")
    container_id = os.listdir(state)[0]
    _until(lambda: ["sleep", "30"] in _command_lines(), "the runtime's dawdling")
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cmdline").read_bytes().startswith(b"sleep\x0030\x00"):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                os.kill(parent, signal.SIGKILL)
    _, told = starting.communicate(timeout=20)
    assert starting.returncode == 125
    assert b"the shim has gone" in told
    assert engine.left_over() == []
    assert _groups(container_id) == []
    engine.docker("rm", "half", check=True)


async def test_another_client_of_the_shim_sees_the_same(engine: Engine, runtime: str) -> None:
    """The messages between core and shim, as an engine that comes later sends them."""
    words = ("run", "-d", "--name", "seen", "--runtime", runtime, "--memory", "64m", "--pids-limit", "20", "box")
    container_id = engine.docker(*words, "sleep", "600", check=True).stdout.strip()
    pid = int(_state(engine, "seen", "{{.State.Pid}}"))
    events: list[messages.Event] = []
    task = await Task.connect(engine.paths.shim(container_id), events.append, lambda: None)
    assert (task.initial.status, task.pid) == (messages.TaskStatus.RUNNING, pid)
    assert await task.pids() == (pid,)
    stats = await task.stats()
    assert 0 < stats.memory_usage < stats.memory_limit == 64 << 20
    assert (stats.pids_current, stats.pids_limit) == (1, 20)
    await task.update(LinuxResources(pids=Pids(limit=30)))
    assert (await task.stats()).pids_limit == 30
    await task.pause()
    assert (await task.state()).status == messages.TaskStatus.PAUSED
    await task.resume()
    request = messages.Exec(exec_id="more", process=Process(cwd="/", args=("/bin/sh", "-c", "exit 5")))
    assert (await task.exec(request)).pid > 0
    assert (await task.wait_exec("more")).exit_status == 5
    await task.delete_exec("more")
    with pytest.raises(Conflict):
        await task.shutdown()
    task = await Task.connect(engine.paths.shim(container_id), events.append, lambda: None)
    await task.kill(signal.SIGKILL, all=True)
    assert (await task.wait()).exit_status == 137
    task.close()
    engine.docker("rm", "-f", "seen", check=True)


def test_info_names_them(engine: Engine) -> None:
    info = engine.client.call("GET", "/info")
    assert info["Runtimes"]["runc"] == {"path": "runc"}
    assert info["Runtimes"]["broken"]["runtimeArgs"] == ["--quietly"]
    assert info["Runtimes"]["sampan"] == info["Runtimes"]["io.containerd.runc.v2"] == {"path": "sampan-runtime"}
    assert info["DefaultRuntime"] == "sampan"
    assert "Default Runtime: sampan" in engine.docker("info").stdout
    assert "Runtimes: broken command crun gone io.containerd.runc.v2 runc sampan slow\n" in engine.sampan("info").stdout


def test_another_default(engine: Engine) -> None:
    """Ours under the name that clients know, where the settings give it to nobody else; and one by a flag."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    second = Engine(directory, "--add-runtime", "other=runc", "--default-runtime", "other")
    second.start()
    try:
        second.load_box()
        second.docker("run", "-d", "--name", "other", "box", "sleep", "600", check=True)
        assert _state(second, "other", "{{.HostConfig.Runtime}}") == "other"
        assert len(list(pathlib.Path(f"{second.paths.exec_root}/runtimes/other").iterdir())) == 1
        second.docker("run", "-d", "--name", "ours", "--runtime", "runc", "box", "sleep", "600", check=True)
        assert _state(second, "ours", "{{.HostConfig.Runtime}}") == "runc"
        assert len([each for each in os.listdir(second.paths.runtime) if not each.startswith(".")]) == 1
        second.remove_containers()
        assert second.left_over() == []
    finally:
        second.stop()
        second.take_down()
        shutil.rmtree(directory, ignore_errors=True)
