"""Attacks by user ids and capabilities that are not what they seem."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import msgspec
import pytest

from sampan.linux import namespaces
from sampan.oci.runtime import Capabilities, Process, User
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.test_container import Box
from tests.privileged.security.attacks import Command, attempt, inside, say

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

_NONE = "0" * 16
_KILL = f"{1 << 5:016x}"


def _held(status: str) -> dict[str, str]:
    lines = (line.split(":\t") for line in status.splitlines())
    return {line[0]: line[1] for line in lines if len(line) == 2 and line[0].startswith("Cap")}


@contextlib.contextmanager
def _running(box: Box) -> Iterator[Container]:
    container = Container.create(
        box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("sleep", "1000")
    )  # fmt: skip
    try:
        container.start()
        yield container
    finally:
        container.kill(signal.SIGKILL)
        os.waitpid(container.pid, 0)
        container.delete()


def _exec(container: Container, process: Process) -> str:
    reading, writing = os.pipe()
    try:
        made = container.exec(process, Stdio(None, writing, writing))
    finally:
        os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    os.waitpid(made.pid, 0)
    os.close(made.pidfd)
    return text


def _status(uid: int = 0) -> Process:
    return Process(cwd="/", args=("cat", "/proc/self/status"), env=("PATH=/bin",), user=User(uid=uid))


@pytest.mark.parametrize("uid", [0, 7])
def test_cve_2022_27650_and_2022_29162_an_exec_inherits_nothing(box: Box, uid: int) -> None:
    """Inheritable capabilities reach a program whose file has them as inheritable ones, whoever executes it. crun exec
    gave them to every process."""
    with _running(box) as container:
        held = _held(_exec(container, _status(uid)))
    assert held == {
        "CapInh": _NONE, "CapAmb": _NONE, "CapBnd": _KILL, "CapPrm": _NONE if uid else _KILL,
        "CapEff": _NONE if uid else _KILL,
    }  # fmt: skip


def test_cve_2022_29162_an_exec_with_one_more(box: Box) -> None:
    """`runc exec --cap` added it to the inheritable set too."""
    command = Command(box)
    more = f"{1 << 5 | 1 << 13:016x}"
    with command.running(box.spec("sleep", "1000")):
        done = command("exec", "--cap", "CAP_NET_RAW", box.id, "cat", "/proc/self/status")
        held = _held(done.stdout)
        assert (held["CapInh"], held["CapAmb"], held["CapPrm"], held["CapBnd"]) == (_NONE, _NONE, more, more)
        wanted = msgspec.json.encode(_status())
        (box.bundle / "process").write_bytes(wanted)
        done = command("exec", "--process", str(box.bundle / "process"), box.id)
        assert _held(done.stdout)["CapInh"] == _NONE


def test_cve_2024_40635_and_2026_30892_an_exec_as_a_user(box: Box) -> None:
    """`crun exec --user 1` ran as root. And a number that does not fit must not become root's."""
    command = Command(box)
    script = "id -u; id -g"
    with command.running(box.spec("sleep", "1000")):

        def ids(user: str) -> list[str]:
            done = command("exec", "--user", user, box.id, "sh", "-c", script)
            assert done.returncode == 0, done.stderr
            return done.stdout.split()

        assert ids("1") == ["1", "0"]
        assert ids("0") == ["0", "0"]
        assert ids("1:2") == ["1", "2"]
        assert ids("4294967294:4294967294") == ["4294967294", "4294967294"]
        for bad in (
            "4294967296", "4294967295", "18446744073709551616", "-1", "+1", " 1", "1 ", "0x1", "1e3", ":", "1:",
            ":1", "1:2:3", "1:-1", "1:4294967296", "root", "\u0661", "9" * 5000,
        ):  # fmt: skip
            done = command("exec", f"--user={bad}", box.id, "sh", "-c", script)
            assert (done.returncode, done.stdout) == (255, ""), bad
            assert "not an id" in done.stderr
            assert len(done.stderr.splitlines()) == 1
        for bad in ("-1", "4294967296", "x"):
            done = command("exec", f"--additional-gids={bad}", box.id, "sh", "-c", script)
            assert (done.returncode, done.stdout) == (255, "")


@pytest.mark.parametrize(
    "user", [User(uid=1 << 32), User(uid=-1), User(gid=1 << 32), User(additional_gids=(1 << 32,)), User(gid=-2)]
)
def test_cve_2024_40635_in_the_documents_of_an_exec(box: Box, user: User) -> None:
    command = Command(box)
    with command.running(box.spec("sleep", "1000")):
        (box.bundle / "process").write_bytes(msgspec.json.encode(msgspec.structs.replace(_status(), user=user)))
        done = command("exec", "--process", str(box.bundle / "process"), box.id)
        assert (done.returncode, done.stdout) == (255, "")
        assert "not an id" in done.stderr


def test_a_container_that_moves_into_mounts_of_its_own_before_an_exec(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 makes a user namespace, and in it mounts of its own: a /proc that lies. An exec follows it into the
    mounts, though not into the user namespace: what it may do must not hang on what it reads there."""
    (box.root / "fake/self/attr").mkdir(parents=True)
    (box.root / "fake/self/status").write_text("SigIgn:\t0\nCapBnd:\t0\n")
    for name in ("oom_score_adj", "attr/exec", "attr/keycreate"):
        (box.root / "fake/self" / name).write_text("untouched")
    (box.root / "real").mkdir()
    for name in ("fake", "fake/self", "fake/self/attr"):
        (box.root / name).chmod(0o777)

    from sampan.linux import mount
    from sampan.runtime import init

    def move(*_: object) -> None:
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        mount.mount("/proc", "/real", flags=mount.MS_BIND | mount.MS_REC)
        mount.mount("/fake", "/proc", flags=mount.MS_BIND)
        os.execve("/bin/sleep", ["sleep", "100"], {})

    with monkeypatch.context() as patch:
        patch.setattr(init, "_execute", move)
        container = Container.create(
            box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("true", masked_paths=(), readonly_paths=())
        )
        container.start()
    try:
        process = msgspec.structs.replace(_status(), args=("cat", "/real/self/status"), oom_score_adj=500)
        held = _held(_exec(container, process))
        assert (held["CapBnd"], held["CapPrm"], held["CapEff"], held["CapInh"]) == (_KILL, _KILL, _KILL, _NONE)
        adjusted = msgspec.structs.replace(process, args=("cat", "/real/self/oom_score_adj"))
        assert _exec(container, adjusted) == "500\n"
        for name in ("oom_score_adj", "attr/exec", "attr/keycreate"):
            assert (box.root / "fake/self" / name).read_text() == "untouched"
    finally:
        container.kill(signal.SIGKILL)
        os.waitpid(container.pid, 0)
        container.delete()


def test_nothing_can_be_regained(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """From inside, as the process is when its program begins: what was given up can't be had again."""

    def regain() -> None:
        from sampan.linux import capabilities

        everything = (1 << 40) - 1
        attempt("setresuid", lambda: os.setresuid(0, 0, 0))
        attempt("capset", lambda: capabilities.set_sets(everything, everything, 0))
        attempt("setgroups", lambda: os.setgroups([0]))
        say(oct(capabilities.effective()))

    none = Capabilities()
    text = inside(box, monkeypatch, regain, user=User(uid=7, gid=7), capabilities=none)
    assert text.splitlines() == [
        "setresuid: refused: Operation not permitted", "capset: refused: Operation not permitted",
        "setgroups: refused: Operation not permitted", "0o0",
    ]  # fmt: skip
