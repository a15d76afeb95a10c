"""What config.json says of a process, checked before anything is made. runtime-spec config.md, "Process"."""

from __future__ import annotations

import msgspec

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.capabilities import NUMBERS
from sampan.linux.process import RLIMITS
from sampan.linux.seccomp import profile
from sampan.oci.runtime import Capabilities, Linux, Personality, Process, Rlimit, Seccomp, User
from sampan.runtime import log, scheduling
from sampan.runtime.identity import check_id

_PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}
_INHERITED = (
    "capabilities", "rlimits", "apparmor_profile", "selinux_label", "oom_score_adj", "scheduler", "io_priority",
)  # fmt: skip
_LIMIT = 1 << 64
_CELLS = 1 << 16
"""A terminal's rows and columns have 16 bits."""


def checked_process(process: Process) -> Process:
    """The process, if it can be one. Raises InvalidArgument, Unsupported."""
    if not process.args:
        raise InvalidArgument("process.args must not be empty")
    if not process.cwd:
        raise InvalidArgument("process.cwd must not be empty")
    if not process.cwd.startswith("/"):
        raise InvalidArgument(f"process.cwd {process.cwd!r} is not an absolute path")
    for word in (*process.args, process.cwd, process.apparmor_profile, process.selinux_label):
        if "\0" in word:
            raise InvalidArgument("process: embedded null byte")
    for entry in process.env:
        _check_variable(entry)
    _check_user(process.user)
    if process.console_size is not None:
        for cells in (process.console_size.height, process.console_size.width):
            if not 0 <= cells < _CELLS:
                raise InvalidArgument(f"process.consoleSize: {cells} is not between 0 and {_CELLS - 1}")
    if process.capabilities is not None:
        _check_capabilities(process.capabilities)
    _check_limits(process.rlimits)
    if process.oom_score_adj is not None and not -1000 <= process.oom_score_adj <= 1000:
        raise InvalidArgument(f"process.oomScoreAdj {process.oom_score_adj} is not between -1000 and 1000")
    scheduling.check(process)
    return process


def quoted(text: str) -> str:
    """In double quotes and on one line, as Go's %q."""
    return msgspec.json.encode(text).decode()


def inherited(wanted: Process, first: Process) -> Process:
    """The process to be executed in a container besides its `first`: what it does not say of its own confinement is as
    there, as in runc. (`noNewPrivileges` it always says.)"""
    missing = {name: getattr(first, name) for name in _INHERITED if getattr(wanted, name) in (None, "", ())}
    return msgspec.structs.replace(wanted, **missing)


def warn_of(process: Process) -> None:
    """What is left out of it."""
    if process.capabilities is not None:
        sets = (getattr(process.capabilities, name) for name in process.capabilities.__struct_fields__)
        unknown = {name for names in sets for name in names}.difference(NUMBERS)
        if unknown:
            names = quoted(" ".join(sorted(unknown)))[1:-1]
            log.warning(f"ignoring unknown or unavailable capabilities: [{names}]")


def _check_variable(entry: str) -> None:
    """As runc's: what is no `name=value` is refused, not left out."""
    name, separator, _ = entry.partition("=")
    if "\0" in entry:
        raise InvalidArgument(f"process.env: embedded null byte: {quoted(entry)}")
    if not separator:
        raise InvalidArgument(f"invalid environment variable: {quoted(entry)}")
    if not name:
        raise InvalidArgument(f"environment variable name can't be empty: {quoted(entry)}")


def _check_user(user: User) -> None:
    for what, number in (("uid", user.uid), ("gid", user.gid)):
        check_id(number, f"process.user.{what}")
    for number in user.additional_gids:
        check_id(number, "process.user.additionalGids")
    if user.umask is not None and not 0 <= user.umask < 1 << 32:
        raise InvalidArgument(f"process.user.umask {user.umask} is out of range")


def _check_capabilities(wanted: Capabilities) -> None:
    """Names that do not exist are no error: they may be a newer kernel's, and runc only warns of them."""
    lacking = {name for name in wanted.effective if name in NUMBERS}.difference(wanted.permitted)
    if lacking:
        raise InvalidArgument(f"process.capabilities: {min(lacking)} is in effective and not in permitted")


def _check_limits(limits: tuple[Rlimit, ...]) -> None:
    seen: set[str] = set()
    for limit in limits:
        if limit.type not in RLIMITS:
            raise InvalidArgument(f"process.rlimits: unknown type {limit.type!r}")
        if limit.type in seen:
            raise InvalidArgument(f"process.rlimits: {limit.type} is given twice")
        seen.add(limit.type)
        if not (0 <= limit.soft < _LIMIT and 0 <= limit.hard < _LIMIT):
            raise InvalidArgument(f"process.rlimits: {limit.type} is out of range")
        if limit.soft > limit.hard:
            raise InvalidArgument(
                f"process.rlimits: {limit.type}: the soft limit {limit.soft} is above the hard limit {limit.hard}"
            )


class Confinement(msgspec.Struct, frozen=True):
    """What the container says of every process in it. `personality`: personality(2)'s; None: it stays."""

    seccomp: Seccomp | None = None
    personality: int | None = None


def confinement(linux: Linux) -> Confinement:
    """Raises InvalidArgument, Unsupported."""
    if linux.seccomp is not None:
        try:
            profile.check(linux.seccomp)
        except ValueError as error:
            raise InvalidArgument(f"linux.seccomp: {error}") from error
    return Confinement(linux.seccomp, _personality(linux.personality))


def _personality(wanted: Personality | None) -> int | None:
    if wanted is None:
        return None
    if wanted.domain not in _PERSONALITIES:
        raise InvalidArgument(f"linux.personality: unknown domain {wanted.domain!r}")
    if wanted.flags:
        raise Unsupported(
            f"linux.personality: flag {wanted.flags[0]!r} is not supported"
        )  # The specification has none.
    return _PERSONALITIES[wanted.domain]
