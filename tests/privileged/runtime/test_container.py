"""The runtime against the kernel: made, confined, executed, counted, removed."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import msgspec
import pytest

from sampan.errors import CommandNotExecutable, CommandNotFound, Conflict, InvalidArgument, SampanError
from sampan.linux import process
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import (
    Capabilities,
    DeviceCgroup,
    Linux,
    LinuxResources,
    Mount,
    Namespace,
    Pids,
    Process,
    Rlimit,
    Root,
    Seccomp,
    Spec,
    Syscall,
    User,
)
from sampan.runtime import seccomp
from sampan.runtime.container import Container, Stdio

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

SAFE = ("nosuid", "noexec", "nodev")


class Box:
    """A bundle, and a way to run things in it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.bundle = directory
        self.root = directory / "rootfs"
        (self.root / "bin").mkdir(parents=True)
        (self.root / "etc").mkdir()
        shutil.copy(shutil.which("busybox") or "/bin/busybox", self.root / "bin/busybox")
        for name in ("sh", "cat", "id", "sleep", "mkdir", "mount", "ls", "touch", "ps", "tty", "true", "kill"):
            (self.root / "bin" / name).symlink_to("busybox")
        self.state_root = str(directory / "state")
        self.id = f"t{os.getpid()}"
        self.stdin: int | None = None

    def spec(self, *args: str, **changes: object) -> Spec:
        kinds = ("mount", "pid", "network", "ipc", "uts", "cgroup")
        linux = Linux(
            namespaces=tuple(Namespace(type=kind) for kind in kinds), cgroups_path=f"/sampan-test-{self.id}",
            resources=LinuxResources(devices=(DeviceCgroup(allow=False),), pids=Pids(limit=64)),
            masked_paths=("/proc/keys", "/sys/firmware"), readonly_paths=("/proc/sys",),
        )  # fmt: skip
        some = Capabilities(bounding=("CAP_KILL",), effective=("CAP_KILL",), permitted=("CAP_KILL",))
        process = Process(cwd="/", args=args, env=("PATH=/bin", "A=b"), capabilities=some)
        made = Spec(
            oci_version="1.2.0", root=Root(path="rootfs"), hostname="box", process=process, linux=linux,
            mounts=(
                Mount(destination="/proc", type="proc", source="proc", options=SAFE),
                Mount(destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "mode=755")),
                Mount(
                    destination="/dev/pts", type="devpts", source="devpts", options=("newinstance", "ptmxmode=0666")
                ),
                Mount(destination="/sys", type="sysfs", source="sysfs", options=(*SAFE, "ro")),
                Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*SAFE, "ro")),
            ),
        )  # fmt: skip
        for name in ("process", "linux"):
            inner = {key: value for key, value in changes.items() if key in getattr(made, name).__struct_fields__}
            made = msgspec.structs.replace(made, **{name: msgspec.structs.replace(getattr(made, name), **inner)})
            changes = {key: value for key, value in changes.items() if key not in inner}
        return msgspec.structs.replace(made, **changes)

    def run(self, *args: str, **changes: object) -> tuple[int, str]:
        """Status and output."""
        reading, writing = os.pipe()
        try:
            container = Container.create(
                self.id,
                str(self.bundle),
                self.state_root,
                Stdio(self.stdin, writing, writing),
                spec=self.spec(*args, **changes),
            )
        except BaseException:
            os.close(reading)
            os.close(writing)
            raise
        container.start()
        os.close(writing)
        with os.fdopen(reading) as output:
            text = output.read()
        status = os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1])
        container.delete()
        return status, text

    def left(self) -> list[str]:
        made = os.listdir(self.state_root) if os.path.isdir(self.state_root) else ()
        found = [each for each in made if not each.startswith(".")]
        found += [each for each in Cgroup(f"/sampan-test-{self.id}").directories if os.path.exists(each)]
        mounts = pathlib.Path("/proc/self/mountinfo").read_text()
        return found + [line for line in mounts.splitlines() if str(self.bundle) in line]


def test_output_status_and_what_it_sees(box: Box) -> None:
    status, text = box.run("sh", "-c", "id -u; echo $A $HOME; cat /proc/sys/kernel/hostname; ls /dev; exit 3")
    assert status == 3
    assert text.split()[:4] == ["0", "b", "/", "box"]
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "ptmx"} <= set(text.split())


def test_it_sees_its_own_processes_and_cgroup(box: Box) -> None:
    _, text = box.run("sh", "-c", "ls /proc; cat /proc/self/cgroup; ls /proc/self/fd")
    assert next(each for each in text.split() if each.isdigit()) == "1"
    assert "sampan-test" not in text
    assert text.split()[-4:] == ["0", "1", "2", "3"]  # The last is the directory that ls reads.


def test_confinement(box: Box) -> None:
    script = "mount -t tmpfs x /etc || echo nomount; touch /proc/sys/kernel/domainname 2>&1; cat /proc/keys"
    _, text = box.run("sh", "-c", script)
    assert "nomount" in text
    assert "Read-only file system" in text
    deny = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(Syscall(names=("mkdir",), action="SCMP_ACT_ERRNO"),))
    assert "not permitted" in box.run("mkdir", "/x", seccomp=deny)[1]
    many = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]  # More than the limit that is set.
    _, text = box.run(
        "sh", "-c", "id -u; id -g; ulimit -n; cat /proc/self/status", user=User(uid=7, gid=8, additional_gids=(9,)),
        rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=50, hard=60),), no_new_privileges=True,
    )  # fmt: skip
    for each in many:
        os.close(each)
    assert text.split()[:3] == ["7", "8", "50"]
    assert "NoNewPrivs:\t1" in text
    assert "CapEff:\t0000000000000000" in text


def test_mounts(box: Box, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("bound")
    spec = box.spec("sh", "-c", "cat /a/b/file; touch /ro/x; touch /new || echo readonly")
    mounts = (
        *spec.mounts,
        Mount(destination="/a/b/file", type="bind", source=str(tmp_path / "file"), options=("bind",)),
        Mount(destination="/ro", type="bind", source=str(tmp_path), options=("rbind", "ro")),
    )
    _, text = box.run(
        *spec.process.args if spec.process else (), mounts=mounts, root=Root(path="rootfs", readonly=True)
    )
    assert text.startswith("bound")
    assert text.count("Read-only file system") == 2
    assert text.endswith("readonly\n")


@pytest.mark.parametrize("link", ["/", "../../../..", "/etc/../.."])
def test_a_hostile_image_leads_no_mount_out(box: Box, link: str) -> None:
    (box.root / "trap").symlink_to(link)
    mounts = (
        *box.spec("true").mounts,
        Mount(destination="/trap/sampan-was-here", type="tmpfs", source="tmpfs"),
    )
    assert box.run("true", mounts=mounts)[0] == 0
    assert not os.path.exists("/sampan-was-here")
    assert (box.root / "sampan-was-here").is_dir()


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("nope", CommandNotFound, r'exec: "nope": executable file not found in \$PATH'),
        ("/nope", CommandNotFound, "stat /nope: no such file or directory"),
        ("/etc", CommandNotExecutable, "is a directory"),
        ("/etc/data", CommandNotExecutable, "permission denied"),
    ],
)
def test_a_program_that_cannot_run(box: Box, program: str, kind: type[SampanError], message: str) -> None:
    (box.root / "etc/data").write_text("x")
    with pytest.raises(kind, match=message):
        box.run(program)


def test_exec_signals_freezing_and_pids(box: Box) -> None:
    container = Container.create(
        box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("sleep", "100")
    )  # fmt: skip
    container.start()
    try:
        with pytest.raises(Conflict):
            Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("true"))
        reading, writing = os.pipe()
        process = Process(cwd="/", args=("sh", "-c", "echo $$; exit 6"), env=("PATH=/bin",))
        run = container.exec(process, Stdio(None, writing, None))
        os.close(writing)
        assert os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1]) == 6
        with os.fdopen(reading) as output:
            assert int(output.read()) < 20  # A process of the container's own namespace.
        os.close(run.pidfd)
        with pytest.raises(CommandNotFound):
            container.exec(msgspec.structs.replace(process, args=("nope",)), Stdio())
        assert container.pids() == [container.pid]
        container.pause()
        assert container.paused
        container.resume()
        assert container.stats().pids_current == 1
        again = Container.load(box.id, box.state_root)
        assert again.pid == container.pid
        os.close(again.pidfd)
        with pytest.raises(Conflict):
            container.delete()
        container.kill(signal.SIGKILL)
    finally:
        assert os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1]) == -9
        container.delete()


def test_a_terminal(box: Box) -> None:
    container = Container.create(
        box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("sh", "-c", "tty; exit 2", terminal=True),
        window=(100, 40),
    )  # fmt: skip
    assert container.master is not None
    container.start()
    assert os.waitstatus_to_exitcode(os.waitpid(container.pid, 0)[1]) == 2
    assert os.read(container.master, 100) == b"/dev/pts/0\r\n"
    os.close(container.master)
    container.delete()


def test_an_init_that_reaps(box: Box) -> None:
    status, text = box.run("sh", "-c", "echo $$; kill -TERM $$", annotations={"sampan.init": "true"})
    assert int(text) > 1
    assert status == 128 + signal.SIGTERM
    _, text = box.run("cat", "/proc/1/comm", "/proc/1/cmdline", annotations={"sampan.init": "true"})
    name, _, title = text.partition("\n")
    # How much of it there is room for depends on this process's own command line.
    assert name == "docker-init"
    assert title and "/sbin/docker-init -- cat /proc/1/comm".startswith(title[:37].rstrip("\0"))


def test_a_limit_that_the_kernel_refuses(box: Box) -> None:
    bad = LinuxResources(unified={"no/such": "1"}) if Cgroup("/x").unified else LinuxResources(pids=Pids(limit=1 << 40))
    with pytest.raises(InvalidArgument, match="cgroup"):
        box.run("true", resources=bad)


def test_the_command(box: Box) -> None:
    runtime = [sys.executable, "-m", "sampan.runtime", "--root", box.state_root]
    subprocess.run([*runtime, "spec"], cwd=box.bundle, check=True)
    config = box.bundle / "config.json"
    config.write_text(config.read_text().replace('"terminal": true', '"terminal": false'))
    done = subprocess.run(
        [*runtime, "run", "-b", str(box.bundle), box.id], input=b"echo from $(cat /proc/sys/kernel/hostname); exit 4\n",
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, b"from sampan\n"), done.stderr
    missing = subprocess.run([*runtime, "state", "none"], capture_output=True, check=False)
    assert (missing.returncode, missing.stderr) == (1, b"sampan-runtime: container none does not exist\n")


def test_its_maker_is_killed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its birth and the word that it waits for: it sees the maker's end, and goes too."""
    monkeypatch.setattr(seccomp, "compiled", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    reaper = os.fork()
    if reaper == 0:
        process.become_subreaper()
        maker = os.fork()
        if maker == 0:
            Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("true"))
            os._exit(1)
        signal.alarm(5)
        killed = os.waitstatus_to_exitcode(os.waitpid(maker, 0)[1]) == -signal.SIGKILL
        orphan = os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1])
        os._exit(0 if killed and orphan == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(reaper, 0)[1]) == 0
    Container.load(box.id, box.state_root).delete(force=True)
