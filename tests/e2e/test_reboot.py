"""The machine goes down and comes up again: what restart policies say then, and in what order."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "veth", "nftables", "program:docker", "program:busybox")


class Machine(Engine):
    """An engine of its own, which everything can be taken from."""

    def reboot(self, *options: str) -> None:
        """All processes are killed, and what lives in the kernel and in the run root is gone."""
        ids = self.docker("ps", "-aq", "--no-trunc").stdout.split()
        self.stop(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (alive := self._processes()) and time.monotonic() < deadline:
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        mounted = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        for point in sorted((line.split()[4] for line in mounted), reverse=True):
            if point.startswith((self.paths.data_root, self.paths.exec_root)):
                subprocess.run(["umount", "-l", point], check=True)
        self.take_down()
        for group in [path for each in ids for path in pathlib.Path("/sys/fs/cgroup").glob(f"**/sampan/{each}")]:
            group.rmdir()
        shutil.rmtree(self.paths.exec_root)
        self._options = options
        self.start()

    def _processes(self) -> list[int]:
        """Those whose root or whose shim's directory is ours: containers, shims, the spawner."""
        found: list[int] = []
        for each in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                ours = self.paths.data_root in (each / "mountinfo").read_text() and (
                    os.readlink(each / "ns/mnt") != os.readlink("/proc/self/ns/mnt")
                )
                ours = ours or ((each / "comm").read_text().startswith("sampan-") and self._is_ours(each))
            except OSError:
                continue
            if ours:
                found.append(int(each.name))
        return found

    def _is_ours(self, process: pathlib.Path) -> bool:
        """A shim has its socket below the run root; the spawner and what it forks ahead end with the engine."""
        sockets = {os.readlink(each) for each in (process / "fd").iterdir()}
        unix = pathlib.Path("/proc/net/unix").read_text().splitlines()
        ours = {
            f"socket:[{line.split()[6]}]" for line in unix if line.endswith(".sock") and self.paths.exec_root in line
        }
        return bool(sockets & ours)

    def status(self, name: str) -> str:
        return self.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()

    def until_runs(self, name: str) -> None:
        self.until(lambda: self.status(name) == "running 0", name)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert condition(), what


@pytest.fixture
def machine(short_dir: pathlib.Path) -> Iterator[Machine]:
    running = Machine(short_dir)
    running.start()
    try:
        running.load_box()
        yield running
        running.remove_containers()
        assert running.left_over() == []
    finally:
        running.stop()
        running.take_down()


def test_a_reboot(machine: Machine) -> None:
    docker = machine.docker

    def run(name: str, *words: str, say: str = "sleep 600") -> None:
        docker("run", "-d", "--name", name, *words, "box", "sh", "-c", say, check=True)

    run("no")
    run("always", "--restart", "always", "-p", "127.0.0.1::80")
    run("always-stopped", "--restart", "always")
    run("unless", "--restart", "unless-stopped")
    run("unless-stopped", "--restart", "unless-stopped")
    run("failing", "--restart", "on-failure")
    run("failed", "--restart", "on-failure:1", say="exit 3")
    run("done", "--restart", "on-failure", say="true")
    run("main", "--restart", "always")
    docker("create", "--name", "never", "--restart", "always", "box", "sleep", "600", check=True)
    docker("stop", "-t", "0", "always-stopped", "unless-stopped", check=True)
    docker("wait", "failed", "done")
    run("paired", "--restart", "always", "--network", "container:main")

    machine.reboot()
    for name in ("always", "always-stopped", "unless", "failing", "main", "paired"):
        machine.until_runs(name)
    expected = {
        "no": "exited 255",
        "unless-stopped": "exited 137",
        "failed": "exited 3",
        "done": "exited 0",
        "never": "created 0",
    }
    assert {name: machine.status(name) for name in expected} == expected
    assert docker("exec", "paired", "hostname").stdout == docker("exec", "main", "hostname").stdout
    assert docker("port", "always").stdout.startswith("80/tcp -> 127.0.0.1:")


def test_an_engine_on_demand_leaves_what_was_stopped_until_the_next_boot(machine: Machine) -> None:
    docker = machine.docker
    docker("run", "-d", "--name", "stopped", "--restart", "always", "box", "sleep", "600", check=True)
    docker("run", "-d", "--name", "runs", "--restart", "always", "box", "sleep", "600", check=True)
    docker("stop", "-t", "0", "stopped", check=True)
    machine.stop()
    machine._options = ("--on-demand", "--idle-timeout", "600")
    machine.start()
    time.sleep(1)
    assert (machine.status("stopped"), machine.status("runs")) == ("exited 137", "running 0")
    machine.reboot("--on-demand", "--idle-timeout", "600")
    for name in ("stopped", "runs"):
        machine.until_runs(name)
    docker("stop", "-t", "0", "stopped", check=True)
    machine.stop()
    machine._options = ()
    machine.start()
    machine.until(lambda: machine.status("stopped") == "running 0", "a service that starts")


def test_a_container_whose_shim_is_killed_is_started_again_as_its_policy_says(machine: Machine) -> None:
    docker = machine.docker
    for name, policy in (("always", "always"), ("failing", "on-failure:1"), ("no", "no")):
        docker("run", "-d", "--name", name, "--restart", policy, "box", "sleep", "600", check=True)

    def kill_shim(name: str) -> None:
        pid = docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
        os.kill(int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)

    def stands(name: str) -> tuple[str, int]:
        state = json.loads(docker("inspect", name).stdout)[0]
        return state["State"]["Status"], state["RestartCount"]

    for name in ("always", "failing", "no"):
        kill_shim(name)
    machine.until(lambda: stands("always") == ("running", 1), "always")
    machine.until(lambda: stands("failing") == ("running", 1), "on-failure")
    kill_shim("failing")
    kill_shim("always")
    machine.until(lambda: stands("always") == ("running", 2), "always, again")
    time.sleep(1)
    assert stands("failing") == ("exited", 1)
    assert stands("no") == ("exited", 0)
