"""`run`: create, start, wait and delete in one; and the flags that it has in common with `create`."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios

import pytest

from tests.contract.box import FOREVER, Box, wait_for
from tests.contract.terminal import Console, Screen, set_size

TERMINAL = {"terminal": True}


def test_streams_and_status(box: Box) -> None:
    box.configure("sh", "-c", "cat; echo to stderr >&2; exit 3")
    outcome = box.call("run", box.id, input=b"to stdin\n")
    assert (outcome.status, outcome.out, outcome.err) == (3, "to stdin\n", "to stderr\n")
    assert box.left() == []


def test_nothing_on_stdin(box: Box) -> None:
    box.configure("cat")
    assert box.call("run", box.id).succeeded().out == ""


def test_the_bundle_is_the_current_directory_or_named(box: Box) -> None:
    box.configure("true")
    box.call("run", box.id).succeeded()
    for flag in ("-b", "--bundle"):
        box.call("run", flag, "../bundle", box.id).succeeded()
        box.call("run", f"{flag}={box.bundle}" if flag == "--bundle" else f"{flag}{box.bundle}", box.id)
    box.call("create", "--bundle", "../bundle", box.id).succeeded()
    assert box.state()["bundle"] == str(box.bundle)


def test_ended_by_a_signal(box: Box) -> None:
    running = box.spawn("run", box.id)
    wait_for(lambda: box.call("state", box.id).status == 0 and box.status == "running")
    box.kill("KILL")
    assert running.wait().status == 128 + signal.SIGKILL
    assert box.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_to_the_runtime_are_passed_on(box: Box, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    box.configure("sh", "-c", f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.01; done")
    running = box.spawn("run", box.id)
    running.until("ready")
    running.process.send_signal(number)
    assert running.wait().status == 9
    assert running.out == f"ready\ngot {name}\n"


def test_signals_that_come_at_once(box: Box) -> None:
    """The program itself sends them to its parent, the runtime, by its first instructions."""
    kinds = [{"type": each} for each in ("network", "ipc", "uts", "mount")]
    script = ("sh", "-c", "trap 'exit 9' TERM; kill $PPID; while :; do sleep 0.01; done")
    box.configure(*script, linux={"namespaces": kinds})
    for _ in range(3):
        assert box.call("run", box.id).status == 9
    box.launch(*FOREVER, linux={"namespaces": kinds})
    for _ in range(3):
        assert box.call("exec", box.id, *script).status == 9


@pytest.mark.parametrize("flags", [[], ["--no-subreaper"]], ids=["subreaper", "none"])
def test_orphans_of_the_container(box: Box, flags: list[str]) -> None:
    """Without a pid namespace they are the runtime's to reap while it waits; the status is the first process's."""
    kinds = [{"type": each} for each in ("network", "ipc", "uts", "mount")]
    box.configure("sh", "-c", "sh -c 'sleep 0.05 & exit 7'; sleep 0.15; exit 3", linux={"namespaces": kinds})
    assert box.call("run", *flags, box.id).status == 3
    assert box.nothing_left()


def test_detached(box: Box) -> None:
    outcome = box.call("run", "--detach", "--pid-file", "../pid", box.id).succeeded()
    assert outcome.out + outcome.err == ""
    pid = int((box.directory / "pid").read_text())
    assert box.state() | {"status": "running", "pid": pid} == box.state()
    assert box.end(pid) == -signal.SIGKILL
    assert box.status == "stopped"
    box.call("delete", box.id).succeeded()


def test_detached_and_ended(box: Box) -> None:
    """It ends by itself, and its status is its parent's to collect."""
    box.configure("sh", "-c", "exit 5")
    box.call("run", "-d", "--pid-file", "../pid", box.id).succeeded()
    assert box.reap(int((box.directory / "pid").read_text())) == 5
    assert box.status == "stopped"


@pytest.mark.parametrize("command", ["create", "run"])
def test_the_pid_file(box: Box, command: str) -> None:
    """The number and nothing else: conmon reads it so."""
    path = box.directory / "there/pid"
    flags = ["--detach"] if command == "run" else []
    box.call(command, *flags, "--pid-file", str(path), box.id).refused("no such file or directory", crun="No such file")
    assert box.nothing_left()
    path.parent.mkdir()
    path.write_text("12345678 old")
    box.call(command, *flags, "--pid-file", str(path), box.id).succeeded()
    assert path.read_text() == str(box.state()["pid"])


def test_kept(box: Box) -> None:
    box.configure("sh", "-c", "exit 4")
    outcome = box.call("run", "--keep", box.id)
    if box.runtime.differs("no-keep"):
        outcome.refused("", crun="unrecognized option '--keep'", crun_status=64)
        return
    assert outcome.status == 4
    assert box.state() | {"status": "stopped", "pid": 0} == box.state()
    box.call("delete", box.id).succeeded()


# --- Descriptors --------------------------------------------------------------------------------------


SHOW = "ls /proc/self/fd | wc -l; cat <&3; cat <&4"


def _with_descriptors(box: Box, *flags: str, prefix: str = "", command: str = "run") -> str:
    """What the container shows of its descriptors, of which the runtime has 3 and 4."""
    first, second = box.directory / "three", box.directory / "four"
    first.write_text("three\n")
    second.write_text("four\n")
    shell = f'{prefix} exec "$@" 3<{first} 4<{second}'
    outcome = box.call(command, *flags, box.id, prefix=("sh", "-c", shell, "sh"))
    return outcome.succeeded().out


def test_descriptors_that_are_passed_on(box: Box) -> None:
    box.configure("sh", "-c", SHOW + "; exit 0")
    # Three, and the one that ls itself has open.
    assert _with_descriptors(box) == "4\n"
    assert _with_descriptors(box, "--preserve-fds", "1") == "5\nthree\n"
    assert _with_descriptors(box, "--preserve-fds=2") == "6\nthree\nfour\n"


def test_descriptors_of_socket_activation(box: Box) -> None:
    """sd_listen_fds(3): they are meant for the process LISTEN_PID; then the container's first process gets them."""
    box.configure("sh", "-c", SHOW + "; echo $LISTEN_FDS; exit 0")
    shown = _with_descriptors(box, prefix="export LISTEN_FDS=1 LISTEN_PID=$$;")
    assert shown == "5\nthree\n" + ("\n" if box.runtime.differs("listen-pid-alone") else "1\n")


def test_descriptors_that_are_not_there(box: Box) -> None:
    outcome = box.call("create", "--preserve-fds", "5", box.id)
    if box.runtime.differs("missing-descriptors"):
        outcome.succeeded()
    else:
        outcome.refused("preserve", crun="")


# --- The change of root, and the keyring --------------------------------------------------------------


def test_without_pivot_root(box: Box) -> None:
    """Where the root is a ramdisk: the root is moved over the old one, and changed to."""
    box.configure("sh", "-c", "ls /; ls -d /host/bundle; ls /..; umask")
    for flags in ((), ("--no-pivot",)):
        lines = box.call("run", *flags, box.id).succeeded().out.split()
        names = ["bin", "dev", "etc", "host", "proc", "sys", "tmp"]
        assert lines == [*names, "/host/bundle", *names, "0022"]


def test_the_session_keyring(box: Box) -> None:
    """New, unless asked otherwise: what a container can reach of keyrings would be the caller's."""
    box.id = f"keys{os.getpid()}"
    box.configure("cat", "/proc/keys")
    named = f"_ses.{box.id}:"
    shown = box.call("run", box.id).succeeded().out
    assert (box.id + ":" if box.runtime.differs("keyring-name") else named) in shown
    box.id = f"none{os.getpid()}"
    assert box.id not in box.call("run", "--no-new-keyring", box.id).succeeded().out


# --- Terminals ----------------------------------------------------------------------------------------


def test_a_terminal_in_the_foreground(box: Box) -> None:
    """The caller's terminal is made raw and bytes are copied, both ways; the size is taken over, also later."""
    script = "tty; stty size; read line; echo got $line; stty size; exit 7"
    if box.runtime.differs("late-size"):
        # busybox's stty succeeds without a word where there is no size yet.
        script = script.replace(
            "stty size;", 'while size=$(stty size 2>&-); [ -z "$size" ]; do :; done; echo $size;', 1
        )
    box.configure("sh", "-c", script, process=TERMINAL)
    sizes = [b"33 111\r\n", b"44 122\r\n"]
    if box.runtime.differs("no-size"):
        sizes = [b"stty: standard input"] * 2
    master, slave = pty.openpty()
    screen = Screen(master)
    set_size(slave, 33, 111)
    settings = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [*box.runtime.argv(str(box.bundle)), "--root", str(box.state_root), "run", box.id], cwd=box.bundle,
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    try:
        assert screen.until(sizes[0]).startswith(b"/dev/pts/0\r\n")
        set_size(slave, 44, 122)
        process.send_signal(signal.SIGWINCH)
        screen.type(b"hello\n")
        shown = screen.until(b"got hello\r\n")
        assert shown.count(b"hello\r\n") == 2  # The terminal's echo and the program's: the caller's own is off.
        screen.until(sizes[1])
        assert process.wait(10) == 7
        assert termios.tcgetattr(slave) == settings
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def test_a_terminal_for_someone_else(box: Box) -> None:
    """The master goes over a unix socket to who holds the other end: a shim, or conmon."""
    script = "trap 'exit 6' INT; tty; stty size; while read line; do echo $line; done"
    box.configure("sh", "-c", script, process={"terminal": True, "consoleSize": {"height": 22, "width": 99}})
    with Console(box) as console:
        box.create("--console-socket", console.path)
        pid = box.pid
        screen = Screen(console.receive())
        box.start()
        assert screen.until(b"22 99\r\n").startswith(b"/dev/pts/0\r\n")
        screen.type(b"there\n")
        screen.until(b"there\r\nthere\r\n")
        screen.type(b"\x03")  # It is the controlling terminal: the interrupt key is a signal.
        assert box.reap(pid) == 6
        os.close(screen.master)


@pytest.mark.parametrize("command", [("create",), ("run", "--detach")], ids=lambda command: command[0])
def test_a_terminal_needs_a_socket(box: Box, command: tuple[str, ...]) -> None:
    box.configure(*FOREVER, process=TERMINAL)
    says = "cannot allocate tty if"
    box.call(*command, box.id).refused(says, crun="use --console-socket with")
    assert box.nothing_left()


def test_a_socket_needs_a_terminal(box: Box) -> None:
    outcome = box.call("create", "--console-socket", "/nope", box.id)
    outcome.refused("cannot use console socket if", crun="connect socket to `/nope`")
    assert box.nothing_left()


def test_a_socket_that_is_not_there(box: Box) -> None:
    box.configure(*FOREVER, process=TERMINAL)
    box.call("create", "--console-socket", "/nope", box.id).refused("no such file or directory", crun="No such file")
    assert box.nothing_left()
