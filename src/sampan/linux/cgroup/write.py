"""What both cgroup versions plan: values to write into files."""

from __future__ import annotations

import msgspec

from sampan.oci.runtime import DeviceCgroup


class Write(msgspec.Struct, frozen=True):
    """`value` goes into `file` of the group's directory in `controller`'s hierarchy.

    `optional`: this kernel may lack the file (swap accounting, an I/O scheduler), and then it is left out. `retry`: it
    may be refused because of a limit that a later write changes, and is then tried once more at the end.
    """

    controller: str
    file: str
    value: str
    optional: bool = False
    retry: bool = False


def device_rule(rule: DeviceCgroup) -> str:
    """A rule in the words of v1's devices.allow: `c 1:3 rwm`."""
    if rule.type == "a" and rule.major is None and rule.minor is None and rule.access in ("", "rwm"):
        return "a"
    major, minor = ("*" if number is None or number < 0 else str(number) for number in (rule.major, rule.minor))
    return f"{rule.type} {major}:{minor} {rule.access or 'rwm'}"


class BlockIOCount(msgspec.Struct, frozen=True, kw_only=True):
    """One line of io.stat, or of blkio.throttle.io_service_bytes and io_serviced."""

    major: int
    minor: int
    operation: str
    bytes: int = 0
    count: int = 0


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """A group's counters as the kernel gives them: bytes, nanoseconds, counts. A limit of 0 is none.

    `memory_stat` has the kernel's names of the version in force.
    """

    cpu_usage: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_time: int = 0
    memory_usage: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_stat: dict[str, int]
    pids_current: int = 0
    pids_limit: int = 0
    blkio: tuple[BlockIOCount, ...] = ()
