"""When and where a process runs: its scheduler, I/O priority and processors. runtime-spec config.md, process"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument
from sampan.linux import scheduling
from sampan.oci.runtime import Process

_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_LEVELS = 8
_PROCESSORS = 8192
"""The most that Linux can be configured for."""


def check(process: Process) -> None:
    """Raises InvalidArgument for names and numbers that do not exist."""
    wanted = process.scheduler
    if wanted is not None:
        if wanted.policy not in _POLICIES:
            raise InvalidArgument(f"process.scheduler: unknown policy {wanted.policy!r}")
        for flag in wanted.flags:
            if flag not in _FLAGS:
                raise InvalidArgument(f"process.scheduler: unknown flag {flag!r}")
        if not -20 <= wanted.nice <= 19:
            raise InvalidArgument(f"process.scheduler: nice {wanted.nice} is not between -20 and 19")
        if not 0 <= wanted.priority <= 99:
            raise InvalidArgument(f"process.scheduler: priority {wanted.priority} is not between 0 and 99")
        if any(not 0 <= time < 1 << 63 for time in (wanted.runtime, wanted.deadline, wanted.period)):
            raise InvalidArgument("process.scheduler: runtime, deadline or period is out of range")
    if process.io_priority is not None:
        if process.io_priority.class_ not in _CLASSES:
            raise InvalidArgument(f"process.ioPriority: unknown class {process.io_priority.class_!r}")
        if not 0 <= process.io_priority.priority < _LEVELS:
            raise InvalidArgument(f"process.ioPriority: priority {process.io_priority.priority} is not between 0 and 7")
    if process.exec_cpu_affinity is not None:
        _processors(process.exec_cpu_affinity.initial, "initial")
        _processors(process.exec_cpu_affinity.final, "final")


def _processors(text: str, what: str) -> set[int]:
    """A list such as `0-3,7`. Raises InvalidArgument."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, separator, last = part.strip().partition("-")
        last = last if separator else first
        if not (first.isdecimal() and last.isdecimal() and first.isascii() and last.isascii()):
            raise InvalidArgument(f"process.execCPUAffinity.{what}: {text!r} is not a list of processors")
        if len(first) > 4 or len(last) > 4 or int(last) >= _PROCESSORS or int(first) > int(last):
            raise InvalidArgument(f"process.execCPUAffinity.{what}: {part.strip()!r} is no range of processors")
        found.update(range(int(first), int(last) + 1))
    return found


def set_initial(process: Process) -> None:
    """An exec's process, or who bears it, before it is in the container's cgroup."""
    wanted = process.exec_cpu_affinity and _processors(process.exec_cpu_affinity.initial, "initial")
    if wanted:
        _set_affinity(wanted, "initial")


def set_final(process: Process) -> None:
    """An exec's process, when it is in the cgroup. If nothing is said, the kernel has decided."""
    wanted = process.exec_cpu_affinity and _processors(process.exec_cpu_affinity.final, "final")
    if wanted:
        _set_affinity(wanted, "final")


def _set_affinity(processors: set[int], what: str) -> None:
    try:
        os.sched_setaffinity(0, processors)
    except OSError as error:
        raise InvalidArgument(f"process.execCPUAffinity.{what}: {(error.strerror or '').lower()}") from error


def apply(process: Process) -> None:
    """While this process still has its powers. Raises InvalidArgument for what the kernel refuses."""
    what = "scheduler"
    try:
        if process.scheduler is not None:
            wanted = process.scheduler
            scheduling.sched_setattr(
                _POLICIES[wanted.policy], sum({_FLAGS[flag] for flag in wanted.flags}), wanted.nice, wanted.priority,
                wanted.runtime, wanted.deadline, wanted.period,
            )  # fmt: skip
        what = "ioPriority"
        if process.io_priority is not None:
            scheduling.ioprio_set(_CLASSES[process.io_priority.class_], process.io_priority.priority)
    except OSError as error:
        raise InvalidArgument(f"process.{what}: {(error.strerror or '').lower()}") from error
