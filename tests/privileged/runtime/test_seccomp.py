"""System call filters in force, and the agents that decide about calls."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sampan.errors import Internal, InvalidArgument
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import OCI_VERSION, IDMapping, Namespace, Process, Seccomp, Syscall, SyscallArg, User
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.test_container import Box

pytestmark = [
    pytest.mark.requires("root", "overlay", "seccomp", "program:busybox"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are x86_64's"),
]

MKDIR = 83
AFTER_THE_FILTER = ("capset", "prctl", "read", "close", "execve", "brk", "mmap", "munmap")


@pytest.fixture
def box(tmp_path: pathlib.Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    if os.path.exists(made.state_root):
        assert made.left() == []
    Cgroup("/sampan-test").delete()


def permissive(*names: str, action: str = "SCMP_ACT_ERRNO", **more: object) -> Seccomp:
    rule = Syscall(names=names, action=action, errno_ret=more.pop("errno_ret", None))  # type: ignore[arg-type]
    return Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule,), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
@pytest.mark.parametrize("privileges", [False, True])
def test_a_forbidden_call_ends_the_process(box: Box, action: str, privileges: bool) -> None:
    profile = permissive("mkdir", action=f"SCMP_ACT_{action}")
    status, _ = box.run("mkdir", "/x", seccomp=profile, no_new_privileges=privileges)
    assert status == -signal.SIGSYS
    assert not (box.root / "x").exists()


@pytest.mark.parametrize(
    ("action", "value", "output"),
    [
        ("ERRNO", None, "Operation not permitted"), ("ERRNO", 39, "Directory not empty"), ("ERRNO", 0, ""),
        ("TRACE", None, "Function not implemented"), ("LOG", None, ""),
    ],
)  # fmt: skip
def test_a_call_that_fails(box: Box, action: str, value: int | None, output: str) -> None:
    status, text = box.run("mkdir", "/x", seccomp=permissive("mkdir", action=f"SCMP_ACT_{action}", errno_ret=value))
    assert (output in text, status) == (True, 1 if output else 0)
    assert (box.root / "x").exists() == (action == "LOG")


def test_arguments_are_compared(box: Box) -> None:
    conditions = tuple(SyscallArg(index=1, value=each, op="SCMP_CMP_EQ") for each in (0, signal.SIGUSR1))
    rule = Syscall(names=("kill",), action="SCMP_ACT_ERRNO", errno_ret=5, args=conditions)
    profile = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(rule,))
    _, text = box.run("sh", "-c", "kill -0 1; kill -USR1 1; kill -CONT 1 && echo went", seccomp=profile)
    assert text.count("Input/output error") == 2
    assert text.endswith("went\n")


def test_calls_newer_than_the_profile_do_not_exist(box: Box) -> None:
    # busybox's `sh` lives on calls up to 334; statx (332) is on the list, so that 435 is newer than it knows.
    probe = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall({}, 0, 0); print(ctypes.get_errno())"
    profile = Seccomp(
        default_action="SCMP_ACT_ERRNO", architectures=("SCMP_ARCH_X86_64",),
        syscalls=(Syscall(names=tuple(everything_until("statx")), action="SCMP_ACT_ALLOW"),),
    )  # fmt: skip
    mounts = (*box.spec().mounts, *python_mounts())
    for number, error in ((0x1FF, "38"), (165, "1")):  # None that there is; mount(2)
        _, text = box.run(sys.executable, "-ISc", probe.format(number), seccomp=profile, mounts=mounts)
        assert text.strip() == error


@pytest.mark.parametrize("privileges", [False, True])
def test_what_a_profile_must_allow(box: Box, privileges: bool) -> None:
    """Only what the program itself needs, and the few calls between the loading of the filter and its execve."""
    busybox = (
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "getrandom",
        "prctl",
    )
    runtime = ("execve", "write", "read", *(() if privileges else ("capset",)))
    names = (*busybox, *runtime, "brk", "mmap", "munmap", "mprotect", "getuid", "exit_group")
    profile = Seccomp(
        default_action="SCMP_ACT_KILL_PROCESS", syscalls=(Syscall(names=names, action="SCMP_ACT_ALLOW"),)
    )  # fmt: skip
    assert box.run("true", seccomp=profile, no_new_privileges=privileges)[0] == 0


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (permissive("mkdir", architectures=("SCMP_ARCH_MIPS",)), "linux.seccomp: architecture SCMP_ARCH_MIPS"),
        (permissive("mkdir", action="SCMP_ACT_FOO"), "linux.seccomp: unknown action 'SCMP_ACT_FOO'"),
        (permissive("mkdir", flags=("FOO",)), "linux.seccomp: unknown flag 'FOO'"),
    ],
)
def test_a_profile_that_makes_no_sense(box: Box, profile: Seccomp, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        box.run("true", seccomp=profile)


def test_flags_are_the_kernels(box: Box) -> None:
    flags = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW"))
    assert "not permitted" in box.run("mkdir", "/x", seccomp=permissive("mkdir", flags=flags))[1]


# --- Agents -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def agent(path: pathlib.Path, *answers: str) -> Iterator[subprocess.Popen[str]]:
    script = pathlib.Path(__file__).parent / "agent.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(path), *answers], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert said(running) == "ready"
        yield running
        running.communicate(timeout=10)
        assert running.returncode == 0


def said(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


@pytest.mark.parametrize("privileges", [False, True])
def test_an_agent_answers(box: Box, short_dir: pathlib.Path, privileges: bool) -> None:
    path = short_dir / "agent"
    profile = permissive(
        "mkdir", action="SCMP_ACT_NOTIFY", listener_path=str(path), listener_metadata='of "mine"',
        flags=("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"),
    )  # fmt: skip
    with agent(path, f"{MKDIR}=39") as running:
        status, text = box.run(
            "sh", "-c", "mkdir /x; touch /y", seccomp=profile, no_new_privileges=privileges, annotations={"a": "b"}
        )
        told = json.loads(said(running))
        pid, number = map(int, said(running).split())
    assert (status, "Directory not empty" in text) == (0, True)
    assert (box.root / "y").exists()
    state = told.pop("state")
    assert told == {"ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": state["pid"], "metadata": 'of "mine"'}
    assert (state["id"], state["status"], state["bundle"]) == (box.id, "creating", str(box.bundle))
    assert state["annotations"] == {"a": "b"}
    assert pid > state["pid"] > 1
    assert number == MKDIR


@pytest.mark.parametrize("privileges", [False, True])
@pytest.mark.parametrize("sendmsg", [(), ("sendmsg", "sendto")])
def test_an_agent_of_the_runtimes_own_calls(
    box: Box, short_dir: pathlib.Path, privileges: bool, sendmsg: tuple[str, ...]
) -> None:
    """It has its listener before the first of them waits for it."""
    path = short_dir / "agent"
    profile = permissive(*AFTER_THE_FILTER, *sendmsg, action="SCMP_ACT_NOTIFY", listener_path=str(path))
    with agent(path):
        status, text = box.run("sh", "-c", "id -u; exit 4", seccomp=profile, no_new_privileges=privileges)
    assert (status, text) == (4, "0\n")


def test_an_agent_of_a_program_that_is_not_there(box: Box, short_dir: pathlib.Path) -> None:
    """Also what fails goes on by the agent's leave."""
    path = short_dir / "agent"
    profile = permissive("execve", "exit_group", action="SCMP_ACT_NOTIFY", listener_path=str(path))
    (box.root / "bin/junk").write_text("junk")
    (box.root / "bin/junk").chmod(0o755)
    with agent(path), pytest.raises(InvalidArgument, match="exec format error"):
        box.run("junk", seccomp=profile)
    os.waitpid(-1, 0)
    Container.load(box.id, box.state_root).delete(force=True)


def test_an_agent_of_a_user_namespace(box: Box, short_dir: pathlib.Path) -> None:
    path = short_dir / "agent"
    kinds = ("mount", "pid", "network", "ipc", "uts", "user")
    profile = permissive("mkdir", action="SCMP_ACT_NOTIFY", listener_path=str(path))
    for each in (box.root, box.root / "bin"):
        os.chown(each, 100000, 100000)
    with agent(path, f"{MKDIR}=39"):
        maps = (IDMapping(container_id=0, host_id=100000, size=65536),)
        _, text = box.run(
            "mkdir", "/x", seccomp=profile, namespaces=tuple(Namespace(type=each) for each in kinds), uid_mappings=maps,
            gid_mappings=maps, mounts=box.spec().mounts[:1],
        )  # fmt: skip
    assert "Directory not empty" in text


def test_an_agent_of_another_process_in_the_container(box: Box, short_dir: pathlib.Path) -> None:
    path = short_dir / "agent"
    profile = permissive("mkdir", action="SCMP_ACT_NOTIFY", listener_path=str(path), listener_metadata="m")
    with agent(path, f"{MKDIR}=39") as running:
        container = Container.create(
            box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("sleep", "100", seccomp=profile)
        )
        try:
            container.start()
            first = json.loads(said(running))
            wanted = Process(cwd="/", args=("mkdir", "/x"), env=("PATH=/bin",), user=User(uid=3, gid=3))
            process = container.exec(wanted, Stdio())
            second = json.loads(said(running))
            assert os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1]) == 1
            assert said(running) == f"{process.pid} {MKDIR}"
            os.close(process.pidfd)
            assert (first["pid"], first["state"]["status"]) == (container.pid, "creating")
            assert (second["pid"], second["metadata"]) == (process.pid, "m")
            assert (second["state"]["pid"], second["state"]["status"]) == (container.pid, "running")
        finally:
            container.kill(signal.SIGKILL)
            os.waitpid(container.pid, 0)
            container.delete()


def test_an_agent_that_ended(box: Box, short_dir: pathlib.Path) -> None:
    """Nobody but it holds the listener: calls fail, and wait for nothing."""
    path = short_dir / "agent"
    profile = permissive("mkdir", action="SCMP_ACT_NOTIFY", listener_path=str(path))
    reading, writing = os.pipe()
    with agent(path):
        container = Container.create(
            box.id, str(box.bundle), box.state_root, Stdio(None, writing, writing),
            spec=box.spec("mkdir", "/x", seccomp=profile),
        )  # fmt: skip
    container.start()
    os.close(writing)
    with os.fdopen(reading) as output:
        assert "Function not implemented" in output.read()
    os.waitpid(container.pid, 0)
    container.delete()


def test_no_agent(box: Box, short_dir: pathlib.Path) -> None:
    path = short_dir / "agent"
    profile = permissive("mkdir", action="SCMP_ACT_NOTIFY", listener_path=str(path))
    with pytest.raises(Internal, match=r"the agent at .*/agent: no such file or directory"):
        box.run("true", seccomp=profile)


# --- Helpers ------------------------------------------------------------------------------------------


def everything_until(last: str) -> list[str]:
    """The names of x86_64's calls up to one, without mount."""
    import ctypes

    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    numbers = range(library.seccomp_syscall_resolve_name(last.encode()) + 1)
    names = (library.seccomp_syscall_resolve_num_arch(0xC000003E, number) for number in numbers)
    return [name.decode() for name in names if name and name != b"mount"]


def python_mounts() -> tuple[object, ...]:
    """This interpreter and its libraries, read-only."""
    from sampan.oci.runtime import Mount

    places = {"/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix}
    return tuple(
        Mount(destination=place, type="bind", source=os.path.realpath(place), options=("rbind", "ro"))
        for place in sorted(places)
        if os.path.exists(place)
    )
