"""What config.json says of a process, as the process finds it. Each expectation is what runc 1.1 does, too."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterator

import msgspec
import pytest

from sampan.errors import CommandNotExecutable, CommandNotFound, InvalidArgument, SampanError, Unsupported
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import (
    Capabilities,
    ExecCPUAffinity,
    IOPriority,
    Personality,
    Process,
    Rlimit,
    Scheduler,
    Seccomp,
    User,
)
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "overlay", "program:busybox")

NOBODY = User(uid=5, gid=6)
STATUS = "cat /proc/self/status"


@pytest.fixture
def box(tmp_path: pathlib.Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    if os.path.exists(made.state_root):
        assert made.left() == []
    Cgroup("/sampan-test").delete()


def fields(text: str) -> dict[str, str]:
    """Of /proc/PID/status."""
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in text.splitlines())}


def sets(box: Box, user: User, capabilities: Capabilities | None) -> list[str]:
    """Inheritable, permitted, effective, bounding and ambient."""
    found = fields(box.run("sh", "-c", STATUS, user=user, capabilities=capabilities)[1])
    return [found[f"Cap{name}"].lstrip("0") for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]


def test_capabilities(box: Box) -> None:
    kill, root = ("CAP_KILL",), User()
    assert sets(box, root, None) == [""] * 5
    assert sets(box, root, Capabilities(bounding=kill, effective=kill, permitted=kill)) == ["", "20", "20", "20", ""]
    # Names that do not exist are left out.
    some = Capabilities(bounding=("CAP_FOO", "CAP_KILL"), effective=("kill",), permitted=("CAP_CHOWN",))
    assert sets(box, root, some) == ["", "20", "20", "20", ""]  # Root's, by its execve.
    # Only inheritable ones can be ambient, and only ambient ones are kept by another user.
    assert sets(box, NOBODY, Capabilities(bounding=kill, effective=kill, permitted=kill)) == ["", "", "", "20", ""]
    every = Capabilities(bounding=kill, effective=kill, permitted=kill, inheritable=kill, ambient=kill)
    assert sets(box, NOBODY, every) == ["20"] * 5
    without = msgspec.structs.replace(every, inheritable=())
    assert sets(box, NOBODY, without) == ["", "", "", "20", ""]


@pytest.mark.parametrize(
    ("capabilities", "message"),
    [
        (Capabilities(effective=("CAP_KILL",)), "CAP_KILL is in effective and not in permitted"),
        (Capabilities(inheritable=("CAP_KILL",)), "unable to apply caps: operation not permitted"),
    ],
)
def test_capabilities_that_cannot_be(box: Box, capabilities: Capabilities, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        box.run("true", capabilities=capabilities)


def test_who_it_is(box: Box) -> None:
    user = User(uid=5, gid=6, umask=0o077, additional_gids=(7, 8), username="ignored")
    found = fields(box.run("sh", "-c", STATUS, user=user)[1])
    assert [found[name] for name in ("Uid", "Gid", "Groups", "Umask")] == ["5 5 5 5", "6 6 6 6", "7 8", "0077"]
    assert fields(box.run("sh", "-c", STATUS)[1])["Umask"] == "0022"
    assert fields(box.run("sh", "-c", STATUS, user=User(umask=0o7777))[1])["Umask"] == "0777"


def test_its_streams_are_its_own(box: Box) -> None:
    assert box.run("sh", "-c", "echo said > /dev/stdout; echo too > /dev/stderr", user=NOBODY) == (0, "said\ntoo\n")
    assert os.stat("/dev/null").st_uid == 0  # Standard input: it stays the host's.


def test_limits(box: Box) -> None:
    limits = (Rlimit(type="RLIMIT_NOFILE", soft=30, hard=40), Rlimit(type="RLIMIT_CORE", soft=0, hard=(1 << 64) - 1))
    script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"
    assert box.run("sh", "-c", script, rlimits=limits)[1].split()[:3] == ["30", "40", "0"]


@pytest.mark.parametrize(
    ("limit", "user"),
    [
        (Rlimit(type="RLIMIT_AS", soft=4 << 20, hard=4 << 20), User()),
        (Rlimit(type="RLIMIT_DATA", soft=1 << 20, hard=1 << 20), User()),
        (Rlimit(type="RLIMIT_STACK", soft=1 << 18, hard=1 << 18), User()),
        (Rlimit(type="RLIMIT_NOFILE", soft=4, hard=4), User()),
        (Rlimit(type="RLIMIT_NPROC", soft=1, hard=1), NOBODY),
        (Rlimit(type="RLIMIT_FSIZE", soft=0, hard=0), User()),
    ],
)
@pytest.mark.parametrize("filtered", [False, True])
def test_limits_that_are_too_low_for_an_interpreter(box: Box, limit: Rlimit, user: User, filtered: bool) -> None:
    profile = Seccomp(default_action="SCMP_ACT_ALLOW") if filtered else None
    assert box.run("true", rlimits=(limit,), user=user, seccomp=profile) == (0, "")


def test_memory_killer(box: Box) -> None:
    assert box.run("cat", "/proc/self/oom_score_adj", oom_score_adj=500) == (0, "500\n")


def test_memory_killer_is_not_misled(box: Box) -> None:
    """The container's /proc may be an image's: the host's is written to."""
    (box.root / "proc/self").mkdir(parents=True)
    (box.root / "proc/self/oom_score_adj").write_text("untouched")
    without_proc = tuple(mount for mount in box.spec("true").mounts if mount.destination != "/proc")
    assert box.run("cat", "/proc/self/oom_score_adj", oom_score_adj=500, mounts=without_proc)[1] == "untouched"


def test_personality(box: Box) -> None:
    assert box.run("cat", "/proc/self/personality", personality=Personality(domain="LINUX32"))[1] == "00000008\n"
    assert box.run("cat", "/proc/self/personality", personality=Personality(domain="LINUX"))[1] == "00000000\n"


def test_environment(box: Box) -> None:
    (box.root / "bin/env").symlink_to("busybox")
    (box.root / "etc/passwd").write_text("x:*:5:6::/somewhere:/bin/sh\n")
    for env, shown in (
        (("PATH=/bin", "A=1", "B=2", "A=3"), ["PATH=/bin", "A=3", "B=2", "HOME=/"]),
        (("HOME=", "A==="), ["HOME=/", "A==="]),
    ):
        assert box.run("/bin/env", env=env)[1].splitlines() == shown
    assert box.run("/bin/env", env=("A=1",), user=NOBODY)[1].splitlines() == ["A=1", "HOME=/somewhere"]
    os.unlink(box.root / "etc/passwd")
    os.mkfifo(box.root / "etc/passwd")  # Nobody writes to it: who opened it would wait for ever.
    assert box.run("/bin/env", env=("A=1",), user=NOBODY)[1].splitlines() == ["A=1", "HOME=/"]


def test_working_directory(box: Box) -> None:
    (box.root / "bin/pwd").symlink_to("busybox")
    (box.root / "private/mine").mkdir(parents=True)
    (box.root / "private").chmod(0o700)
    os.chown(box.root / "private/mine", 5, 6)
    (box.root / "private/mine").chmod(0o700)
    # The user may not enter the directory above its own; root, without any capability, not the user's.
    assert box.run("pwd", cwd="/private/mine", user=NOBODY) == (0, "/private/mine\n")
    assert box.run("pwd", cwd="/made/now") == (0, "/made/now\n")
    with pytest.raises(SampanError, match="not a directory"):
        box.run("pwd", cwd="/bin/busybox")
    (box.root / "link").symlink_to("/proc/self/fd/3")
    with pytest.raises(SampanError):
        box.run("pwd", cwd="/link/x")


def prepared(box: Box) -> None:
    for name, mode, content in (
        ("etc/data", 0o644, "x"), ("etc/script", 0o755, "#!/nope\n"), ("etc/junk", 0o755, "junk"),
        ("bin/roots", 0o700, "#!/bin/sh\n"), ("etc/empty", 0o755, ""),
    ):  # fmt: skip
        (box.root / name).write_text(content)
        (box.root / name).chmod(mode)
    (box.root / "etc/loop").symlink_to("loop")
    (box.root / "private").mkdir(mode=0o700)
    (box.root / "private/id").symlink_to("/bin/busybox")


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("nope", CommandNotFound, 'exec: "nope": executable file not found in $PATH'),
        ("data", CommandNotFound, 'exec: "data": executable file not found in $PATH'),
        ("apps", CommandNotFound, 'exec: "apps": executable file not found in $PATH'),
        ("", CommandNotFound, 'exec: "": executable file not found in $PATH'),
        (".", CommandNotFound, 'exec: ".": executable file not found in $PATH'),
        ('a"\nb', CommandNotFound, 'exec: "a\\"\\nb": executable file not found in $PATH'),
        ("é", CommandNotFound, 'exec: "é": executable file not found in $PATH'),
        ("/nope", CommandNotFound, 'exec: "/nope": stat /nope: no such file or directory'),
        ("./nope", CommandNotFound, 'exec: "./nope": stat ./nope: no such file or directory'),
        ("/bin/busybox/x", CommandNotFound, 'exec: "/bin/busybox/x": stat /bin/busybox/x: not a directory'),
        ("/etc/data", CommandNotExecutable, 'exec: "/etc/data": permission denied'),
        ("/etc", CommandNotExecutable, 'exec: "/etc": is a directory: permission denied'),
        ("/", CommandNotExecutable, 'exec: "/": is a directory: permission denied'),
        ("/etc/loop", CommandNotExecutable, 'exec: "/etc/loop": stat /etc/loop: too many levels of symbolic links'),
        ("roots", CommandNotExecutable, "exec /bin/roots: permission denied"),
        ("/private/id", CommandNotExecutable, 'exec: "/private/id": stat /private/id: permission denied'),
    ],
)
def test_a_program_that_cannot_run(box: Box, program: str, kind: type[SampanError], message: str) -> None:
    prepared(box)
    with pytest.raises(kind) as caught:
        box.run(program, env=("PATH=/bin:/etc:/private",), user=NOBODY)
    assert caught.value.message == message


def test_without_a_path_there_is_nothing(box: Box) -> None:
    for env in ((), ("PATH=",)):
        with pytest.raises(CommandNotFound, match='exec: "id": executable file not found'):
            box.run("id", env=env)
    assert box.run("./id", "-u", cwd="/bin", env=())[1] == "0\n"
    assert box.run("id", "-u", cwd="/bin", env=("PATH=:/nope",))[1] == "0\n"


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("/etc/script", CommandNotFound, "exec /etc/script: no such file or directory"),
        ("/etc/junk", CommandNotExecutable, "exec /etc/junk: exec format error"),
        ("/etc/empty", CommandNotExecutable, "exec /etc/empty: exec format error"),
    ],
)
def test_a_program_that_the_kernel_refuses(box: Box, program: str, kind: type[SampanError], message: str) -> None:
    prepared(box)
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec(program))
    with pytest.raises(kind) as caught:
        container.start()
    assert caught.value.message == message
    os.waitpid(container.pid, 0)
    container.delete()


# --- One more process ---------------------------------------------------------------------------------


@pytest.fixture
def running(box: Box) -> Iterator[Container]:
    """One with much to inherit."""
    kill = ("CAP_KILL",)
    spec = box.spec(
        "sleep", "100", capabilities=Capabilities(bounding=kill, effective=kill, permitted=kill), oom_score_adj=700,
        rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=33, hard=44),), personality=Personality(domain="LINUX32"),
        scheduler=Scheduler(policy="SCHED_BATCH", nice=3), io_priority=IOPriority(class_="IOPRIO_CLASS_IDLE"),
        exec_cpu_affinity=ExecCPUAffinity(initial="8000", final="8000"),  # Not for the first process.
    )  # fmt: skip
    container = Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec)
    container.start()
    yield container
    container.kill(signal.SIGKILL)
    os.waitpid(container.pid, 0)
    container.delete()


def executed(container: Container, script: str, **changes: object) -> tuple[int, str]:
    process = Process(cwd="/", args=("sh", "-c", script), env=("PATH=/bin",))
    reading, writing = os.pipe()
    with os.fdopen(reading) as output:
        try:
            made = container.exec(msgspec.structs.replace(process, **changes), Stdio(None, writing, writing))
        finally:
            os.close(writing)
        os.close(made.pidfd)
        text = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1]), text


def test_what_is_inherited(running: Container) -> None:
    script = f"{STATUS}; ulimit -n; cat /proc/self/oom_score_adj /proc/self/personality; cat /proc/self/stat"
    status, text = executed(running, script)
    assert (status, fields(text)["CapBnd"].lstrip("0")) == (0, "20")
    lines = text.splitlines()
    assert lines[-4:-1] == ["33", "700", "00000008"]
    stat = lines[-1].rpartition(")")[2].split()
    assert (stat[16], stat[38]) == ("3", "3")  # Nice, and SCHED_BATCH.


def test_what_it_says_itself(running: Container) -> None:
    some = Capabilities(bounding=("CAP_CHOWN",))
    limits = (Rlimit(type="RLIMIT_NOFILE", soft=22, hard=22),)
    _, text = executed(
        running, f"{STATUS}; ulimit -n; cat /proc/self/oom_score_adj", capabilities=some, oom_score_adj=800,
        rlimits=limits, user=NOBODY, no_new_privileges=True,
    )  # fmt: skip
    found = fields(text)
    assert [found[name].lstrip("0") for name in ("CapBnd", "NoNewPrivs", "Uid")] == ["1", "1", "5 5 5 5"]
    assert text.split()[-2:] == ["22", "800"]


@pytest.mark.requires("kernel:6.2")  # Before, joining a group forgot them.
def test_processors(running: Container) -> None:
    """The initial ones are what it is born with, the final ones what it has in the cgroup."""
    mine = os.sched_getaffinity(0)
    one, other = str(min(mine)), str(max(mine))
    for initial, final, shown in ((one, "", one), ("", other, other), (one, other, other), ("", "", None)):
        affinity = ExecCPUAffinity(initial=initial, final=final)
        _, text = executed(running, STATUS, exec_cpu_affinity=affinity)
        if shown is not None:
            assert fields(text)["Cpus_allowed_list"] == shown
        assert os.sched_getaffinity(0) == mine
    with pytest.raises(InvalidArgument, match=r"process.execCPUAffinity.initial: invalid argument"):
        executed(running, "true", exec_cpu_affinity=ExecCPUAffinity(initial="8191"))
    with pytest.raises(InvalidArgument, match=r"process.execCPUAffinity.final: invalid argument"):
        executed(running, "true", exec_cpu_affinity=ExecCPUAffinity(final="8191"))
    assert os.sched_getaffinity(0) == mine


# --- Labels -------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.path.exists("/sys/module/apparmor"), reason="AppArmor is there")
def test_a_profile_that_would_not_be_in_force(box: Box) -> None:
    with pytest.raises(Unsupported, match=r"process.apparmorProfile 'docker-default': AppArmor is not enabled"):
        box.run("true", apparmor_profile="docker-default")
    assert box.run("true", apparmor_profile="unconfined")[0] == 0


@pytest.mark.skipif("selinuxfs" in pathlib.Path("/proc/filesystems").read_text(), reason="SELinux is there")
def test_a_label_that_would_not_be_in_force(box: Box) -> None:
    with pytest.raises(Unsupported, match=r"process.selinuxLabel 'a:b:c:s0': SELinux is not enabled"):
        box.run("true", selinux_label="a:b:c:s0")
