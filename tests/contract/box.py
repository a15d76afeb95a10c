"""A bundle, a state root, and a runtime to try them on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.contract.runtimes import Runtime, children, reap_all

APPLETS = (
    "cat", "env", "echo", "false", "grep", "head", "id", "kill", "ls", "mkdir", "ps", "pwd", "readlink", "seq", "sh",
    "sleep", "stty", "tail", "touch", "true", "tty", "umask", "wc",
)  # fmt: skip

FOREVER = ("sleep", "1000")
ABSENT = object()
"""As a change of a configuration: leave the member out."""

Json = dict[str, Any]

_PATIENCE = 30.0
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_LOGRUS = re.compile(r'level=(error|fatal) msg=("(?:[^"\\]|\\.)*"|\S+)')


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """What it returns, as soon as that is true."""
    end = time.monotonic() + _PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.004)
    return found


def group_directories(path: str) -> list[str]:
    """The directories of a cgroup, of all hierarchies, that are there."""
    tops = ["/sys/fs/cgroup", *(f"/sys/fs/cgroup/{each}" for each in os.listdir("/sys/fs/cgroup"))]
    return [top + path for top in tops if os.path.isdir(top + path)]


class Outcome:
    """A call of the runtime: its status, and what it and a container that inherits its streams have written so far."""

    def __init__(self, runtime: Runtime, args: Sequence[str], stem: str) -> None:
        self.runtime = runtime
        self.args = args
        self.stem = stem
        self.status = 0

    def __repr__(self) -> str:
        return (
            f"{self.runtime.name} {' '.join(self.args)}: status {self.status}\n  out: {self.out!r}\n  err: {self.err!r}"
        )

    @property
    def out(self) -> str:
        return pathlib.Path(self.stem + ".out").read_text()

    @property
    def err(self) -> str:
        return pathlib.Path(self.stem + ".err").read_text()

    @property
    def message(self) -> str:
        """The error that it ended with, without a log record's other fields."""
        records = _LOGRUS.findall(self.err)
        if not records:
            return self.err.strip()
        last = records[-1][1]
        # Go's quoting is JSON's but for bytes.
        return str(json.loads(last.replace("\\x", "\\u00"))) if last.startswith('"') else str(last)

    def succeeded(self) -> Outcome:
        assert self.status == 0, self
        return self

    def refused(self, says: str, *, crun: str, status: int = 1, crun_status: int | None = None) -> None:
        """It has failed and says why: runc and ours in the same words, crun in its own."""
        name = self.runtime.name
        assert self.status == (crun_status if name == "crun" and crun_status is not None else status), self
        assert (crun if name == "crun" else says) in self.message, self
        if name == "sampan":
            assert len(self.err.splitlines()) == 1, self


class Running(Outcome):
    """A call that has not ended yet."""

    def __init__(self, runtime: Runtime, args: Sequence[str], stem: str, process: subprocess.Popen[bytes]) -> None:
        super().__init__(runtime, args, stem)
        self.process = process

    def wait(self) -> Outcome:
        """Its end."""
        try:
            self.status = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            place = pathlib.Path(f"/proc/{self.process.pid}/wchan").read_text()
            self.process.kill()
            self.status = self.process.wait()
            raise AssertionError(f"it does not end, and waits in {place}: {self}") from None
        if self.process.stdin:
            self.process.stdin.close()
        return self

    def until(self, text: str) -> None:
        """Wait until it has written that."""
        wait_for(lambda: text in self.out or (self.process.poll() is not None and pytest_fail(self)), repr(text))


def pytest_fail(outcome: Outcome) -> bool:
    raise AssertionError(f"it has ended: {outcome}")


class Box:
    """One test's bundle, and all that its runtime can be asked to do with it."""

    def __init__(self, runtime: Runtime, directory: pathlib.Path) -> None:
        self.runtime = runtime
        self.directory = directory
        self.bundle = directory / "bundle"
        self.rootfs = self.bundle / "rootfs"
        self.state_root = directory / "state"
        self.id = "box"
        self.group = f"/sampan-contract/{directory.name}"
        """All its containers' cgroups are below it."""
        self._count = itertools.count()
        self._others = set(children())
        self.make_rootfs(self.rootfs)
        self.configure(*FOREVER)

    def make_rootfs(self, root: pathlib.Path) -> None:
        """busybox and its applets, and the directories that mounts go to."""
        for name in ("bin", "etc", "proc", "dev", "sys", "tmp", "host"):
            (root / name).mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, root / "bin/busybox")
        for name in APPLETS:
            (root / "bin" / name).symlink_to("busybox")
        (root / "etc/data").write_text("not a program\n")

    # --- The configuration -----------------------------------------------------------------------------

    def configuration(self, *args: str, **changes: Any) -> Json:
        """A whole config.json. `changes` replace top level members; where both are objects, the members of those."""
        kinds = ("pid", "network", "ipc", "uts", "mount")
        safe = ["nosuid", "noexec", "nodev"]
        document: Json = {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": list(args),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
                "noNewPrivileges": True,
            },
            "root": {"path": "rootfs", "readonly": True},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
                },
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, "ro"]},
                # What a container writes there, the test reads.
                {"destination": "/host", "type": "bind", "source": str(self.directory), "options": ["bind", "rw"]},
            ],
            "linux": {
                "namespaces": [{"type": each} for each in kinds],
                "cgroupsPath": f"{self.group}/{self.id}",
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }  # fmt: skip
        for name, value in changes.items():
            if isinstance(value, dict) and isinstance(document.get(name), dict):
                document[name].update(value)
                for key in [key for key, each in document[name].items() if each is ABSENT]:
                    del document[name][key]
            elif value is ABSENT:
                document.pop(name, None)
            else:
                document[name] = value
        return document

    def configure(self, *args: str, **changes: Any) -> None:
        """Write it into the bundle."""
        self.write(self.configuration(*args, **changes))

    def write(self, document: Json | str) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        (self.bundle / "config.json").write_text(text)

    # --- Calls -----------------------------------------------------------------------------------------

    def spawn(
        self,
        *args: str,
        options: Sequence[str] = (),
        fds: Sequence[int] = (),
        env: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        prefix: Sequence[str] = (),
    ) -> Running:
        """Call the runtime, in the bundle, and don't wait. `options` stand before the command. `stdin`: as of Popen."""
        line = ["--root", str(self.state_root), *options, *args]
        stem = f"{self.directory}/call{next(self._count)}"
        with open(stem + ".out", "wb") as out, open(stem + ".err", "wb") as err:
            process = subprocess.Popen(
                [*prefix, *self.runtime.argv(str(self.bundle)), *line], cwd=self.bundle, stdin=stdin, stdout=out,
                stderr=err, pass_fds=fds, env=env,
            )  # fmt: skip
        return Running(self.runtime, line, stem, process)

    def call(self, *args: str, input: bytes | None = None, **how: Any) -> Outcome:  # noqa: A002 - subprocess's word
        """Call the runtime and wait for its end."""
        running = self.spawn(*args, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, **how)
        if input is not None:
            assert running.process.stdin is not None
            with running.process.stdin, contextlib.suppress(BrokenPipeError):
                running.process.stdin.write(input)
        return running.wait()

    @property
    def _pid_file(self) -> pathlib.Path:
        return self.directory / f"pid of {self.id}"

    def create(self, *flags: str, **how: Any) -> Outcome:
        return self.call("create", "--pid-file", str(self._pid_file), *flags, self.id, **how).succeeded()

    def start(self) -> Outcome:
        return self.call("start", self.id).succeeded()

    def launch(self, *args: str, **changes: Any) -> int:
        """Have a container that runs, of `args` if they are given; the pid of its first process."""
        if args:
            self.configure(*args, **changes)
        self.call("run", "--detach", "--pid-file", str(self._pid_file), self.id).succeeded()
        return self.pid

    def state(self, container_id: str = "") -> Json:
        found: Json = json.loads(self.call("state", container_id or self.id).succeeded().out)
        return found

    @property
    def status(self) -> str:
        return str(self.state()["status"])

    @property
    def pid(self) -> int:
        """Of the container that `create` or `launch` have made."""
        return int(self._pid_file.read_text())

    def kill(self, signal: str | int = "KILL") -> Outcome:
        return self.call("kill", self.id, str(signal)).succeeded()

    def end(self, pid: int) -> int:
        """Kill the container and reap it, so that it is stopped; its wait status."""
        self.kill()
        return self.reap(pid)

    def reap(self, pid: int) -> int:
        """The exit code of an orphan of the runtime's, minus the signal's number if that ended it."""
        descriptor = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(_PATIENCE * 1000), f"process {pid} does not end"
        finally:
            os.close(descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # --- What is left ----------------------------------------------------------------------------------

    def left(self, container_id: str = "") -> list[str]:
        """What there is of the container: its state, cgroups, mounts and processes."""
        container_id = container_id or self.id
        found = [str(self.state_root / container_id)] if os.path.lexists(self.state_root / container_id) else []
        found += group_directories(f"{self.group}/{container_id}")
        for info in (pathlib.Path("/proc/self/mountinfo").read_text(), self.runtime.mountinfo()):
            found += [line for line in info.splitlines() if str(self.directory) in line]
        reap_all(but=tuple(self._others))
        for pid in set(children()) - self._others:
            with contextlib.suppress(FileNotFoundError):
                found.append(f"process {pid}: " + pathlib.Path(f"/proc/{pid}/cmdline").read_text())
        return found

    def nothing_left(self, container_id: str = "") -> bool:
        """Wait until there is nothing; the kernel needs a moment to end a process."""
        end = time.monotonic() + 2
        while self.left(container_id) and time.monotonic() < end:
            time.sleep(0.004)
        assert self.left(container_id) == []
        return True

    def nothing_runs(self) -> None:
        """Wait until its cgroups are empty."""

        def none() -> bool:
            reap_all(but=tuple(self._others))
            groups = group_directories(f"{self.group}/{self.id}")
            return not any(pathlib.Path(group, "cgroup.procs").read_text() for group in groups)

        wait_for(none, "the end of every process")

    def _kill_all(self) -> None:
        """runc's delete --force waits a tenth of a second for what it kills, and it is tested elsewhere."""
        for pid in set(children()) - self._others:
            descriptor = os.pidfd_open(pid)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            # Not for long: a frozen process dies when it is thawed.
            select.select([descriptor], [], [], 0.05)
            os.close(descriptor)
        reap_all(but=tuple(self._others))

    def clean(self) -> None:
        """Remove every container by force; then nothing may be left of any."""
        ids = sorted(os.listdir(self.state_root)) if self.state_root.is_dir() else []
        ids = [each for each in ids if not each.startswith(".")]
        self._kill_all()
        for each in ids:
            self.call("delete", "--force", each).succeeded()
        for each in {self.id, *ids}:
            self.nothing_left(each)
        assert self.sweep() == []

    def sweep(self) -> list[str]:
        """End and remove by hand what a runtime has left, so that no other test finds it. Returns such cgroups."""
        points = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
        for each in reversed([point for point in points if point.startswith(f"{self.directory}/")]):
            subprocess.run(["umount", "--lazy", each], check=True)
        groups = [
            root for top in group_directories(self.group) for root, _, _ in os.walk(top, topdown=False) if root != top
        ]
        while pids := {pid for each in groups for pid in _processes(each)} | set(children()) - self._others:
            for each in groups:
                if os.path.exists(each + "/freezer.state"):
                    pathlib.Path(each, "freezer.state").write_text("THAWED")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.004)
            reap_all(but=tuple(self._others))
        for each in groups:
            os.rmdir(each)
        return groups


def _processes(group: str) -> list[int]:
    return [int(line) for line in pathlib.Path(group, "cgroup.procs").read_text().split()]
