"""When a process runs: sched_setattr(2), ioprio_set(2)."""

from __future__ import annotations

import ctypes
import os

from sampan.linux.libc import NUMBERS, syscall

NUMBERS.update(
    {"sched_setattr": 274, "ioprio_set": 30}
    if os.uname().machine == "aarch64"
    else {"sched_setattr": 314, "ioprio_set": 251}
)

_WHO_PROCESS = 1
_CLASS_SHIFT = 13


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64), ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32), ("runtime", ctypes.c_uint64), ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )  # fmt: skip


def sched_setattr(
    policy: int, flags: int = 0, nice: int = 0, priority: int = 0, runtime: int = 0, deadline: int = 0, period: int = 0
) -> None:
    """sched_setattr(2) for this process; the three times in nanoseconds."""
    size = ctypes.sizeof(_Attributes)
    attributes = _Attributes(size, policy, flags, nice, priority, runtime, deadline, period)
    syscall("sched_setattr", 0, ctypes.byref(attributes), 0)


def ioprio_set(kind: int, level: int) -> None:
    """ioprio_set(2) for this process: the class and the level within it."""
    syscall("ioprio_set", _WHO_PROCESS, 0, kind << _CLASS_SHIFT | level)
