"""podman with sampan-runtime as its OCI runtime. What is right is what it does with runc."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.swap.lab import LOOK, Ended, Lab, Runtime, assert_same, limit, looked

pytestmark = pytest.mark.requires("root", "overlay", "program:podman", "program:conmon", "program:runc")

SYSTEMD = os.path.isdir("/run/systemd/system")

CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]  # podman's own are above what a hard limit may allow
[network]
network_backend = "cni"
network_config_dir = "{directory}/cni"
cni_plugin_dirs = ["/usr/lib/cni"]
[engine]
cgroup_manager = "{manager}"
events_logger = "file"
lock_type = "file"
image_default_transport = "docker://"
infra_image = "localhost/box"
hooks_dir = ["{directory}/hooks"]
runtime_supports_json = ["runc", "sampan-runtime"]
[engine.runtimes]
runc = ["{runc}"]
sampan-runtime = ["{sampan}"]
"""

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "podman",
    "plugins": [
        {
            "type": "bridge", "bridge": "swap0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
            "ipam": {
                "type": "host-local", "dataDir": "{directory}/ipam", "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "172.27.0.0/24", "gateway": "172.27.0.1"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "tuning"},
    ],
}  # fmt: skip


class Podman:
    """podman with a storage of its own; `runtime` is set by each test."""

    runtime: Runtime

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory / "podman"
        for name in ("cni", "hooks"):
            (self.directory / name).mkdir(parents=True)
        configuration = CONFIGURATION.format(
            directory=self.directory, manager="systemd" if SYSTEMD else "cgroupfs", runc=lab.runtimes["runc"].path,
            sampan=lab.runtimes["sampan-runtime"].path,
        )  # fmt: skip
        (self.directory / "containers.conf").write_text(configuration)
        network = json.dumps(NETWORK).replace("{directory}", str(self.directory))
        (self.directory / "cni/podman.conflist").write_text(network)
        lab.environment["CONTAINERS_CONF"] = str(self.directory / "containers.conf")
        self.runtime = lab.runtimes["runc"]
        self.pods: list[str] = []
        assert self("load", "-i", str(lab.archive)).status == 0

    def words(self, *words: str, runtime: str = "") -> list[str]:
        """The command line. Containers are in the lab's cgroup, unless it is systemd that makes the groups."""
        verbs = 2 if words[0] == "pod" else 1
        grouped = words[verbs - 1] in ("run", "create") and not SYSTEMD
        return [
            "podman", "--root", f"{self.directory}/root", "--runroot", f"{self.directory}/run", "--tmpdir",
            f"{self.directory}/tmp", "--storage-driver", "overlay", "--runtime", runtime or self.runtime.name,
            *words[:verbs], *([f"--cgroup-parent=/{self.lab.cgroup}"] if grouped else []), *words[verbs:],
        ]  # fmt: skip

    def __call__(self, *words: str, stdin: bytes = b"", runtime: str = "") -> Ended:
        return self.lab.run(*self.words(*words, runtime=runtime), stdin=stdin)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """The output of a command that must succeed."""
        ended = self(*words, stdin=stdin)
        if ended.status:
            pytest.fail(f"podman {' '.join(words)}: {ended}")
        return ended.out

    def kept(self) -> tuple[str, ...]:
        """What podman may leave: the place of its layers mounted, and a pod's group where it has no controller."""
        trees = [f"/sys/fs/cgroup/{each}/{self.lab.cgroup}" for each in ("systemd", "unified")]
        groups = [f"{tree}/{pod}" for tree in trees for pod in self.pods]
        return (f"{self.directory}/root/overlay", *groups)

    def start(self, name: str, *words: str, script: str = "exec sleep 600") -> None:
        """A container in the background."""
        self.ok("run", "-d", "--name", name, "--network", "none", *words, "box", "sh", "-c", script)

    def state(self, name: str) -> Any:
        return json.loads(self.ok("inspect", name))[0]["State"]


@pytest.fixture(scope="module")
def storage(lab: Lab) -> Iterator[Podman]:
    made = Podman(lab)
    yield made
    lab.run("umount", made.kept()[0])


@pytest.fixture
def podman(storage: Podman, runtime: Runtime) -> Iterator[Podman]:
    storage.runtime = runtime
    yield storage
    for what in ("pod", "container"):
        storage(what, "rm", "--force", "--all", "--time", "0")
    storage.lab.assert_nothing_left(storage.kept())


def test_output_status_and_input(podman: Podman) -> None:
    ended = podman("run", "--rm", "--network", "none", "box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ended.status, ended.out, ended.err) == (3, "out\n", "err\n")
    text = b"line\n" * 20_000
    assert podman.ok("run", "--rm", "-i", "--network", "none", "box", "cat", stdin=text).encode() == text


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in [$]PATH'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/data/file", 126, 'exec: "/data/file": permission denied'),
        ("/data", 126, 'exec: "/data": (is a directory: )?permission denied'),
    ],
)
@pytest.mark.parametrize("log", ["json", "text"])
def test_a_program_that_cannot_run(podman: Podman, log: str, program: str, status: int, message: str) -> None:
    """podman has a runtime's errors from its log, if it knows the runtime's name, and else from its standard error."""
    named = podman.runtime.name if log == "json" else podman.runtime.path
    ended = podman("run", "--rm", "--network", "none", "box", program, runtime=named)
    assert ended.status == status
    assert re.search(f"unable to start container process: {message}", ended.err.replace("\\", "")), ended


def test_exec(podman: Podman) -> None:
    podman.start("life", "-e", "A=b")
    assert podman("exec", "life", "sh", "-c", "echo $A; echo err >&2; exit 4") == (4, "b\n", "err\n")
    script = "id -u; id -G; pwd; echo $C; cat /proc/self/cgroup"
    seen = podman.ok("exec", "-u", "user", "-w", "/tmp", "-e", "C=d", "life", "sh", "-c", script).splitlines()
    assert seen[:4] == ["1000", "1000 2000", "/tmp", "d"]
    assert seen[4:] == podman.ok("exec", "life", "cat", "/proc/1/cgroup").splitlines()
    assert podman.ok("exec", "-i", "life", "cat", stdin=b"in\n") == "in\n"
    missing = podman("exec", "life", "nope")
    assert missing.status == 127
    assert 'exec: "nope": executable file not found in $PATH' in missing.err
    assert podman("exec", "life", "/data/file").status == 126
    assert "no such file or directory" in podman("exec", "-w", "/nowhere", "life", "true").err
    podman.ok("exec", "-d", "life", "touch", "/tmp/detached")
    podman.lab.until(lambda: podman("exec", "life", "ls", "/tmp/detached").status == 0)
    assert "sleep 600" in podman.ok("top", "life")


@pytest.mark.parametrize("verb", ["exec", "run"])
def test_descriptors_are_handed_over(podman: Podman, verb: str) -> None:
    """--preserve-fds: those from 3 on, and no others."""
    file = podman.directory / "handed"
    file.write_text("handed over\n")
    podman.start("life")
    words = ["exec"] if verb == "exec" else ["run", "--rm", "--network", "none"]
    words += ["--preserve-fds", "2", "life" if verb == "exec" else "box"]
    handed = ["sh", "-c", 'exec 3<"$0" 4</dev/null 5</dev/null 6</dev/null; exec "$@"', str(file)]
    # The shell itself has 5 open while it looks.
    ended = podman.lab.run(*handed, *podman.words(*words, "sh", "-c", "cat <&3; cd /proc/self/fd; echo *"))
    assert ended.out == "handed over\n0 1 2 3 4 5\n"


def test_terminals(podman: Podman) -> None:
    script = b"tty; until stty size | grep '30 100'; do sleep 0.05; done; echo $((6*7)); exit 5\n"
    ended = podman.lab.terminal(*podman.words("run", "--rm", "-it", "--network", "none", "box", "sh"), typed=script)
    assert ended.status == 5
    podman.start("life")
    inside = podman.lab.terminal(*podman.words("exec", "-it", "life", "sh"), typed=script)
    assert inside.status == 5
    for each in (ended, inside):
        assert re.search(r"/dev/pts/\d.*30 100.*42", each.out, re.DOTALL)
    # Without a client's terminal there is still one in the container.
    assert "/dev/pts/0" in podman.ok("run", "--rm", "-t", "--network", "none", "box", "tty")


def test_pause_stop_kill_and_restart(podman: Podman) -> None:
    podman.start("life", script="trap 'exit 7' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done")
    podman.lab.until(lambda: podman.ok("logs", "life") == "up\n")
    podman.ok("pause", "life")
    assert podman.state("life")["Status"] == "paused"
    assert "can only create exec sessions on running containers" in podman("exec", "life", "true").err
    podman.ok("unpause", "life")
    podman.ok("kill", "-s", "USR1", "life")
    podman.lab.until(lambda: podman.ok("logs", "life") == "up\nusr1\n")
    before = podman.state("life")["Pid"]
    podman.ok("restart", "-t", "5", "life")
    assert before != podman.state("life")["Pid"]
    podman.ok("stop", "-t", "5", "life")
    assert (podman.state("life")["Status"], podman.state("life")["ExitCode"]) == ("exited", 7)
    podman.ok("start", "life")
    podman.ok("kill", "life")
    assert podman.ok("wait", "life") == "137\n"
    podman.ok("start", "life")
    podman.ok("pause", "life")
    podman.ok("rm", "-f", "-t", "0", "life")


def test_limits(podman: Podman) -> None:
    limits = ("--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--cpus", "0.5", "--cpuset-cpus", "0")
    podman.start("life", *limits)
    group = podman.state("life")["CgroupPath"].lstrip("/")
    assert limit(group, "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit(group, "pids/pids.max", "pids.max") == "50"
    assert limit(group, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert limit(group, "cpuset/cpuset.cpus", "cpuset.cpus") == "0"
    podman.ok("update", "--memory", "80m", "--memory-swap", "80m", "--cpus", "0.25", "life")
    assert limit(group, "memory/memory.limit_in_bytes", "memory.max") == str(80 << 20)
    assert limit(group, "pids/pids.max", "pids.max") == "50"
    assert limit(group, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    # What an exec takes counts.
    killed = podman("exec", "life", "dd", "if=/dev/zero", "of=/dev/null", "bs=160M", "count=1")
    assert killed.status == 137
    assert podman.ok("stats", "--no-stream", "--format", "{{.Name}} {{.PIDS}}", "life") == "life 1\n"
    greedy = ("box", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    assert podman("run", "--network", "none", "--memory", "16m", "--memory-swap", "16m", *greedy).status == 137


CONFINEMENTS = {
    "default": (),
    "user": ("-u", "user", "--group-add", "2000", "--security-opt", "no-new-privileges"),
    "reduced": ("--cap-drop", "ALL", "--cap-add", "CHOWN", "--read-only", "--tmpfs", "/tmp:size=1m"),
    "privileged": ("--privileged",),
    "host": ("--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host", "--network", "host"),
    "unmasked": ("--security-opt", "unmask=ALL", "--security-opt", "seccomp=unconfined"),
    "special": (
        "--ulimit", "nofile=77:88", "--ulimit", "nproc=99:99", "--oom-score-adj", "500", "--umask", "0077",
        "--shm-size", "1m", "--hostname", "h", "--sysctl", "net.ipv4.ip_forward=1", "--sysctl",
        "kernel.shm_rmid_forced=1", "--add-host", "x:10.0.0.1",
        "--device", "/dev/full:/dev/mine:r", "-v", "/proc:/host/proc:ro,rslave", "-w", "/data",
    ),
    "mapped": ("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"),
}  # fmt: skip


@pytest.mark.parametrize("how", CONFINEMENTS)
def test_a_container_sees_the_same_with_both(storage: Podman, lab: Lab, how: str) -> None:
    seen = []
    for name in lab.runtimes:
        storage.runtime = lab.runtimes[name]
        network = () if "--network" in CONFINEMENTS[how] else ("--network", "none")
        storage("run", "--name", "look", *network, *CONFINEMENTS[how], "box", "sh", "-c", LOOK)
        out, container = storage.ok("logs", "look"), storage.ok("inspect", "-f", "{{.Id}}", "look").strip()
        # Its cleaning up may still be at work, on what is removed.
        lab.until(lambda: storage("rm", "-f", "look").status == 0)
        seen.append(looked(out, container))
        lab.assert_nothing_left(storage.kept())
    if how == "mapped":
        # Made together with the user namespace, before anybody could be root in it.
        seen = [[each for each in lines if not each.startswith("mqueue directory")] for lines in seen]
    assert_same(*seen)


def test_namespaces_are_joined(podman: Podman) -> None:
    podman.start("life")
    links = ["sh", "-c", "cd /proc/self/ns; for each in net pid ipc uts; do readlink $each; done"]
    own = podman.ok("exec", "life", *links).split()
    joined = [f"--{kind}=container:life" for kind in ("network", "pid", "ipc", "uts")]
    assert podman.ok("run", "--rm", *joined, "box", *links).split() == own
    # A shared pid namespace: its end is not the container's, and what it leaves behind ends with it all the same.
    podman.ok("run", "--rm", *joined, "box", "sh", "-c", "sleep 601 & echo")
    podman.lab.until(lambda: "sleep 601" not in podman.ok("top", "life"))


def test_a_pod(podman: Podman) -> None:
    shared = ("--infra-command", "sleep 600", "--share", "ipc,net,uts", "--network", "none")
    podman.pods.append(podman.ok("pod", "create", "--name", "pod", *shared).strip())
    for name in ("one", "two"):
        podman.ok("run", "-d", "--pod", "pod", "--name", name, "box", "sleep", "600")
    links = ["sh", "-c", "cd /proc/self/ns; for each in net ipc uts; do readlink $each; done; hostname"]
    assert podman.ok("exec", "one", *links) == podman.ok("exec", "two", *links)
    for word in ("pause", "unpause", "stop", "start", "kill", "rm"):
        podman.ok("pod", word, *(["-t", "0"] if word == "stop" else []), "pod")


def test_hooks_run_in_their_order(podman: Podman) -> None:
    """In the six places; each has the state on its standard input."""
    said = podman.directory / "said"
    said.unlink(missing_ok=True)
    outside = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    for stage in (*outside, "startContainer"):
        script = f"cd /; state=$(cat); echo {stage} $A $(readlink /proc/self/ns/mnt) $state >>{said}"
        hook = {
            "version": "1.0.0", "when": {"annotations": {"^swap$": "^yes$"}}, "stages": [stage],
            "hook": {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b", "PATH=/bin"], "timeout": 10},
        }  # fmt: skip
        (podman.directory / f"hooks/{stage}.json").write_text(json.dumps(hook))
    volume = f"--volume={podman.directory}:{podman.directory}"
    podman.ok("run", "--name", "hooked", "--annotation", "swap=yes", "--network", "none", volume, "box", "true")
    podman.ok("rm", "hooked")
    lines = {line.split(" ")[0]: line.split(" ", 3)[1:] for line in said.read_text().splitlines()}
    # The one in the container is on its own: runc does not wait for it.
    assert [each for each in lines if each != "startContainer"] == list(outside)
    assert {each[0] for each in lines.values()} == {"b"}
    here = os.readlink("/proc/self/ns/mnt")
    assert [stage for stage, each in lines.items() if each[1] == here] == [
        "prestart",
        "createRuntime",
        "poststart",
        "poststop",
    ]
    states = {stage: json.loads(each[2]) for stage, each in lines.items()}
    statuses = {stage: state["status"] for stage, state in states.items()}
    assert statuses.pop("poststart") in ("running", "created" if podman.runtime.name == "runc" else "running")
    assert statuses == {
        "prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created",
        "poststop": "stopped",
    }  # fmt: skip
    assert all(each["annotations"]["swap"] == "yes" and each["id"] for each in states.values())


def test_a_failing_hook_fails_the_container(podman: Podman) -> None:
    hook = {
        "version": "1.0.0", "when": {"annotations": {"^swap$": "^fail$"}}, "stages": ["prestart"],
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", "echo sorry >&2; exit 9"]},
    }  # fmt: skip
    (podman.directory / "hooks/fail.json").write_text(json.dumps(hook))
    ended = podman("run", "--rm", "--annotation", "swap=fail", "--network", "none", "box", "true")
    assert ended.status == 126
    assert re.search(r"error running (prestart )?hook #0: .*exit status 9, stdout: , stderr: sorry", ended.err)


def test_checkpoint_is_refused(podman: Podman) -> None:
    podman.start("life")
    assert podman("container", "checkpoint", "life").status == 125
    assert podman.state("life")["Status"] == "running"


@pytest.mark.requires("bridge", "program:/usr/lib/cni/bridge")
def test_the_bridge_network(podman: Podman) -> None:
    serve = ("sh", "-c", "while :; do echo hello | nc -l -p 80; done")
    podman.ok("run", "-d", "--name", "web", "-p", "127.0.0.1:8088:80", "box", *serve)
    address = podman.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").strip()
    assert address.startswith("172.27.0.")
    assert podman.ok("run", "--rm", "box", "nc", "-w", "5", address, "80") == "hello\n"
    assert podman.lab.run("busybox", "nc", "-w", "5", "127.0.0.1", "8088").out == "hello\n"
