"""Attacks by descriptors of the host's that the runtime's caller happened to have open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import signal
import termios
from collections.abc import Iterator

import pytest

from sampan.errors import SampanError
from sampan.linux.capabilities import NAMES
from sampan.oci.runtime import Capabilities, Process
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.test_container import Box
from tests.privileged.security.attacks import Command, attempt, inside

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

_SECRET = "secret-of-the-host"


@pytest.fixture
def held(tmp_path: pathlib.Path) -> Iterator[list[int]]:
    """A directory of the host's, open many times and inheritable, as a careless caller's may be."""
    directory = tmp_path / "of-the-host"
    directory.mkdir()
    (directory / _SECRET).touch()
    first = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    numbers = [first, *(os.dup(first) for _ in range(10))]
    for number in numbers:
        os.set_inheritable(number, True)
    yield numbers
    for number in numbers:
        os.close(number)


def _outcome(box: Box, way: str, cwd: str, stdin: int | None) -> str:
    """What `ls` shows of the working directory and what is above it; or why there was no process."""
    script = "ls . .. ../..; ls -l /proc/self/fd"
    reading, writing = os.pipe()
    with os.fdopen(reading) as output, contextlib.ExitStack() as undo:
        undo.callback(os.close, writing)
        sleeping = way == "exec"
        arguments = ("sleep", "100") if sleeping else ("sh", "-c", script)
        spec = box.spec(*arguments, cwd="/" if sleeping else cwd)
        try:
            # The output's end must not be held by who sleeps.
            stdio = Stdio() if sleeping else Stdio(stdin, writing, writing)
            container = Container.create(box.id, str(box.bundle), box.state_root, stdio, spec=spec)
        except SampanError as error:
            return error.message
        try:
            container.start()
            if sleeping:
                wanted = Process(cwd=cwd, args=("sh", "-c", script), env=("PATH=/bin",))
                try:
                    made = container.exec(wanted, Stdio(stdin, writing, writing))
                except SampanError as error:
                    return error.message
                os.close(made.pidfd)
            undo.pop_all().close()
            text = output.read()
            if sleeping:
                os.waitpid(made.pid, 0)
            return text
        finally:
            if sleeping:
                container.kill(signal.SIGKILL)
            os.waitpid(container.pid, 0)
            container.delete()


@pytest.mark.parametrize("way", ["create", "exec"])
@pytest.mark.parametrize("by", ["descriptor", "link", "parent", "standard input"])
def test_cve_2024_21626_a_working_directory_by_a_descriptor(box: Box, held: list[int], way: str, by: str) -> None:
    """/proc/self/fd/N leads to whatever is open there, also out of the container."""
    numbers = [0] if by == "standard input" else held
    for number in numbers:
        cwd = {"link": f"/link{number}", "parent": f"/proc/self/fd/{number}/.."}.get(by, f"/proc/self/fd/{number}")
        if by == "link":
            (box.root / f"link{number}").symlink_to(f"/proc/self/fd/{number}")
        said = _outcome(box, way, cwd, held[0] if by == "standard input" else None)
        assert _SECRET not in said
        assert "of-the-host" not in said
        if by == "standard input" and way == "exec":
            assert "outside of the container's root" in said


@pytest.mark.parametrize("way", ["create", "exec"])
def test_cve_2016_9962_nothing_that_is_open_is_passed_on(box: Box, held: list[int], way: str) -> None:
    said = _outcome(box, way, "/", None)
    shown = [line.split(" -> ")[1] for line in said.splitlines() if " -> " in line]
    assert len(shown) == 3
    assert "of-the-host" not in said


def test_cve_2024_21626_by_the_command(box: Box, tmp_path: pathlib.Path) -> None:
    """Whatever number: the command line opens descriptors of its own, such as the state directory's."""
    (tmp_path / _SECRET).touch()
    command = Command(box)
    script = f"ls . .. ../.. | busybox grep -e {_SECRET} -e state.json -e lost+found; exit 0"
    for number in range(3, 12):
        done = command.run(box.spec("sh", "-c", script, cwd=f"/proc/self/fd/{number}"))
        assert done.stdout == ""
        assert done.returncode == 0 or "cwd" in done.stderr or "directory" in done.stderr
    with command.running(box.spec("sleep", "100")):
        for number in range(3, 12):
            done = command("exec", "--cwd", f"/proc/self/fd/{number}", box.id, "sh", "-c", script)
            assert done.stdout == ""
            assert done.returncode == 0 or "cwd" in done.stderr


def test_cve_2017_5226_nothing_is_typed_into_the_callers_terminal(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was given the caller's terminal as its input: what it pushes into it, the caller's shell would
    read. With all capabilities but the one that allows it to anybody."""
    names = tuple(name for name in NAMES if name != "CAP_SYS_ADMIN")

    def push() -> None:
        attempt("push", lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"))
        attempt("take", lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        attempt("steal", lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 1))
        attempt("open", lambda: os.open("/proc/self/fd/0", os.O_RDWR))
        attempt("push again", lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"))

    master, slave = os.openpty()
    reading, writing = os.pipe()
    caller = os.fork()  # Who sits at the terminal.
    if caller == 0:
        try:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            box.stdin = slave
            held = Capabilities(bounding=names, effective=names, permitted=names)
            os.write(writing, inside(box, monkeypatch, push, capabilities=held).encode())
        finally:
            os._exit(0)
    for descriptor in (slave, writing):
        os.close(descriptor)
    with os.fdopen(reading) as output:
        said = dict(line.split(": ", 1) for line in output.read().splitlines())
    os.waitpid(caller, 0)
    os.close(master)
    assert said["open"].startswith("done")
    assert all(outcome.startswith("refused") for step, outcome in said.items() if step != "open"), said
