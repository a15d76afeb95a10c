"""Namespaces and new processes: clone3(2), unshare(2), setns(2)."""

from __future__ import annotations

import ctypes
import os
import signal

from sampan.linux.libc import NUMBERS, check, libc

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x200000000

FLAGS = {
    "time": CLONE_NEWTIME, "mount": CLONE_NEWNS, "cgroup": CLONE_NEWCGROUP, "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC, "user": CLONE_NEWUSER, "pid": CLONE_NEWPID, "network": CLONE_NEWNET,
}  # fmt: skip
"""By the OCI runtime specification's names."""

PROC_NAMES = {
    "time": "time", "mount": "mnt", "cgroup": "cgroup", "uts": "uts", "ipc": "ipc", "user": "user", "pid": "pid",
    "network": "net",
}  # fmt: skip
"""The names under /proc/PID/ns."""


class _CloneArguments(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    )  # fmt: skip


# Called with the interpreter's lock held, which CDLL would release: the child would wait for it for ever.
_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long
_before_fork = _python.PyOS_BeforeFork
_after_in_child = _python.PyOS_AfterFork_Child
_after_in_parent = _python.PyOS_AfterFork_Parent
for _hook in (_before_fork, _after_in_child, _after_in_parent):
    _hook.restype = None
    _hook.argtypes = ()


def clone(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork with clone3(2): (pid, pidfd) in the parent, (0, -1) in the child. The caller has a single thread.

    `flags`: CLONE_NEW*, CLONE_PARENT. `cgroup`: a descriptor of the cgroup v2 directory that the child is born in.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments(
        flags=flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        # With CLONE_PARENT the signal is the one of the caller's own birth, and another is refused.
        exit_signal=0 if flags & CLONE_PARENT else signal.SIGCHLD,
        cgroup=cgroup or 0,
    )
    number, size = ctypes.c_long(NUMBERS["clone3"]), ctypes.c_long(ctypes.sizeof(arguments))
    reference = ctypes.byref(arguments)
    _before_fork()
    pid = int(_python.syscall(number, reference, size))
    if pid == 0:
        _after_in_child()
        return 0, -1
    _after_in_parent()
    check(pid, "clone3")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int = 0) -> None:
    """setns(2): join the namespace that the descriptor is open on, or those of a pidfd that `flags` names."""
    check(libc.setns(descriptor, flags), "setns")


def set_hostname(name: str) -> None:
    """sethostname(2)."""
    encoded = os.fsencode(name)
    check(libc.sethostname(encoded, len(encoded)), "sethostname")


def set_domainname(name: str) -> None:
    """setdomainname(2)."""
    encoded = os.fsencode(name)
    check(libc.setdomainname(encoded, len(encoded)), "setdomainname")
