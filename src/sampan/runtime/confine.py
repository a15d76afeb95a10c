"""What a process may do and who it is, set in the process itself before its execve; and the program to execute."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping

import msgspec

from sampan.errors import CommandNotExecutable, CommandNotFound, InvalidArgument, Unsupported
from sampan.linux import capabilities
from sampan.linux import process as linux_process
from sampan.oci.runtime import Capabilities, Process, Rlimit, User
from sampan.runtime import identity, scheduling, seccomp
from sampan.runtime.process import Confinement, quoted

_NULL = os.makedev(1, 3)
_MOST_USERS = 1 << 20
"""Bytes that are read of /etc/passwd."""


class Program(msgspec.Struct, frozen=True):
    """What execve takes."""

    path: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


def confine(process: Process, around: Confinement, code: bytes, connection: socket.socket) -> Program:
    """Limits, identity, capabilities and the system call filter, in the order in which each is allowed. `code`: the
    compiled filter.

    Returns the program, looked up as the user that it will run as. Raises CommandNotFound and its siblings.

    What the filter forbids fails from there on. It is loaded as late as can be: what follows is capset and prctl
    (without `noNewPrivileges`, as loading takes a capability then), write, read, close and execve.
    """
    scheduling.apply(process)
    if around.personality is not None:
        _set_personality(around.personality)
    _own_streams(process.user.uid)
    wanted = process.capabilities or Capabilities()
    capabilities.drop_bounding(capabilities.mask(wanted.bounding))
    entered = _enter_directory(process.cwd)
    held = _become(process.user)
    effective, permitted, inheritable, ambient = (
        capabilities.mask(names) & held
        for names in (wanted.effective, wanted.permitted, wanted.inheritable, wanted.ambient)
    )
    # What is looked up now is looked up with the program's own rights.
    capabilities.set_sets(effective, held, 0)
    if not entered:
        _enter_directory(process.cwd, last=True)
    _check_directory()
    env = environment(process)
    found = Program(find_program(process.args[0], env), process.args, env)
    capabilities.set_sets(held, held, 0)
    for limit in process.rlimits:
        _set_limit(limit)
    filtered = around.seccomp
    if filtered is not None and not process.no_new_privileges:
        seccomp.load(filtered, code, connection)
    _set_capabilities(effective, permitted, inheritable, ambient)
    if process.no_new_privileges:
        linux_process.set_no_new_privs()
        if filtered is not None:
            seccomp.load(filtered, code, connection)
    return found


def _set_personality(persona: int) -> None:
    try:
        linux_process.set_personality(persona)
    except OSError as error:
        raise Unsupported(f"linux.personality: {(error.strerror or '').lower()}") from error


def _own_streams(uid: int) -> None:
    """Give standard input, output and error to the user, who may want to open /dev/stdout. As runc does; where it can't
    be done, it is left."""
    for descriptor in range(3):
        found = os.fstat(descriptor)
        if found.st_uid != uid and not (stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL):
            with contextlib.suppress(OSError):
                os.fchown(descriptor, uid, -1)


def _become(user: User) -> int:
    """The user; returns the capabilities that are left to choose from."""
    linux_process.prctl(linux_process.PR_SET_KEEPCAPS, 1)
    identity.set_groups(user.additional_gids)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    linux_process.prctl(linux_process.PR_SET_KEEPCAPS, 0)
    linux_process.hide()
    os.umask(0o022 if user.umask is None else user.umask & 0o777)
    return capabilities.permitted()


def _set_capabilities(effective: int, permitted: int, inheritable: int, ambient: int) -> None:
    try:
        capabilities.set_sets(effective, permitted, inheritable)
    except OSError as error:
        raise InvalidArgument(
            f"process.capabilities: unable to apply caps: {(error.strerror or '').lower()}"
        ) from error
    capabilities.set_ambient(ambient)


def _set_limit(limit: Rlimit) -> None:
    try:
        linux_process.set_limit(limit.type, limit.soft, limit.hard)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidArgument(f"error setting rlimit {limit.type}: {reason.lower()}") from error


def _enter_directory(path: str, last: bool = False) -> bool:
    """Before the process becomes the user, as its directory may be in one that only root enters; and if that fails for
    lack of permission, once more as the user, whose volume root may have no access to. The `last` time it must be."""
    try:
        os.chdir(path)
    except OSError as error:
        if error.errno == errno.EACCES and not last:
            return False
        raise InvalidArgument(
            f"chdir to cwd ({quoted(path)}) set in config.json failed: {(error.strerror or '').lower()}"
        ) from error
    return True


def _check_directory() -> None:
    """getcwd(2) tells what lies outside of the root, such as a leaked descriptor's directory (CVE-2024-21626)."""
    try:
        if not os.getcwd().startswith("/"):
            raise FileNotFoundError
    except FileNotFoundError:
        raise InvalidArgument("process.cwd: the current working directory is outside of the container's root") from None


def environment(process: Process) -> dict[str, str]:
    """The last value of a name counts; HOME is the user's if nothing sets it."""
    found: dict[str, str] = {}
    for entry in process.env:
        name, _, value = entry.partition("=")
        found[name] = value
    if not found.get("HOME"):
        found["HOME"] = _home(process.user.uid)
    return found


def _home(uid: int) -> str:
    """Of the container's own /etc/passwd, which may be anything: a fifo is not waited for, a huge file not read."""
    wanted = b"%d" % uid
    try:
        descriptor = os.open("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, _MOST_USERS) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        finally:
            os.close(descriptor)
    except OSError:
        return "/"
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted and b"\0" not in fields[5]:
            return os.fsdecode(fields[5]) or "/"
    return "/"


def find_program(name: str, env: Mapping[str, str]) -> str:
    """The path that execve takes: `name` itself if it has a slash, or else what PATH leads to.

    Raises CommandNotFound and CommandNotExecutable with runc's words, which Docker's clients match on. As there, PATH
    has no default, and what it leads to counts if anybody can execute it.
    """
    if "/" in name:
        number, reason = _problem(name)
        if number:
            kind = CommandNotFound if number in (errno.ENOENT, errno.ENOTDIR) else CommandNotExecutable
            raise kind(f"exec: {quoted(name)}: {reason}")
        found = name
    else:
        places = env.get("PATH", "").split(":") if name and env.get("PATH") else ()
        paths = (f"{directory or '.'}/{name}" for directory in places)
        found = next((path for path in paths if not _problem(path)[0]), "")
        if not found:
            raise CommandNotFound(f"exec: {quoted(name)}: executable file not found in $PATH")
    if not os.access(found, os.X_OK, effective_ids=True):
        raise CommandNotExecutable(f"exec {_shown(found)}: permission denied")
    return found


def _shown(path: str) -> str:
    return path if path.isprintable() else quoted(path)


def _problem(path: str) -> tuple[int, str]:
    """Why nobody could execute the file; 0 if nothing is seen."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno or errno.EIO, f"stat {_shown(path)}: {(error.strerror or '').lower()}"
    if stat.S_ISDIR(mode):
        # dockerd 20.10 and its command know only the second half as a reason for the exit code 126.
        return errno.EISDIR, "is a directory: permission denied"
    return (0, "") if mode & 0o111 else (errno.EACCES, "permission denied")
