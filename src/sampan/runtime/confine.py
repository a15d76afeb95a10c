"""What a process may do and who it is, set in the process itself before its execve; and the program to execute."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping

from sampan.errors import CommandNotExecutable, CommandNotFound, Internal, InvalidArgument
from sampan.linux import capabilities, seccomp
from sampan.linux import process as linux_process
from sampan.oci.runtime import Capabilities, Process
from sampan.runtime import identity, scheduling

_NULL = os.makedev(1, 3)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_USERS = 1 << 20
"""Bytes that are read of /etc/passwd."""


def confine(process: Process, filter_program: bytes, flags: tuple[str, ...]) -> str:
    """Limits, identity, capabilities and the system call filter (empty: none), in the order in which each is allowed.

    Returns the program's path, looked up as the user that it will run as. Raises CommandNotFound and its siblings.
    """
    if process.scheduler is not None or process.io_priority is not None:
        scheduling.apply(process)
    for limit in process.rlimits:
        try:
            linux_process.set_limit(limit.type, limit.soft, limit.hard)
        except KeyError:
            raise InvalidArgument(f"unknown resource limit {limit.type!r}") from None
        except (OSError, ValueError) as error:
            raise Internal(f"error setting rlimit {limit.type}: {error}") from error
    # Loading a filter takes CAP_SYS_ADMIN, or the promise never to gain privileges.
    if filter_program and not process.no_new_privileges:
        seccomp.load(filter_program, flags)
    present = capabilities.bounding()
    wanted = process.capabilities or Capabilities()
    if process.capabilities is not None:
        capabilities.drop_bounding(capabilities.mask(wanted.bounding), present)
    linux_process.prctl(linux_process.PR_SET_KEEPCAPS, 1)
    user = process.user
    _own_streams(user.uid)
    identity.set_groups(user.additional_gids)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    linux_process.prctl(linux_process.PR_SET_KEEPCAPS, 0)
    if process.capabilities is not None:
        effective, permitted, inheritable, ambient = (
            capabilities.mask(names) & present
            for names in (wanted.effective, wanted.permitted, wanted.inheritable, wanted.ambient)
        )
        capabilities.set_sets(effective & permitted, permitted, inheritable)
        capabilities.set_ambient(ambient)
    if process.no_new_privileges:
        linux_process.set_no_new_privs()
        if filter_program:
            seccomp.load(filter_program, flags)
    os.umask(0o022 if user.umask is None else user.umask)
    try:
        os.chdir(process.cwd)
    except OSError as error:
        raise InvalidArgument(
            f"chdir to cwd ({process.cwd!r}) set in config.json failed: {(error.strerror or '').lower()}"
        ) from error
    # getcwd(2) tells what lies outside of the root, such as a leaked descriptor's directory (CVE-2024-21626).
    try:
        if not os.getcwd().startswith("/"):
            raise FileNotFoundError
    except FileNotFoundError:
        raise InvalidArgument("process.cwd: the current working directory is outside of the container's root") from None
    return find_program(process.args[0], environment(process))


def _own_streams(uid: int) -> None:
    """Standard streams belong to the user, who can open /dev/stdout then, as with runc. Not so /dev/null, which is
    everybody's."""
    for number in range(3):
        found = os.fstat(number)
        if found.st_uid != uid and not (stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL):
            with contextlib.suppress(OSError):
                os.fchown(number, uid, -1)


def environment(process: Process) -> dict[str, str]:
    """The last value of a name counts; HOME is the user's if nothing sets it."""
    found: dict[str, str] = {}
    for entry in process.env:
        name, separator, value = entry.partition("=")
        if separator and name:
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

    Raises CommandNotFound and CommandNotExecutable with the words that Docker's clients match on.
    """
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        if problem in (errno.ENOENT, errno.ENOTDIR):
            raise CommandNotFound(f'exec: "{name}": stat {name}: {os.strerror(problem).lower()}')
        raise CommandNotExecutable(f'exec: "{name}": {_reason(problem)}')
    denied = 0
    for directory in (env.get("PATH") or DEFAULT_PATH).split(":"):
        path = f"{directory or '.'}/{name}"
        problem = _problem(path)
        if problem is None:
            return path
        if problem == errno.EACCES:
            denied = problem
    if denied:
        raise CommandNotExecutable(f'exec: "{name}": permission denied')
    raise CommandNotFound(f'exec: "{name}": executable file not found in $PATH')


def _problem(path: str) -> int | None:
    """Why execve would refuse the file; None if nothing is seen."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return errno.EISDIR
        return None if os.access(path, os.X_OK, effective_ids=True) else errno.EACCES
    except OSError as error:
        return error.errno


def _reason(number: int) -> str:
    return "is a directory" if number == errno.EISDIR else os.strerror(number).lower()
