"""What the tests of other people's engines share: a place of their own, an image, and a look at what was left behind.

The engines run in a network namespace that ends with the lab: their bridges, rules and addresses are nobody else's.
Every process of theirs has the lab's directory in its command line or in its environment, by which it is found.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.e2e.conftest import busybox_tar

CGROUPS = pathlib.Path("/sys/fs/cgroup")
UNIFIED = (CGROUPS / "cgroup.controllers").exists()
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # in the image specification's words
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


class Runtime(NamedTuple):
    """An OCI runtime: what the engines call it, and its program."""

    name: str
    path: str


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Lab:
    """A directory, a network namespace, the two runtimes, and an archive of an image of busybox (`docker save`'s)."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        # Users of a mapped namespace have to get to their root file system.
        directory.chmod(0o711)
        self.cgroup = directory.name
        self.archive = directory / "box.tar"
        self.archive.write_bytes(docker_archive(busybox_tar(), "localhost/box:latest"))
        self.environment = {
            "PATH": _PATH, "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory), "TMPDIR": str(directory / "tmp"),
            "TERM": "xterm", "LANG": "C.UTF-8",
        }  # fmt: skip
        (directory / "tmp").mkdir()
        self.runtimes = {
            "runc": Runtime("runc", _recorded(directory, shutil.which("runc", path=_PATH) or "runc")),
            "sampan-runtime": Runtime("sampan-runtime", _recorded(directory, _own(directory))),
        }
        self._roots = [pathlib.Path("/run/runc"), pathlib.Path("/run/sampan-runtime")]
        self._daemons: list[subprocess.Popen[bytes]] = []
        # Forwarding before dockerd finds it off: it would set it, and drop what others forward.
        script = "ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; exec sleep infinity"
        self._namespace = self.daemon("lab", "unshare", "--net", "sh", "-c", script)
        self.until(lambda: self.run("ip", "-br", "link", "show", "lo").out.split()[1:2] == ["UNKNOWN"])

    def close(self) -> None:
        """End the daemons, the last first, and take the directory and the cgroups down."""
        while self._daemons:
            self.end(self._daemons[-1])
        for found in reversed([each for top in self._tops() for each in (top, *_below(top))]):
            with contextlib.suppress(OSError):
                found.rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- Commands ---------------------------------------------------------------------------------

    def daemon(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start what ends with the lab, or with the tests' process; its output goes to NAME.log. All but the first
        are in the first one's network namespace."""
        command = ["setpriv", "--pdeathsig", "TERM", *(self._inside() if self._daemons else ()), *words]
        with open(self.directory / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.directory
            )
        self._daemons.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a daemon."""
        self._daemons.remove(process)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._namespace.pid}/ns/net"]

    def run(self, *words: str, stdin: bytes = b"", timeout: float = 60) -> Ended:
        """Run a command in the lab's network namespace."""
        done = subprocess.run(
            [*self._inside(), *words], input=stdin, capture_output=True, timeout=timeout, check=False,
            env=self.environment, cwd=self.directory,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def terminal(self, *words: str, typed: bytes = b"", timeout: float = 60) -> Ended:
        """Run a command on a terminal of 100 columns by 30 rows; what is `typed` goes in at once."""
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            termios.tcsetwinsize(0, (30, 100))
            os.execvpe("nsenter", [*self._inside(), *words], self.environment)
        with contextlib.suppress(OSError):
            os.write(master, typed)
        deadline, seen = time.monotonic() + timeout, b""
        while time.monotonic() < deadline and select.select([master], [], [], 1):
            try:
                data = os.read(master, 4096)
            except OSError:
                break
            if not data:
                break
            seen += data
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(master)
        return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode(errors="replace"), "")

    @staticmethod
    def until(condition: Callable[[], object], seconds: float = 15) -> None:
        """Wait for it; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail("what was waited for did not happen")
            time.sleep(0.05)

    # --- What is left -----------------------------------------------------------------------------

    def _tops(self) -> list[pathlib.Path]:
        """The cgroups under which the lab's containers are, in every hierarchy."""
        hierarchies = [CGROUPS] if UNIFIED else list(CGROUPS.iterdir())
        return [each / self.cgroup for each in hierarchies if (each / self.cgroup).is_dir()]

    def cgroups(self) -> list[str]:
        """Without podman's own, for its monitors, which stays."""
        return [str(each) for top in self._tops() for each in _below(top) if each.name != "conmon"]

    def mounts(self) -> list[str]:
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return [where for line in lines if str(self.directory) in (where := line.split()[4])]

    def processes(self) -> list[str]:
        """Those of the lab, without its daemons and what those keep: "PID COMMAND"."""
        known = {os.getpid(), *(each.pid for each in self._daemons)}
        mark, found = str(self.directory).encode(), []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in known:
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if os.path.basename(words.partition(b"\0")[0]) == b"containerd":
                    continue
                if mark in words or mark in (entry / "environ").read_bytes():
                    found.append(f"{entry.name} {words.replace(bytes(1), b' ').decode(errors='replace')}")
        return found

    def states_in(self, root: pathlib.Path) -> None:
        """Look for what is left of containers' states in `root` too."""
        self._roots.append(root)

    def states(self) -> list[str]:
        """The containers of the lab of which a runtime has a state. podman has them in the runtime's own place: it
        forgets `--runtime-flag root=` when it cleans up."""
        mark, found = str(self.directory).encode(), []
        for entry in (entry for root in self._roots if root.is_dir() for entry in root.iterdir()):
            with contextlib.suppress(OSError):
                if not entry.name.startswith(".") and mark in (entry / "state.json").read_bytes():
                    found.append(str(entry))
        return found

    def left(self) -> list[str]:
        return [*self.cgroups(), *self.mounts(), *self.processes(), *self.states()]

    def assert_nothing_left(self, but: tuple[str, ...] = ()) -> None:
        """Engines answer before the last of their helpers has ended, so it may take a moment."""
        deadline, left = time.monotonic() + 15, ["?"]
        while left and time.monotonic() < deadline:
            left = [each for each in self.left() if each not in but]
            time.sleep(0.05 if left else 0)
        if left:
            pytest.fail(f"left behind: {left}")


def limit(group: str, v1: str, v2: str) -> str:
    """A limit of the cgroup `group` (a path below the root): `v1` is controller/file."""
    controller, name = v1.split("/")
    return (CGROUPS / group / v2 if UNIFIED else CGROUPS / controller / group / name).read_text().strip()


# What a process of a container can see of how it is confined.
LOOK = r"""
cat /proc/self/mountinfo; echo END
own='Pid|PPid|NSpid|NStgid|NSpgid|NSsid|Ngid|Tgid|voluntary|nonvol|Vm|Rss|Hugetlb|SigQ|Cpus|Mems'
grep -vE "^($own)" /proc/self/status; echo FDS /proc/self/fd/*; umask
cat /proc/self/limits /proc/self/oom_score_adj /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
cat /proc/self/cgroup /proc/self/timens_offsets /proc/self/personality /proc/sys/kernel/hostname
cd /dev; for each in * pts/* shm/*; do stat -c '%n %F %a %u %g %t,%T' "$each"; done
for each in fd stdin stdout stderr core ptmx; do stat -c '%N' "$each"; done
for each in / /proc /sys /tmp /etc; do stat -c '%n %F %a %u %g' "$each"; done
for each in sys/kernel/core_pattern sysrq-trigger; do echo x 2>/dev/null >"/proc/$each" && echo "wrote $each"; done
for each in /sys/x /x; do echo x 2>/dev/null >"$each" && echo "wrote $each"; done
for each in /proc/kcore /proc/keys /proc/timer_list /sys/firmware; do head -c1 "$each" 2>&1; ls "$each" | wc -l; done
mknod /tmp/disk b 8 0 && cat /tmp/disk 2>&1 | head -c1; mknod /tmp/null c 1 3 && echo x >/tmp/null
unshare -U true 2>&1; mount -t tmpfs none /tmp 2>&1
"""


def looked(out: str, name: str) -> list[str]:
    """What LOOK wrote, without the container's `name`, ids and numbers.

    Not compared are the order of mounts (podman and dockerd keep them in maps), what stands behind a masked path (ours
    is the host's /dev/null, and a tmpfs of a stated size), the source of a cgroup mount, whether the tmpfs with the
    cgroups of version 1 is read-only, as asked (runc 1.1 forgets it), and the group in the hierarchy of version 2 where
    those of version 1 are in use beside it: there we make none.
    """
    mounts, found, rest = out.partition("END\n")
    assert found, f"the script did not run: {out}"
    lines = []
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        root, place, flags, *peers = mount.split()[3:]
        kind, origin, options = source.split(" ", 2)
        peers = [re.sub(r"\d+", "N", each) for each in peers]
        if root == "/null":
            root, flags, peers, kind, origin, options = "masked", "", [], "", "", ""
        if place == "/sys/fs/cgroup" and kind == "tmpfs":
            flags = flags[2:]
        if kind == "tmpfs" and flags.startswith("ro,"):
            options = re.sub(",(nr_inodes|mode)=\\d+", "", options)
        if kind == "overlay":
            options = ""
        if kind in ("cgroup", "cgroup2"):
            origin = ""
        lines.append(" ".join([place, root, flags, *peers, kind, origin, options]))
    lines = [*sorted(lines), *(line for line in rest.splitlines() if UNIFIED or not line.startswith("0::"))]
    return [re.sub("[0-9a-f]{64}", "ID", line.replace(name, "ID").replace(name[:12], "ID")) for line in lines]


def assert_same(expected: list[str], seen: list[str]) -> None:
    """Fail with the lines that differ."""
    assert len(expected) > 60, expected
    different = list(difflib.unified_diff(expected, seen, "expected", "seen", n=0, lineterm=""))
    if different:
        pytest.fail("\n".join(different))


def _below(top: pathlib.Path) -> list[pathlib.Path]:
    """All groups below, parents before their children."""
    return sorted(pathlib.Path(at, name) for at, names, _ in os.walk(top) for name in names)


def _own(directory: pathlib.Path) -> str:
    """The installed command; where the package only lies on the path, a script that is the same."""
    installed = pathlib.Path(sys.executable).with_name("sampan-runtime")
    if installed.exists():
        return str(installed)
    script = directory / "sampan-runtime"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom sampan.runtime.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return str(script)


def _recorded(directory: pathlib.Path, runtime: str) -> str:
    """The runtime, behind the recorder if that is asked for."""
    file = os.environ.get("SAMPAN_RECORD")
    if file is None:
        return runtime
    script = directory / "recorded" / os.path.basename(runtime)
    script.parent.mkdir(exist_ok=True)
    words = [sys.executable, "-IS", str(pathlib.Path(__file__).with_name("recorder.py")), file, runtime]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    return str(script)


def docker_archive(layer: bytes, name: str) -> bytes:
    """A `docker save` archive of one layer, which podman, containerd and Docker all load."""
    config = {
        "architecture": _MACHINES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "the tests"}],
    }
    raw = json.dumps(config).encode()
    named = f"{hashlib.sha256(raw).hexdigest()}.json"
    manifest = json.dumps([{"Config": named, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in ((named, raw), ("layer.tar", layer), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
