"""What a process is made of besides its memory: prctl(2), pidfds, groups, keyrings, scheduling."""

from __future__ import annotations

import ctypes
import os
import resource
import select

from sampan.linux.libc import check, libc, syscall

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_KEYCTL_JOIN_SESSION_KEYRING = 1
_LAST_DESCRIPTOR = 0x7FFFFFFF

RLIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")} | {
    "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}  # fmt: skip
"""Resource numbers by the kernel's names."""

_INFINITY = (1 << 64) - 1


def prctl(option: int, first: int = 0, second: int = 0, third: int = 0, fourth: int = 0) -> int:
    """prctl(2) with whole numbers."""
    return check(libc.prctl(option, first, second, third, fourth), "prctl")


def _argument_area() -> tuple[int, int]:
    """Where the command line lies in this process's memory (proc_pid_stat(5): arg_start, arg_end), before and after a
    fork; nowhere, if /proc does not say."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return 0, 0


_ARGUMENTS = _argument_area()
"""Read now: later, the /proc at hand may be a container's."""
TITLE_ROOM = " " * 2048
"""An argument to give to a process that will need room for its title."""


def set_name(name: str, title: str = "") -> None:
    """What `ps` shows as this process's command (15 bytes at most), and as its command line: `title`, as much as there
    is room for where the command line was, or `name`."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))
    start, end = _ARGUMENTS
    room = end - start
    if start and room > 1:
        # Where the area does not end in a zero, the kernel shows what stands there up to the first one.
        text = (title or name).encode("utf-8", "surrogateescape")[: room - 2]
        ctypes.memmove(start, text.ljust(room - 1, b"\0") + b"\1", room)


def hide() -> None:
    """Close this process, until its execve, to those that are in its namespaces: they could otherwise take what it has
    of the host by ptrace or /proc (CVE-2016-9962). To be done again after a change of user, for which fs.suid_dumpable
    decides."""
    prctl(PR_SET_DUMPABLE, 0)


def become_subreaper() -> None:
    """Orphans below this process become its children, instead of those of pid 1."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privs() -> None:
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on: one close_range(2), or, before Linux 5.9, one after the other."""
    os.closerange(first, _LAST_DESCRIPTOR)


def close_all_but(*kept: int) -> None:
    """Close every descriptor from 3 on that is not among these."""
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    close_from(first)


def ignored_signals() -> list[int]:
    """The numbers of the signals that this process ignores, as its /proc/self/status has them."""
    with open("/proc/self/status", "rb") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith(b"SigIgn:"))
    return [number for number in range(1, 65) if mask >> number - 1 & 1]


def send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2); ProcessLookupError when it has ended."""
    syscall("pidfd_send_signal", pidfd, signal, None, 0)


def ended(pidfd: int, timeout: float) -> bool:
    """Wait for so many seconds at most until the process has ended; it may still have to be reaped."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def join_session_keyring(name: str) -> None:
    """keyctl(2): a session keyring of its own, so that the host's keys are not seen."""
    syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, name.encode())


def set_personality(persona: int) -> None:
    """personality(2)."""
    check(libc.personality(persona), "personality")


def set_limit(name: str, soft: int, hard: int) -> None:
    """setrlimit(2) for this process, by the kernel's name; 2**64 - 1 is no limit.

    Never above the hard limit that the process has: raising it takes CAP_SYS_RESOURCE, which the host may lack
    itself. KeyError for an unknown name.
    """
    number = RLIMITS[name]
    soft, hard = (resource.RLIM_INFINITY if value >= _INFINITY else value for value in (soft, hard))
    try:
        resource.setrlimit(number, (soft, hard))
    except ValueError:
        present = resource.getrlimit(number)[1]
        resource.setrlimit(number, (_lowered(soft, present), _lowered(hard, present)))


def _lowered(value: int, limit: int) -> int:
    if limit == resource.RLIM_INFINITY:
        return value
    return limit if value == resource.RLIM_INFINITY else min(value, limit)


def borrow_descriptor(pidfd: int, number: int) -> int:
    """pidfd_getfd(2): a copy of another process's descriptor, close-on-exec.

    PermissionError without the right to trace it.
    """
    return syscall("pidfd_getfd", pidfd, number, 0)
