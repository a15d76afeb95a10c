"""Capabilities: capset(2) and the bounding and ambient sets. capabilities(7)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Iterable

from sampan.linux.libc import syscall
from sampan.linux.process import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
)

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""By number. linux/capability.h"""

NUMBERS = {name: number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_MOST = 64


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def mask(names: Iterable[str]) -> int:
    """The bit set of the names that exist; a name from a newer kernel is left out, as runc does."""
    return sum({1 << NUMBERS[name] for name in names if name in NUMBERS})


def effective() -> int:
    """What this process may do now. capget(2): no /proc is asked, which could be a container's (CVE-2019-16884)."""
    low, high = _own()
    return int(low.effective | high.effective << 32)


def permitted() -> int:
    """What this process can have in effect."""
    low, high = _own()
    return int(low.permitted | high.permitted << 32)


def _own() -> tuple[_Data, _Data]:
    data = (_Data * 2)()
    syscall("capget", ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(data))
    return data[0], data[1]


def bounding() -> int:
    """The most that this process and its children can gain, by the kernel's own word: as far as it counts, names that
    this table does not have yet included."""
    found = 0
    for number in range(_MOST):
        try:
            found |= prctl(PR_CAPBSET_READ, number) << number
        except OSError:  # EINVAL: it knows no such capability, nor a higher one.
            break
    return found


def drop_bounding(keep: int) -> None:
    """Take all but these out of the bounding set, those too that this table has no name for yet."""
    for number in range(_MOST):
        if not keep >> number & 1:
            try:
                prctl(PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno == errno.EINVAL:  # The kernel knows no such capability, nor a higher one.
                    break
                raise


def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for this process."""
    data = (_Data * 2)(
        *(
            _Data(effective >> shift & 0xFFFFFFFF, permitted >> shift & 0xFFFFFFFF, inheritable >> shift & 0xFFFFFFFF)
            for shift in (0, 32)
        )
    )
    syscall("capset", ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(data))


def set_ambient(wanted: int) -> None:
    """Exactly these, as far as the inheritable and permitted sets allow them."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if wanted >> number & 1:
            with contextlib.suppress(PermissionError):
                prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
