"""dockerd with sampan-runtime as a container's runtime. What is right is what it does with runc."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.swap.lab import LOOK, Ended, Lab, Runtime, assert_same, limit, looked

pytestmark = pytest.mark.requires(
    "root", "overlay", "bridge", "program:dockerd", "program:docker", "program:containerd", "program:runc"
)


class Dockerd:
    """A dockerd of its own with both runtimes, and the docker command; `runtime` is set by each test."""

    runtime: Runtime

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "dockerd"
        self.directory.mkdir()
        self.runtime = lab.runtimes["runc"]
        self.states = self.directory / "exec/runtime-runc/moby"
        lab.states_in(self.states)
        lab.environment["DOCKER_HOST"] = f"unix://{self.directory}/sock"
        (self.directory / "daemon.json").write_text("{}")
        self.process = lab.daemon(
            "dockerd", "dockerd", "--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/exec",
            "--host", lab.environment["DOCKER_HOST"], "--pidfile", f"{self.directory}/pid", "--bip", "172.28.0.1/16",
            "--config-file", f"{self.directory}/daemon.json", "--cgroup-parent", f"/{lab.cgroup}",
            *(f"--add-runtime=swap-{name}={runtime.path}" for name, runtime in lab.runtimes.items()),
        )  # fmt: skip
        lab.until(lambda: self("version").status == 0, 30)
        self.ok("load", "-i", str(lab.archive))
        self.ok("tag", "localhost/box:latest", "box")

    def words(self, *words: str) -> list[str]:
        chosen = [f"--runtime=swap-{self.runtime.name}"] if words[0] in ("run", "create") else []
        return ["docker", words[0], *chosen, *words[1:]]

    def __call__(self, *words: str, stdin: bytes = b"") -> Ended:
        return self.lab.run(*self.words(*words), stdin=stdin)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """The output of a command that must succeed."""
        ended = self(*words, stdin=stdin)
        if ended.status:
            pytest.fail(f"docker {' '.join(words)}: {ended}")
        return ended.out

    def start(self, name: str, *words: str, script: str = "exec sleep 600") -> None:
        """A container in the background."""
        self.ok("run", "-d", "--name", name, "--network", "none", *words, "box", "sh", "-c", script)

    def state(self, name: str) -> Any:
        return json.loads(self.ok("inspect", name))[0]["State"]

    def kept(self) -> tuple[str, ...]:
        """What a dockerd has mounted as long as it runs."""
        return (f"{self.directory}/exec/netns/default", f"{self.directory}/data")


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Dockerd]:
    running = Dockerd(lab)
    yield running
    lab.end(running.process)
    # Its own network namespace's is its to leave behind.
    lab.run("umount", f"{running.directory}/exec/netns/default")


@pytest.fixture
def docker(daemon: Dockerd, runtime: Runtime) -> Iterator[Dockerd]:
    daemon.runtime = runtime
    yield daemon
    if left := daemon.ok("ps", "-aq").split():
        daemon.ok("rm", "-f", *left)
    daemon.lab.assert_nothing_left(daemon.kept())


@pytest.mark.parametrize("network", ["none", "bridge", "host"])
def test_output_status_and_input(docker: Dockerd, network: str) -> None:
    words = ("run", "--rm", "--network", network)
    ended = docker(*words, "box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ended.status, ended.out, ended.err) == (3, "out\n", "err\n")
    text = b"line\n" * 20_000
    assert docker.ok(*words, "-i", "box", "cat", stdin=text).encode() == text


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in [$]PATH'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/data/file", 126, 'exec: "/data/file": permission denied'),
        ("/data", 126, 'exec: "/data": (is a directory: )?permission denied'),
    ],
)
def test_a_program_that_cannot_run(docker: Dockerd, program: str, status: int, message: str) -> None:
    ended = docker("run", "--rm", "--network", "none", "box", program)
    assert ended.status == status
    prefix = "Error response from daemon: failed to create shim task: OCI runtime create failed: "
    line = next(each for each in ended.err.splitlines() if prefix in each)
    assert re.search(f"unable to start container process: {message}: unknown[.]?$", line)
    docker.start("life")
    inside = docker("exec", "life", program)
    assert inside.status in (126, status)
    said = inside.out + inside.err
    assert "OCI runtime exec failed: " in said
    assert re.search(f"unable to start container process: {message}: unknown", said)


def test_exec(docker: Dockerd) -> None:
    docker.start("life", "-e", "A=b")
    assert docker("exec", "life", "sh", "-c", "echo $A; echo err >&2; exit 4") == (4, "b\n", "err\n")
    script = "id -u; id -G; pwd; echo $C; cat /proc/self/cgroup"
    seen = docker.ok("exec", "-u", "user", "-w", "/tmp", "-e", "C=d", "life", "sh", "-c", script).splitlines()
    assert seen[:4] == ["1000", "1000 2000", "/tmp", "d"]
    assert seen[4:] == docker.ok("exec", "life", "cat", "/proc/1/cgroup").splitlines()
    assert docker.ok("exec", "-i", "life", "cat", stdin=b"in\n") == "in\n"
    assert "no such file or directory" in "".join(docker("exec", "-w", "/nowhere", "life", "true")[1:])
    docker.ok("exec", "-d", "life", "touch", "/tmp/detached")
    docker.lab.until(lambda: docker("exec", "life", "ls", "/tmp/detached").status == 0)
    assert "sleep 600" in docker.ok("top", "life")
    # An exec's background child outlives it, and ends with the container.
    docker.ok("exec", "-d", "life", "sh", "-c", "sleep 601 & exec sleep 0.1")
    docker.lab.until(lambda: "sleep 0.1" not in docker.ok("top", "life"))
    assert "sleep 601" in docker.ok("top", "life")


def test_terminals(docker: Dockerd) -> None:
    typed = b"tty; until stty size | grep '30 100'; do sleep 0.05; done; echo $((6*7)); exit 5\n"
    ended = docker.lab.terminal(*docker.words("run", "--rm", "-it", "--network", "none", "box", "sh"), typed=typed)
    docker.start("life")
    inside = docker.lab.terminal(*docker.words("exec", "-it", "life", "sh"), typed=typed)
    for each in (ended, inside):
        assert each.status == 5
        assert re.search(r"/dev/pts/\d.*30 100.*42", each.out, re.DOTALL)
    assert "/dev/pts/0" in docker.ok("run", "--rm", "-t", "--network", "none", "box", "tty")


def test_pause_stop_kill_and_restart(docker: Dockerd) -> None:
    docker.start("life", script="trap 'exit 7' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done")
    docker.lab.until(lambda: docker.ok("logs", "life") == "up\n")
    docker.ok("pause", "life")
    assert docker.state("life")["Status"] == "paused"
    assert "is paused" in docker("exec", "life", "true").err
    docker.ok("unpause", "life")
    docker.ok("kill", "-s", "USR1", "life")
    docker.lab.until(lambda: docker.ok("logs", "life") == "up\nusr1\n")
    before = docker.state("life")["Pid"]
    docker.ok("restart", "-t", "5", "life")
    assert before != docker.state("life")["Pid"]
    docker.ok("stop", "-t", "5", "life")
    assert (docker.state("life")["Status"], docker.state("life")["ExitCode"]) == ("exited", 7)
    docker.ok("start", "life")
    docker.ok("kill", "life")
    assert docker.ok("wait", "life") == "137\n"
    docker.ok("start", "life")
    docker.ok("pause", "life")
    docker.ok("rm", "-f", "life")


def test_the_restart_policy_and_init(docker: Dockerd) -> None:
    docker.ok("run", "-d", "--name", "again", "--restart", "on-failure:2", "--network", "none", "box", "false")
    docker.lab.until(lambda: docker.state("again")["Status"] == "exited")
    assert docker.ok("inspect", "-f", "{{.RestartCount}}", "again") == "2\n"
    seen = docker.ok("run", "--rm", "--init", "--network", "none", "box", "sh", "-c", "cat /proc/1/comm; echo $$")
    assert re.fullmatch(r"(docker-init|tini)\n\d\n", seen)


def test_limits(docker: Dockerd) -> None:
    docker.start(
        "life", "--memory", "64m", "--memory-swap", "96m", "--pids-limit", "50", "--cpus", "0.5", "--cpuset-cpus", "0",
        "--cpu-shares", "512",
    )  # fmt: skip
    group = f"{docker.lab.cgroup}/{docker.ok('inspect', '-f', '{{.Id}}', 'life').strip()}"
    assert limit(group, "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit(group, "pids/pids.max", "pids.max") == "50"
    assert limit(group, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert limit(group, "cpuset/cpuset.cpus", "cpuset.cpus") == "0"
    docker.ok("update", "--memory", "80m", "--memory-swap", "80m", "--cpus", "0.25", "--pids-limit", "60", "life")
    assert limit(group, "memory/memory.limit_in_bytes", "memory.max") == str(80 << 20)
    assert limit(group, "pids/pids.max", "pids.max") == "60"
    assert limit(group, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    assert limit(group, "cpuset/cpuset.cpus", "cpuset.cpus") == "0"
    stats = docker.ok("stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "life")
    assert re.fullmatch(r"1 \S+ / 80MiB\n", stats)
    assert docker("exec", "life", "dd", "if=/dev/zero", "of=/dev/null", "bs=160M", "count=1").status == 137
    greedy = ("box", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    assert docker("run", "--network", "none", "--memory", "16m", "--memory-swap", "16m", *greedy).status == 137


CONFINEMENTS = {
    "default": ("--network", "none"),
    "bridge": (),
    "user": ("-u", "user", "--group-add", "2000", "--security-opt", "no-new-privileges"),
    "reduced": ("--cap-drop", "ALL", "--cap-add", "CHOWN", "--read-only", "--tmpfs", "/tmp:size=1m"),
    "host": ("--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host", "--network", "host"),
    "private": ("--cgroupns", "private"),
    "unconfined": ("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"),
    "special": (
        "--ulimit", "nofile=77:88", "--oom-score-adj", "500", "--shm-size", "1m", "--hostname", "h",
        "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shm_rmid_forced=1", "--add-host", "x:10.0.0.1",
        "--domainname", "d", "--device", "/dev/full:/dev/mine:r", "--device-cgroup-rule", "c 42:* rwm",
        "-v", "/proc:/host/proc:ro", "-v", "/data", "-w", "/made/by/it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", CONFINEMENTS)
def test_a_container_sees_the_same_with_both(daemon: Dockerd, lab: Lab, how: str) -> None:
    seen = []
    for name in lab.runtimes:
        daemon.runtime = lab.runtimes[name]
        daemon("run", "--name", "look", *CONFINEMENTS[how], "box", "sh", "-c", LOOK)
        out, container = daemon.ok("logs", "look"), daemon.ok("inspect", "-f", "{{.Id}}", "look").strip()
        daemon.ok("rm", "-v", "look")
        seen.append(looked(out, container))
        lab.assert_nothing_left(daemon.kept())
    assert_same(*seen)


def test_a_privileged_container(docker: Dockerd) -> None:
    """With every capability that there is here. runc refuses where one is missing."""
    script = "mount -t tmpfs t /tmp; echo $?; ls /dev"
    ended = docker("run", "--rm", "--privileged", "--network", "none", "box", "sh", "-c", script)
    here = re.search(r"^CapBnd:\s*(\w+)", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
    last = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text())
    if docker.runtime.name == "runc" and here and int(here[1], 16) != (2 << last) - 1:
        assert "unable to apply caps" in ended.err
    else:
        assert (ended.status, ended.out[:2]) == (0, "0\n"), ended
        assert set(ended.out.split()) > {"full", "loop-control"} & set(os.listdir("/dev"))


def test_the_bridge_network(docker: Dockerd) -> None:
    """dockerd's network comes by a prestart hook, within `create`."""
    serve = ("sh", "-c", "while :; do echo hello | nc -l -p 80; done")
    docker.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:8089:80", "box", *serve)
    address = docker.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").strip()
    assert docker.ok("run", "--rm", "box", "nc", "-w", "5", address, "80") == "hello\n"
    assert docker.lab.run("busybox", "nc", "-w", "5", "127.0.0.1", "8089").out == "hello\n"
    docker.ok("network", "create", "own")
    try:
        docker.ok("network", "connect", "own", "web")
        assert docker.ok("run", "--rm", "--network", "own", "box", "nc", "-w", "5", "web", "80") == "hello\n"
        links = docker.ok("exec", "web", "ip", "-o", "link").splitlines()
        assert len([each for each in links if "eth" in each]) == 2
    finally:
        docker("rm", "-f", "web")
        docker.ok("network", "rm", "own")


def test_namespaces_are_joined(docker: Dockerd) -> None:
    docker.start("life", "--ipc", "shareable")
    links = ["sh", "-c", "cd /proc/self/ns; for each in net pid ipc; do readlink $each; done"]
    own = docker.ok("exec", "life", *links).split()
    joined = [f"--{kind}=container:life" for kind in ("network", "pid", "ipc")]
    assert docker.ok("run", "--rm", *joined, "box", *links).split() == own
    docker.ok("run", "--rm", *joined, "box", "sh", "-c", "sleep 601 & echo")
    docker.lab.until(lambda: "sleep 601" not in docker.ok("top", "life"))


def test_a_health_check(docker: Dockerd) -> None:
    checked = ("--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1")
    docker.start("life", *checked)
    docker.lab.until(lambda: docker.state("life")["Health"]["Status"] == "unhealthy")
    docker.ok("exec", "life", "touch", "/tmp/well")
    docker.lab.until(lambda: docker.state("life")["Health"]["Status"] == "healthy")


def test_two_runtimes_side_by_side(docker: Dockerd) -> None:
    """They keep their states in one directory, as dockerd has it; neither minds the other's."""
    other = next(each for each in docker.lab.runtimes.values() if each != docker.runtime)
    docker.start("life")
    docker.ok(
        "run", "-d", "--name", "other", f"--runtime=swap-{other.name}", "--network", "none", "box", "sleep", "600"
    )
    own = docker.ok("inspect", "-f", "{{.Id}}", "life").strip()
    listed = docker.lab.run(docker.runtime.path, "--root", str(docker.states), "list", "-q")
    assert own in listed.out.split(), listed


def test_eight_at_once(docker: Dockerd) -> None:
    """Started and removed together, and none in another's way."""
    names = [f"n{number}" for number in range(8)]
    script = "for each in " + " ".join(names) + "; do " + " ".join(docker.words("run", "--rm", "--network", "none"))
    script += " box sh -c 'echo $0' $each & done; wait"
    seen = docker.lab.run("sh", "-c", script).out.split()
    assert sorted(seen) == names
