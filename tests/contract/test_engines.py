"""The very calls that engines make, as they were recorded from Debian's containerd, dockerd and podman (conmon)."""

from __future__ import annotations

import json
import os
import pathlib
import signal

import pytest

from tests.contract.box import Box, Json, wait_for
from tests.contract.terminal import Console, Screen


class Shim:
    """containerd's shim, which is dockerd's too: every call has a log, whose last error is what a failure says."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.log = box.directory / "log.json"
        self.pid_file = box.bundle / "init.pid"

    def call(self, *args: str, input: bytes | None = None) -> tuple[int, str]:  # noqa: A002 - subprocess's word
        """Status, and what the runtime writes to its output or, if it failed, to its log."""
        self.log.unlink(missing_ok=True)
        options = ("--log", str(self.log), "--log-format", "json")
        outcome = self.box.call(*args, options=options, input=input)
        if outcome.status == 0:
            return 0, outcome.out
        records = [json.loads(line) for line in self.log.read_text().splitlines()]
        errors = [record["msg"] for record in records if record["level"] == "error"]
        assert errors, f"{outcome} logs {records}"
        return outcome.status, errors[-1]

    def must(self, *args: str, input: bytes | None = None) -> str:  # noqa: A002 - subprocess's word
        status, said = self.call(*args, input=input)
        assert status == 0, said
        return said

    def create(self) -> int:
        self.must("create", "--bundle", str(self.box.bundle), "--pid-file", str(self.pid_file), self.box.id)
        return int(self.pid_file.read_text())

    def execute(self, *args: str, terminal: Console | None = None) -> int:
        """`docker exec`: the pid of the process."""
        pid_file = self.box.bundle / "exec.pid"
        path = self.box.directory / "process.json"
        path.write_text(
            json.dumps(
                {
                    "terminal": terminal is not None, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
                    "env": ["PATH=/bin"], "capabilities": {"bounding": [], "effective": [], "permitted": []},
                    "oomScoreAdj": 0,
                }
            )
        )  # fmt: skip
        socket = ("--console-socket", terminal.path) if terminal else ()
        self.must("exec", "--process", str(path), *socket, "--detach", "--pid-file", str(pid_file), self.box.id)
        return int(pid_file.read_text())


@pytest.fixture
def shim(box: Box) -> Shim:
    return Shim(box)


def test_docker_run(shim: Shim) -> None:
    box = shim.box
    box.configure("sh", "-c", "echo out; exit 3")
    pid = shim.create()
    shim.must("start", box.id)
    assert box.reap(pid) == 3
    shim.must("delete", box.id)
    shim.must("delete", "--force", box.id)
    assert box.nothing_left()


def test_docker_run_with_a_terminal(shim: Shim) -> None:
    box = shim.box
    box.configure("sh", "-c", "tty; exit 3", process={"terminal": True})
    with Console(box) as console:
        flags = ("--bundle", str(box.bundle), "--pid-file", str(shim.pid_file), "--console-socket", console.path)
        shim.must("create", *flags, box.id)
        screen = Screen(console.receive())
    shim.must("start", box.id)
    screen.until(b"/dev/pts/0\r\n")
    assert box.reap(int(shim.pid_file.read_text())) == 3
    os.close(screen.master)
    shim.must("delete", box.id)


def test_docker_exec(shim: Shim) -> None:
    box = shim.box
    shim.create()
    shim.must("start", box.id)
    assert box.reap(shim.execute("sh", "-c", "exit 4")) == 4
    with Console(box) as console:
        pid = shim.execute("sh", "-c", "tty; exit 5", terminal=console)
        screen = Screen(console.receive())
    screen.until(b"/dev/pts/0\r\n")
    assert box.reap(pid) == 5
    os.close(screen.master)


def test_docker_stop_and_kill(shim: Shim) -> None:
    box = shim.box
    box.configure("sh", "-c", "trap 'exit 6' TERM; touch /host/ready; while :; do sleep 0.01; done")
    pid = shim.create()
    shim.must("start", box.id)
    wait_for((box.directory / "ready").exists)
    shim.must("kill", box.id, "15")
    assert box.reap(pid) == 6
    # Then, whatever is left; and once more when it is known to be stopped.
    shim.must("kill", "--all", box.id, "9")
    status, said = shim.call("kill", box.id, "9")
    assert status == 1
    # containerd takes these words for "it has ended already": any other is an error of `docker stop`.
    assert any(each in said.lower() for each in ("container not running", "already finished", "no such process"))
    shim.must("delete", box.id)
    status, said = shim.call("kill", box.id, "9")
    assert status == 1
    assert any(each in said.lower() for each in ("does not exist", "no such file or directory"))


def test_docker_top_pause_and_update(shim: Shim) -> None:
    box = shim.box
    pid = shim.create()
    shim.must("start", box.id)
    assert json.loads(shim.must("ps", "--format", "json", box.id)) == [pid]
    shim.must("pause", box.id)
    assert json.loads(shim.must("state", box.id))["status"] == "paused"
    shim.must("resume", box.id)
    # What dockerd sends: everything, with zeros for what is not asked for.
    resources: Json = {
        "memory": {"limit": 0, "reservation": 0, "kernel": 0, "swap": 0},
        "cpu": {"shares": 512, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0},
        "blockIO": {"weight": 0},
    }
    if box.runtime.differs("zero-limits"):
        del resources["memory"]
    shim.must("update", "--resources", "-", box.id, input=json.dumps(resources).encode())
    if os.path.isdir("/sys/fs/cgroup/cpu"):
        group = box.configuration()["linux"]["cgroupsPath"]
        assert pathlib.Path(f"/sys/fs/cgroup/cpu{group}/cpu.shares").read_text() == "512\n"


@pytest.mark.parametrize(
    ("program", "says", "code"),
    [
        ("nope", "executable file not found in $PATH", 127),
        ("/nope", "no such file or directory", 127),
        ("/etc", "permission denied", 126),
        ("/etc/data", "permission denied", 126),
    ],
)
def test_docker_run_of_what_cannot_run(shim: Shim, program: str, says: str, code: int) -> None:
    """dockerd finds the exit code by these words, in the order in which it looks for them."""
    shim.box.configure(program)
    status, said = shim.call("create", "--bundle", str(shim.box.bundle), "--pid-file", str(shim.pid_file), shim.box.id)
    assert status == 1
    if shim.box.runtime.name == "crun":
        return
    assert says in said
    assert _code(said) == code


def _code(said: str) -> int:
    """dockerd's `setExitCodeFromError`: by what is contained in the message, first the missing program."""
    said = said.lower()
    missing = ("executable file not found", "no such file or directory", "system cannot find the file specified")
    if any(each in said for each in missing):
        return 127
    return 126 if any(each in said for each in ("permission denied", "not a directory", "is a directory")) else 125


def test_docker_networks_by_a_prestart_hook(shim: Shim) -> None:
    """libnetwork-setkey: told the sandbox by its arguments and the pid by its input, it runs within `create`."""
    box = shim.box
    target = box.directory / "seen"
    hook = {
        "path": "/bin/busybox",
        "args": ["sh", "-c", f"(cat; echo; echo $0 $1) >{target}", "sandbox", "controller"],
        "env": ["PATH=/bin"],
    }
    box.configure("true", hooks={"prestart": [hook]})
    pid = shim.create()
    state, words = target.read_text().splitlines()
    assert json.loads(state)["pid"] == pid
    assert words == "sandbox controller"


# --- conmon -------------------------------------------------------------------------------------------


def test_podman_run(box: Box) -> None:
    pid_file = box.directory / "pidfile"
    box.configure("sh", "-c", "exit 3")
    box.call("create", "--bundle", str(box.bundle), "--pid-file", str(pid_file), box.id).succeeded()
    box.call("start", box.id).succeeded()
    assert box.reap(int(pid_file.read_text())) == 3
    box.call("delete", "--force", box.id).succeeded()
    assert box.nothing_left()


def test_podman_exec(box: Box) -> None:
    box.launch()
    path, pid_file = box.directory / "process", box.directory / "exec-pid"
    document = box.configuration("sh", "-c", "exit 4")["process"]
    path.write_text(json.dumps(document))
    flags = ("--pid-file", str(pid_file), "--process", str(path), "--detach")
    box.call("exec", *flags, box.id).succeeded()
    assert box.reap(int(pid_file.read_text())) == 4
    path.write_text(json.dumps(document | {"terminal": True, "args": ["sh", "-c", "tty; exit 5"]}))
    with Console(box) as console:
        box.call("exec", *flags, "--tty", "--console-socket", console.path, box.id).succeeded()
        screen = Screen(console.receive())
    screen.until(b"/dev/pts/0\r\n")
    assert box.reap(int(pid_file.read_text())) == 5
    os.close(screen.master)


def test_podman_stop_pause_and_update(box: Box) -> None:
    pid = box.launch()
    box.call("kill", box.id, "0").succeeded()
    box.call("pause", box.id).succeeded()
    box.call("resume", box.id).succeeded()
    path = box.directory / "resources.json"
    path.write_text(json.dumps({"pids": {"limit": 40}}))
    box.call("update", f"--resources={path}", box.id).succeeded()
    box.call("kill", box.id, "9").succeeded()
    assert box.reap(pid) == -signal.SIGKILL
    box.call("kill", "--all", box.id, "9").succeeded()
    box.call("delete", "--force", box.id).succeeded()
    assert box.nothing_left()
