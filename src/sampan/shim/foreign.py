"""A container that another OCI runtime runs: runc, crun, or whatever takes runc's command line. Driven as containerd's
shim does it: each step is one run of the command, and the container's processes become children of this process, which
is a subreaper, when the command ends. ::

    shim                      CMD --root R --log F --log-format json …
      │ ── create ───────────▶ │ ── clone ──────────▶ the container's process
      │ ◀── terminal (socket) ─┼───────────────────── │
      │ ◀── pid file, exit 0 ─ │                      │ (now a child of the shim)
      │ ── start ────────────▶ │ ───────────────────▶ │ execve

While the command runs this process does nothing else; one that does not end in time is killed. What went wrong is the
last record of level error in the command's log.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import signal as signals
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import CommandNotExecutable, CommandNotFound, Internal, NotFound, SampanError, Unsupported
from sampan.linux import mount, process, terminal
from sampan.linux.cgroup import Cgroup, group_of
from sampan.oci.runtime import LinuxResources, Process
from sampan.runtime.container import ExecProcess, Stdio, load_spec
from sampan.shimapi.messages import CleanUp, Create

if TYPE_CHECKING:
    from sampan.linux.cgroup.counters import Counters

_PATIENCE = 120.0
"""Seconds that a command has: `create` may pull up a virtual machine, and runs the hooks."""
_TERMINAL_PATIENCE = 5.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST = 4096


class _Record(msgspec.Struct, frozen=True):
    """A line of the log, in logrus's words."""

    level: str = ""
    msg: str = ""


_records = msgspec.json.Decoder(_Record)


class Command:
    """A runtime's command for one container. `directory`: where the files of a call lie."""

    def __init__(self, command: Sequence[str], root: str, directory: str, container_id: str) -> None:
        self.id = container_id
        self.directory = directory
        self._log = f"{directory}/runtime.log"
        self._words = [*command, "--root", root, "--log", self._log, "--log-format", "json"]

    def run(self, *words: str, last: str = "", stdio: Stdio | None = None, stdin: bytes = b"") -> bytes:
        """Run it with the container's id as the last word (but for `last`), and return what it prints. `stdio`: the
        container's, which it inherits; then nothing is returned. Raises the error that it logs."""
        with contextlib.ExitStack() as opened:
            files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
            for each in files:
                opened.callback(os.close, each)
            os.pwrite(files[0], stdin, 0)
            given = list(files)
            if stdio is not None:
                null = _null()
                opened.callback(os.close, null)
                given = [
                    null if each is None else each for each in (stdio.stdin, stdio.stdout, stdio.stderr)
                ]  # fmt: skip
            # With a terminal the runtime's own words would be lost.
            given[2] = files[2] if stdio is not None and stdio.stderr is None else given[2]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._log)
            status = self._ended([*self._words, *words, self.id, *([last] if last else [])], given)
            if status:
                text = self._logged() or _last_line(given[2]) or _silent(status)
                raise failure(text)
            return os.pread(files[1], os.fstat(files[1]).st_size, 0)

    def _ended(self, words: list[str], files: list[int]) -> int:
        """The exit status, when it has ended."""
        name = f"runtime {words[0]}"
        try:
            pid = _spawn(words, files)
        except OSError as error:
            raise Internal(f"{name}: {(error.strerror or str(error)).lower()}") from error
        ended = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            in_time = poll.poll(_PATIENCE * 1000)
            if not in_time:
                os.kill(pid, signals.SIGKILL)
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(ended)
        if not in_time:
            raise Internal(f"{name} did not end within {_PATIENCE:g} seconds")
        return os.waitstatus_to_exitcode(status)

    def _logged(self) -> str:
        """What the log says last at level error."""
        message = ""
        with contextlib.suppress(FileNotFoundError), open(self._log, "rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    record = _records.decode(line)
                    message = record.msg if record.level in ("error", "fatal") else message
        return message


def _silent(status: int) -> str:
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return f"the runtime failed without a word: {how}"


def _spawn(words: list[str], files: list[int]) -> int:
    """A child that executes words[0] with the three files; it is killed if this process is. OSError if that fails.

    By fork, as glibc's posix_spawn lets the program ignore signals 32 and 33, and with it the container's processes.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with open(reader, "rb") as reading:
        pid = os.fork()
        if pid == 0:
            try:
                process.prctl(process.PR_SET_PDEATHSIG, signals.SIGKILL)
                for number in process.ignored_signals():
                    signals.signal(number, signals.SIG_DFL)
                for number, each in enumerate(files):
                    os.dup2(each, number)
                os.execve(words[0], words, {"PATH": _PATH, "LANG": "C.UTF-8"})
            except OSError as error:
                os.write(writer, str(error.errno or errno.EIO).encode())
            finally:
                os._exit(127)
        os.close(writer)
        failed = reading.read()
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _null() -> int:
    """/dev/null by a read-only mount of its own: a runtime may give the container's user what it takes for its streams
    (crun 1.8 does), and this is the host's."""
    tree = mount.open_tree("/dev/null")
    try:
        mount.mount_setattr(tree, attributes=mount.MOUNT_ATTR_RDONLY)
        return os.open(f"/proc/self/fd/{tree}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(tree)


def _last_line(descriptor: int) -> str:
    """What was written to a descriptor at last: a file's, or a pipe's that nobody has read from yet."""
    with contextlib.suppress(OSError):
        # Opened once more: a pipe's writing end is not for reading, and a file's position is at its end.
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            lines = os.read(again, 1 << 16).decode("utf-8", "replace").splitlines()
        finally:
            os.close(again)
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def failure(text: str) -> SampanError:
    """A runtime's message as one of our kinds, by the words that Docker's engine goes by too."""
    text = " ".join(text.split())[:_LONGEST]
    # crun ends in strerror's words, which the docker command looks for in lower case.
    head, colon, tail = text.rpartition(": ")
    if colon and tail[:1].isupper() and not tail[1:2].isupper():
        text = f"{head}: {tail[0].lower()}{tail[1:]}"
    # crun's words for a program that is no file; the docker command goes by the others.
    text = text.replace("open executable: operation not permitted", "open executable: permission denied")
    folded = text.lower()
    if ("executable file" in folded and "not found" in folded) or "no such file or directory" in folded:
        return CommandNotFound(text)
    if any(each in folded for each in ("permission denied", "is a directory", "exec format error")):
        return CommandNotExecutable(text)
    return Internal(text)


class ForeignContainer:
    """A container of another runtime's; see `runtimes.RunningContainer`."""

    def __init__(self, command: Command, bundle: str) -> None:
        self.pid = 0
        self.master: int | None = None
        self._command = command
        self._bundle = bundle
        self._group: Cgroup | None = None

    @classmethod
    def create(cls, create: Create, stdio: Stdio, window: tuple[int, int] | None) -> ForeignContainer:
        """Have it made, up to the execve of its program. Raises what the runtime says; then nothing is left."""
        os.makedirs(create.state_root, mode=0o700, exist_ok=True)
        container = cls(Command(create.runtime, create.state_root, create.run_dir, create.id), create.bundle)
        try:
            container.pid, container.master = container._born(
                "create", "--bundle", create.bundle, stdio=stdio, console=create.terminal, window=window
            )
            container._group = group_of(container.pid)
        except BaseException:
            if container.master is not None:
                os.close(container.master)
            with contextlib.suppress(SampanError):
                container.delete(force=True)
            raise
        return container

    def _born(self, *words: str, stdio: Stdio, console: bool, window: tuple[int, int] | None) -> tuple[int, int | None]:
        """Run what makes a process. Its pid, and its terminal."""
        pid_file, path = f"{self._command.directory}/runtime.pid", f"{self._command.directory}/pty.sock"
        with contextlib.ExitStack() as used:
            used.callback(_unlink, pid_file)
            options = ["--pid-file", pid_file]
            listener: socket.socket | None = None
            if console:
                listener = used.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
                used.callback(_unlink, path)
                _unlink(path)
                listener.bind(path)
                listener.listen(1)
                options += ["--console-socket", path]
            self._command.run(*words, *options, stdio=stdio)
            master = _received(listener) if listener is not None else None
            try:
                if master is not None and window is not None:
                    terminal.set_size(master, *window)
                with open(pid_file, encoding="ascii") as file:
                    return int(file.read()), master
            except (OSError, ValueError) as error:
                if master is not None:
                    os.close(master)
                raise Internal(f"the runtime wrote no pid file: {error}") from error

    def start(self) -> None:
        """Execute the program."""
        try:
            self._command.run("start")
        except SampanError:
            # The process still waits, and is ours: nobody has reaped it.
            os.kill(self.pid, signals.SIGKILL)
            raise

    def exec(self, wanted: Process, stdio: Stdio, window: tuple[int, int] | None = None) -> ExecProcess:
        """Run one more process, at once. Without capabilities of its own it has the container's."""
        if wanted.capabilities is None:
            own = load_spec(self._bundle).process
            wanted = msgspec.structs.replace(wanted, capabilities=own.capabilities if own else None)
        path = f"{self._command.directory}/exec.json"
        try:
            with open(path, "wb") as file:
                file.write(msgspec.json.encode(wanted))
            pid, master = self._born(
                "exec", "--process", path, "--detach", stdio=stdio, console=wanted.terminal, window=window
            )
        finally:
            _unlink(path)
        return ExecProcess(pid, os.pidfd_open(pid), master)

    def kill(self, signal: int, all: bool = False) -> None:  # noqa: A002 - the runtime specification's word
        """Signal the first process, or all. NotFound when there is none."""
        try:
            self._command.run("kill", *(("--all",) if all else ()), last=str(signal))
        except SampanError as error:
            if any(each in error.message.lower() for each in _GONE):
                raise NotFound(f"container {self._command.id} is not running") from None
            raise
        if signal == signals.SIGKILL and self._group is not None and self._group.frozen():
            # v1's frozen processes die only when they are thawed, which crun leaves to others.
            with contextlib.suppress(OSError):
                self._group.freeze(False)

    def pause(self) -> None:
        """Freeze every process."""
        self._command.run("pause")

    def resume(self) -> None:
        """Thaw them."""
        self._command.run("resume")

    def update(self, resources: LinuxResources) -> None:
        """Change the limits; what is not given stays."""
        self._command.run("update", "--resources", "-", stdin=msgspec.json.encode(resources))

    def pids(self) -> list[int]:
        """All processes, by their ids in this process's namespace."""
        text = self._command.run("ps", "--format", "json")
        try:
            return msgspec.json.decode(text, type=list[int])
        except msgspec.DecodeError as error:
            raise Internal(f"the runtime's list of processes: {error}") from error

    def stats(self) -> Counters:
        """The counters of the control group that its process is in."""
        if self._group is None:
            raise Unsupported("stats: the container has no control group of its own")
        return self._group.counters()

    def oom_count(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        return 0 if self._group is None else self._group.oom_kills()

    def reset(self) -> None:
        """Kill whoever is left in the group."""
        if self._group is not None:
            try:
                self._group.kill()
            except OSError as error:
                raise Internal(f"{self._group.path}: {(error.strerror or str(error)).lower()}") from error

    def delete(self, force: bool = False) -> None:
        """Remove what is left of it."""
        self._command.run("delete", *(("--force",) if force else ()))


def clean_up(request: CleanUp) -> None:
    """Remove what a runtime keeps of a container whose shim was killed. Raises what the runtime says."""
    Command(request.runtime, request.state_root, request.run_dir, request.id).run("delete", "--force")


_GONE = ("not running", "already finished", "no such process", "does not exist")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _received(listener: socket.socket) -> int:
    """The terminal that the runtime has sent: it was sent before the command ended."""
    listener.settimeout(_TERMINAL_PATIENCE)
    found: list[int] = []
    try:
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found += array.array("i", data[: len(data) & ~3])
    except OSError as error:
        raise Internal(f"the runtime sent no terminal: {error}") from error
    if len(found) != 1:
        for each in found:
            os.close(each)
        raise Internal("the runtime sent no terminal")
    return found[0]
