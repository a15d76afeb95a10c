"""containerd with sampan-runtime in place of runc. What is right is what it does with runc."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.swap.lab import LOOK, Ended, Lab, Runtime, assert_same, limit, looked

pytestmark = pytest.mark.requires("root", "overlay", "program:containerd", "program:ctr", "program:runc")

CONFIGURATION = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{directory}/sock"
"""
IMAGE = "localhost/box:latest"
# When a container has ended, ctr stops copying what it said, be it at the end of that or not.
LAST = "sleep 0.3"


class Containerd:
    """A containerd of its own, and `ctr`; `runtime` is set by each test. Its namespace is the lab's cgroup."""

    runtime: Runtime

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "containerd"
        self.directory.mkdir()
        self.runtime = lab.runtimes["runc"]
        self.states = self.directory / "states"
        lab.states_in(self.states / lab.cgroup)
        (self.directory / "config.toml").write_text(CONFIGURATION.format(directory=self.directory))
        self.process = lab.daemon("containerd", "containerd", "--config", f"{self.directory}/config.toml")
        lab.until(lambda: self("version").status == 0)
        self.ok("image", "import", str(lab.archive))

    def words(self, *words: str) -> list[str]:
        """`run` is with the runtime, everything else is as it is."""
        if words[0] == "run":
            chosen = ["--runc-binary", self.runtime.path, "--runc-root", str(self.states)]
            words = ("run", *chosen, *words[1:])
        return ["ctr", "--address", f"{self.directory}/sock", "--namespace", self.lab.cgroup, *words]

    def __call__(self, *words: str, stdin: bytes = b"") -> Ended:
        return self.lab.run(*self.words(*words), stdin=stdin)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """The output of a command that must succeed."""
        ended = self(*words, stdin=stdin)
        if ended.status:
            pytest.fail(f"ctr {' '.join(words)}: {ended}")
        return ended.out

    def start(self, name: str, *words: str, script: str = "exec sleep 600") -> None:
        self.ok("run", "--detach", *words, IMAGE, name, "sh", "-c", script)

    def exec(self, name: str, *words: str, stdin: bytes = b"") -> Ended:
        return self("task", "exec", "--exec-id", f"e{os.urandom(4).hex()}", name, *words, stdin=stdin)

    def status(self, name: str) -> str:
        """RUNNING, PAUSED, STOPPED, or nothing."""
        found = re.search(rf"^{name} +\d+ +(\w+)", self.ok("task", "ls"), re.MULTILINE)
        return found[1] if found else ""


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Containerd]:
    running = Containerd(lab)
    yield running
    lab.end(running.process)


@pytest.fixture
def containerd(daemon: Containerd, runtime: Runtime) -> Iterator[Containerd]:
    daemon.runtime = runtime
    yield daemon
    for name in daemon.ok("container", "ls", "-q").split():
        daemon("task", "rm", "--force", name)
        daemon("container", "rm", name)
    daemon.lab.assert_nothing_left()


def test_output_status_and_input(containerd: Containerd) -> None:
    ended = containerd("run", "--rm", IMAGE, "one", "sh", "-c", f"echo out; echo err >&2; {LAST}; exit 3")
    assert (ended.status, ended.out, ended.err.splitlines()[0]) == (3, "out\n", "err")
    text = b"line\n" * 20_000
    # (ctr does not close a container's input, only that of an exec.)
    script = f"head -n 20000; {LAST}"
    assert containerd.ok("run", "--rm", IMAGE, "two", "sh", "-c", script, stdin=text).encode() == text


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/data/file", 'exec: "/data/file": permission denied'),
    ],
)
def test_a_program_that_cannot_run(containerd: Containerd, program: str, message: str) -> None:
    """What containerd shows is the last error in the runtime's log."""
    ended = containerd("run", "--rm", IMAGE, "one", program)
    assert ended.status == 1
    assert "OCI runtime create failed: " in ended.err
    assert f"unable to start container process: {message}: unknown" in ended.err
    assert containerd.ok("container", "ls", "-q") == ""


def test_the_life_of_a_task(containerd: Containerd) -> None:
    containerd.start("life", script="trap 'exit 7' TERM; while :; do sleep 0.05; done")
    assert containerd.exec("life", "sh", "-c", "echo in; echo err >&2; exit 4")[:2] == (4, "in\n")
    assert containerd.exec("life", "cat", stdin=b"through\n").out == "through\n"
    missing = containerd.exec("life", "nope")
    assert "OCI runtime exec failed: " in missing.err
    assert 'unable to start container process: exec: "nope": executable file not found in $PATH: unknown' in missing.err
    containerd.ok("task", "pause", "life")
    assert containerd.status("life") == "PAUSED"
    assert "paused" in containerd.exec("life", "true").err
    containerd.ok("task", "resume", "life")
    assert containerd.status("life") == "RUNNING"
    assert len(containerd.ok("task", "ps", "life").splitlines()) in (2, 3)
    assert "task must be stopped" in containerd("task", "rm", "life").err
    containerd.ok("task", "kill", "--signal", "TERM", "life")
    containerd.lab.until(lambda: containerd.status("life") == "STOPPED")
    assert "exit with non-zero exit code 7" in containerd("task", "rm", "life").err
    containerd.ok("container", "rm", "life")


def test_all_processes_are_killed(containerd: Containerd) -> None:
    containerd.start("life", script="sleep 601 & sleep 602 & exec sleep 603")
    containerd.lab.until(lambda: len(containerd.ok("task", "ps", "life").splitlines()) == 4)
    containerd.ok("task", "kill", "--all", "--signal", "KILL", "life")
    containerd.lab.until(lambda: containerd.status("life") == "STOPPED")


def test_terminals(containerd: Containerd) -> None:
    typed = b"tty; until stty size | grep '30 100'; do sleep 0.05; done; echo $((6*7)); sleep 0.3; exit 5\n"
    ended = containerd.lab.terminal(*containerd.words("run", "--rm", "-t", IMAGE, "one", "sh"), typed=typed)
    containerd.start("life")
    inside = containerd.lab.terminal(
        *containerd.words("task", "exec", "-t", "--exec-id", "e", "life", "sh"), typed=typed
    )
    for each in (ended, inside):
        assert each.status == 5
        assert re.search(r"/dev/pts/\d.*30 100.*42", each.out, re.DOTALL)


def test_limits_and_metrics(containerd: Containerd) -> None:
    containerd.start("life", "--memory-limit", str(64 << 20), "--cpus", "0.5", "--cpu-shares", "512")
    group = f"{containerd.lab.cgroup}/life"
    assert limit(group, "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit(group, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    if os.path.isdir("/sys/fs/cgroup/cpu"):
        assert limit(group, "cpu/cpu.shares", "cpu.weight") == "512"
    metrics = containerd.ok("task", "metrics", "life")
    assert re.search(r"^pids.current +1 *$", metrics, re.MULTILINE)
    assert re.search(r"^memory.(limit_in_bytes +67108864|usage)", metrics, re.MULTILINE)
    assert containerd.exec("life", "dd", "if=/dev/zero", "of=/dev/null", "bs=160M", "count=1").status == 137


def test_the_runtime_answers_for_a_running_task(containerd: Containerd) -> None:
    """Beside the shim, by hand: its state is where the shim keeps it."""
    containerd.start("life")
    command = [containerd.runtime.path, "--root", f"{containerd.states}/{containerd.lab.cgroup}"]
    state = json.loads(containerd.lab.run(*command, "state", "life").out)
    assert (state["status"], state["id"]) == ("running", "life")
    assert state["pid"] == int(containerd.lab.run(*command, "ps", "--format", "json", "life").out.strip("[]\n"))
    changed = containerd.lab.run(*command, "update", "--resources", "-", "life", stdin=b'{"pids":{"limit":33}}')
    assert changed.status == 0, changed
    assert limit(f"{containerd.lab.cgroup}/life", "pids/pids.max", "pids.max") == "33"
    event = json.loads(containerd.lab.run(*command, "events", "--stats", "life").out)
    assert event["data"]["pids"] == {"current": 1, "limit": 33}


def test_a_killed_shim_leaves_nothing(containerd: Containerd) -> None:
    """containerd then has the runtime delete what is left, by force."""
    containerd.start("life", script="sleep 601 & exec sleep 602")
    shims = [each for each in containerd.lab.processes() if "containerd-shim-runc-v2 -namespace" in each]
    assert len(shims) == 1
    os.kill(int(shims[0].split()[0]), signal.SIGKILL)
    containerd.lab.until(lambda: containerd.status("life") == "")
    containerd.ok("container", "rm", "life")


def test_checkpoint_is_refused_by_name(containerd: Containerd) -> None:
    containerd.start("life")
    refused = containerd("task", "checkpoint", "life")
    assert refused.status == 1
    if containerd.runtime.name != "runc":  # There it is CRIU that is missed.
        assert "checkpoint is not supported" in refused.err
    assert containerd.status("life") == "RUNNING"


def test_a_joined_namespace_and_hosts_network(containerd: Containerd) -> None:
    containerd.start("life")
    pid = re.search(r"^life +(\d+)", containerd.ok("task", "ls"), re.MULTILINE)
    assert pid
    joined = [f"--with-ns={kind}:/proc/{pid[1]}/ns/{name}" for kind, name in (("network", "net"), ("ipc", "ipc"))]
    seen = containerd.ok(
        "run", "--rm", *joined, IMAGE, "two", "sh", "-c", f"cd /proc/self/ns; readlink net; readlink ipc; {LAST}"
    )
    assert seen.split() == [os.readlink(f"/proc/{pid[1]}/ns/{name}") for name in ("net", "ipc")]
    own = containerd.lab.run("readlink", "/proc/self/ns/net").out
    script = f"readlink /proc/self/ns/net; {LAST}"
    assert containerd.ok("run", "--rm", "--net-host", IMAGE, "two", "sh", "-c", script) == own


CONFINEMENTS = {
    "default": (),
    "seccomp": ("--seccomp",),
    "privileged": ("--privileged", "--allow-new-privs"),
    "reduced": ("--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_TIME", "--read-only", "--cwd", "/tmp"),
    "mapped": ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"),
    "rest": ("--no-pivot", "--rootfs-propagation", "rslave", "--device", "/dev/full", "--env", "A=b"),
}  # fmt: skip


@pytest.mark.parametrize("how", CONFINEMENTS)
def test_a_container_sees_the_same_with_both(daemon: Containerd, lab: Lab, how: str) -> None:
    seen = []
    for name in lab.runtimes:
        daemon.runtime = lab.runtimes[name]
        ended = daemon("run", "--rm", *CONFINEMENTS[how], IMAGE, "look", "sh", "-c", f"{LOOK}; {LAST}")
        seen.append(looked(ended.out, "/look"))
        lab.assert_nothing_left()
    if how == "mapped":
        # Made together with the user namespace, before anybody could be root in it.
        seen = [[each for each in lines if not each.startswith("mqueue directory")] for lines in seen]
    assert_same(*seen)


def test_a_root_file_system_without_an_image(containerd: Containerd, tmp_path: pathlib.Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
    (tmp_path / "bin/busybox").chmod(0o755)
    program = ("/bin/busybox", "sh", "-c", "echo hi; busybox sleep 0.3")
    seen = containerd.ok("run", "--rm", "--env", "PATH=/bin", "--rootfs", str(tmp_path), "one", *program)
    assert seen == "hi\n"
