"""The commands that make processes: create, run and exec."""

from __future__ import annotations

import contextlib
import os
import socket

import msgspec

from sampan.errors import CommandNotExecutable, CommandNotFound, Conflict, InvalidArgument, SampanError, Unsupported
from sampan.oci.decoding import decode
from sampan.oci.runtime import Capabilities, Process, Spec, User
from sampan.runtime import group
from sampan.runtime.container import Container, Stdio, decode_config, read_config
from sampan.runtime.foreground import Foreground, signals_held
from sampan.runtime.identity import check_id
from sampan.runtime.options import Words
from sampan.runtime.plan import Options

_FIRST_FREE = 3


def carry_out(name: str, root: str, options: Words, given: Words) -> int:
    """The exit status."""
    try:
        if name == "exec":
            return _exec(root, given)
        return _make(name, root, options, given)
    except (CommandNotFound, CommandNotExecutable) as error:
        # In runc's words, which engines look for.
        raise type(error)(f"unable to start container process: {error.message}") from error


def text_of(error: OSError) -> str:
    """An error in a line."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{(error.strerror or str(error)).lower()}"


# --- create, run --------------------------------------------------------------------------------------


def _make(name: str, root: str, options: Words, given: Words) -> int:
    bundle = os.path.abspath(given.text("bundle") or ".")
    content = read_config(bundle)
    spec = decode_config(content, bundle)
    if spec.process is None:
        raise InvalidArgument("config.json: process is missing")
    detached = name == "create" or given.on("detach")
    _check_terminal(spec.process.terminal, detached, given.text("console-socket"))
    preserved, spec = _preserved(given, spec)
    with contextlib.nullcontext() if detached else signals_held():
        container = Container.create(
            given.arguments[0], bundle, root, Stdio(0, 1, 2), spec=spec, content=content,
            window=None if detached else _window(),
            options=Options(
                systemd=options.on("systemd-cgroup"), pivot=not given.on("no-pivot"),
                keyring=not given.on("no-new-keyring"), rootless=_rootless(options.text("rootless", "auto")),
                preserved=preserved, detached=name == "create",
            ),
        )  # fmt: skip
        foreground = None if detached else Foreground(container.master, subreaper=not given.on("no-subreaper"))
    with contextlib.ExitStack() as undo:
        undo.callback(container.delete, force=True)
        if detached:
            _hand_over(container.master, given.text("console-socket"))
        if name == "create":
            _write_pid(given.text("pid-file"), container.pid)
            container.release()
        else:
            container.start()
            _write_pid(given.text("pid-file"), container.pid)
        if foreground is None:
            undo.pop_all()
            return 0
        status = foreground.wait(container.pid, container.pidfd)
        if given.on("keep"):
            undo.pop_all()
    return status


def _window() -> tuple[int, int] | None:
    """The width and height of the terminal that we are in, which a terminal of a process in the foreground has too."""
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return None
    return size.columns, size.lines


def _rootless(word: str) -> bool:
    if word not in ("true", "false", "auto"):
        raise InvalidArgument(f"--rootless: {word!r} is not true, false or auto")
    return group.ordinary() if word == "auto" else word == "true"


def _check_terminal(terminal: bool, detached: bool, console_socket: str) -> None:
    if detached and terminal and not console_socket:
        raise InvalidArgument("cannot allocate tty if runtime will detach without setting console socket")
    if console_socket and not (detached and terminal):
        raise InvalidArgument("cannot use console socket if runtime will not detach or allocate tty")


def _preserved(given: Words, spec: Spec) -> tuple[int, Spec]:
    """How many descriptors are passed on, those of socket activation among them (sd_listen_fds(3))."""
    count = _count(given)
    listened = os.environ.get("LISTEN_FDS", "")
    if not (listened.isascii() and listened.isdigit() and len(listened) < 5):
        return count, spec
    assert spec.process is not None
    env = (*spec.process.env, f"LISTEN_FDS={listened}", "LISTEN_PID=1")
    process = msgspec.structs.replace(spec.process, env=env)
    return count + int(listened), msgspec.structs.replace(spec, process=process)


def _count(given: Words) -> int:
    count = given.number("preserve-fds")
    if count < 0:
        raise InvalidArgument(f"--preserve-fds: {count} is not a number of descriptors")
    for descriptor in range(_FIRST_FREE, _FIRST_FREE + count):
        try:
            os.fstat(descriptor)
        except OSError:
            raise InvalidArgument(f"--preserve-fds: descriptor {descriptor} is not open") from None
    return count


def _hand_over(master: int | None, path: str) -> None:
    """Send a terminal's master to who listens at `path`, and close it here."""
    if master is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(path)
            socket.send_fds(connection, [b"/dev/ptmx"], [master])
        except OSError as error:
            raise InvalidArgument(f"console socket {path}: {(error.strerror or str(error)).lower()}") from error
        finally:
            os.close(master)


def _write_pid(path: str, pid: int) -> None:
    """Whole or not at all: who waits for the file reads a number."""
    if not path:
        return
    directory, name = os.path.split(os.path.abspath(path))
    temporary = f"{directory}/.{name}.{os.getpid()}"
    with open(temporary, "x", encoding="ascii") as file:
        file.write(str(pid))
    os.rename(temporary, path)


# --- exec ---------------------------------------------------------------------------------------------


def _exec(root: str, given: Words) -> int:
    container = Container.load(given.arguments[0], root)
    status = container.status
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if status == "paused" and not given.on("ignore-paused"):
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    if given.text("cgroup"):
        raise Unsupported("exec --cgroup is not supported")
    process = _process(container, given)
    detached = given.on("detach")
    _check_terminal(process.terminal, detached, given.text("console-socket"))
    with contextlib.nullcontext() if detached else signals_held():
        made = container.exec(process, Stdio(0, 1, 2), window=None if detached else _window(), preserved=_count(given))
        try:
            if detached:
                _hand_over(made.master, given.text("console-socket"))
            _write_pid(given.text("pid-file"), made.pid)
        except (SampanError, OSError):
            made.end()
            raise
        foreground = None if detached else Foreground(made.master, subreaper=False)
    return foreground.wait(made.pid, made.pidfd) if foreground else 0


def _process(container: Container, given: Words) -> Process:
    path = given.text("process")
    if path:
        try:
            with open(path, "rb") as file:
                return decode(file.read(), Process)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f"{path}: {error}") from error
    args = tuple(given.arguments[1:])
    if not args:
        raise InvalidArgument("process args cannot be empty")
    own = container.process
    if own is None:
        raise InvalidArgument(f"container {container.id} has no process to take after")
    capabilities = own.capabilities
    if given.many("cap"):
        capabilities = _with(capabilities or Capabilities(), tuple(given.many("cap")))
    return msgspec.structs.replace(
        own, args=args, terminal=given.on("tty"), cwd=given.text("cwd") or own.cwd,
        env=(*own.env, *given.many("env")), user=_user(own.user, given), capabilities=capabilities,
        no_new_privileges=own.no_new_privileges or given.on("no-new-privs"),
        apparmor_profile=given.text("apparmor") or own.apparmor_profile,
        selinux_label=given.text("process-label") or own.selinux_label,
        console_size=own.console_size if given.on("tty") else None,
    )  # fmt: skip


def _with(sets: Capabilities, more: tuple[str, ...]) -> Capabilities:
    """In all sets but the inheritable one, which would hand them to every program executed later (CVE-2022-29162)."""
    return msgspec.structs.replace(
        sets, bounding=(*sets.bounding, *more), effective=(*sets.effective, *more), permitted=(*sets.permitted, *more)
    )


def _user(own: User, given: Words) -> User:
    text = given.text("user")
    if text:
        uid, separator, gid = text.partition(":")
        own = User(uid=_id(uid, "user"), gid=_id(gid, "user") if separator else own.gid)
    groups = tuple(_id(each, "additional-gids") for each in given.many("additional-gids"))
    return msgspec.structs.replace(own, additional_gids=(*own.additional_gids, *groups))


def _id(text: str, option: str) -> int:
    # Bounded and strict: what is cut or half read could become 0, and so root.
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise InvalidArgument(f"--{option}: {text!r} is not an id")
    return check_id(int(text), f"--{option}")
