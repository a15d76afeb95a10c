"""The runtime's command as an ordinary user: with its own ids alone, and with those that newuidmap grants."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import msgspec
import pytest

import sampan
from sampan.runtime.state import start_time

pytestmark = pytest.mark.requires("root", "program:busybox", "program:newuidmap", "program:setpriv")

USER = 65534
_PYTHON = "/usr/bin/python3"
"""The system's own: the tests' may lie where only root can read."""


class Ordinary:
    """A user without any right, a bundle of its own and the runtime."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        library = directory / "lib"
        for place in (os.path.dirname(sampan.__file__), os.path.dirname(msgspec.__file__)):
            shutil.copytree(place, library / os.path.basename(place), ignore=shutil.ignore_patterns("__pycache__"))
        self.bundle = directory / "bundle"
        root = self.bundle / "rootfs"
        (root / "bin").mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
        for name in ("sh", "cat", "id", "sleep", "stat", "touch", "chown"):
            (root / "bin" / name).symlink_to("busybox")
        (directory / "run").mkdir()
        for each in (directory / "run", self.bundle, root, root / "bin"):
            os.chown(each, USER, USER)
        directory.chmod(0o755)
        assert self.run("spec", "--rootless").returncode == 0
        self.configure(terminal=False)

    def configure(self, *args: str, **process: object) -> dict[str, object]:
        path = self.bundle / "config.json"
        config: dict[str, object] = json.loads(path.read_text())
        described = config["process"]
        assert isinstance(described, dict)
        described.update({"args": args} if args else {}, **process)
        path.write_text(json.dumps(config))
        return config

    def run(self, *words: str, subordinate: str = "") -> subprocess.CompletedProcess[str]:
        """As the user. `subordinate`: the content of /etc/subuid and /etc/subgid, which others do not see. What it
        prints goes through files: a container that goes on would keep pipes open."""
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        command += [_PYTHON, "-m", "sampan.runtime", *words]
        if subordinate:
            for name in ("subuid", "subgid"):
                (self.directory / name).write_text(subordinate)
            script = f'for each in subuid subgid; do mount --bind {self.directory}/$each /etc/$each; done; exec "$@"'
            command = ["unshare", "--mount", "sh", "-ec", script, "sh", *command]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                command, cwd=self.bundle, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False,
                env={
                    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": f"{self.directory}/lib",
                    "XDG_RUNTIME_DIR": f"{self.directory}/run", "PYTHONDONTWRITEBYTECODE": "1",
                },
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())


@pytest.fixture
def ordinary() -> Iterator[Ordinary]:
    directory = pathlib.Path(tempfile.mkdtemp(prefix="smp", dir="/tmp"))
    made = Ordinary(directory)
    yield made
    state = directory / "run/sampan-runtime"
    left = [each for each in os.listdir(state) if not each.startswith(".")] if state.exists() else []
    assert left == []
    assert str(directory) not in pathlib.Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(directory)


def test_run_as_its_own_root(ordinary: Ordinary) -> None:
    ordinary.configure("sh", "-c", "id -u; cat /proc/self/uid_map; touch /tmp-file || echo readonly; exit 3")
    done = ordinary.run("run", "one")
    assert done.returncode == 3, done.stderr
    assert done.stdout.split() == ["0", "0", str(USER), "1", "readonly"], done.stderr
    assert os.listdir(ordinary.bundle / "rootfs") != []


def test_its_whole_life(ordinary: Ordinary) -> None:
    ordinary.configure("sleep", "100")
    assert ordinary.run("create", "--pid-file", f"{ordinary.directory}/run/pid", "one").returncode == 0
    pid = int((ordinary.directory / "run/pid").read_text())
    assert os.stat(f"/proc/{pid}").st_uid == USER
    assert json.loads(ordinary.run("state", "one").stdout)["status"] == "created"
    assert ordinary.run("start", "one").returncode == 0
    done = ordinary.run("exec", "one", "sh", "-c", "id -u; id -g; cat /proc/1/comm; exit 4")
    assert (done.returncode, done.stdout.split()) == (4, ["0", "0", "sleep"]), done.stderr
    assert ordinary.run("delete", "one").returncode == 1
    assert ordinary.run("kill", "one", "KILL").returncode == 0
    assert ordinary.run("delete", "--force", "one").returncode == 0
    assert start_time(pid) == 0  # Or it waits for a parent who reaps it.


def test_limits_without_a_cgroup_are_an_error(ordinary: Ordinary) -> None:
    config = ordinary.configure("id")
    linux = config["linux"]
    assert isinstance(linux, dict)
    linux["resources"] = {"pids": {"limit": 10}}
    (ordinary.bundle / "config.json").write_text(json.dumps(config))
    done = ordinary.run("run", "one")
    assert done.returncode == 1
    assert "cgroup" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ids_that_newuidmap_grants(ordinary: Ordinary) -> None:
    config = ordinary.configure("sh", "-c", "touch /file; chown 7:8 /file; stat -c %u:%g /file; id -u", user={"uid": 5})
    linux, process = config["linux"], config["process"]
    assert isinstance(linux, dict)
    assert isinstance(process, dict)
    config["root"] = {"path": "rootfs"}
    maps = [{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 300000, "size": 1000}]
    linux.update(uidMappings=maps, gidMappings=maps)
    process["user"] = {"uid": 0, "gid": 0, "additionalGids": [9]}
    for each in ("bounding", "effective", "permitted"):
        process["capabilities"][each].append("CAP_CHOWN")
    (ordinary.bundle / "config.json").write_text(json.dumps(config))
    done = ordinary.run("run", "one")
    assert done.returncode == 1
    assert "newgidmap" in done.stderr  # Nobody has granted them yet.
    done = ordinary.run("run", "one", subordinate=f"{USER}:300000:1000\n")
    assert (done.returncode, done.stdout.split()) == (0, ["7:8", "0"]), done.stderr
    found = os.stat(ordinary.bundle / "rootfs/file")
    assert (found.st_uid, found.st_gid) == (300006, 300007)
    done = ordinary.run("run", "one", subordinate=f"{USER}:300000:10\n")
    assert done.returncode == 1
