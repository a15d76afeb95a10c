"""A group's counters, read from cgroup v1 and v2 into the same record.

Documentation/admin-guide/cgroup-v2.rst and cgroup-v1. What this kernel does not count is 0 or missing.
"""

from __future__ import annotations

import os

import msgspec


class BlockIOCount(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from or written to one device. `operation`: in v1's words, as for `BlockIOEntry`."""

    major: int
    minor: int
    operation: str
    bytes: int = 0
    count: int = 0


class BlockIOEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a blkio table. `operation` as v1 calls it (Read, Write, Sync, Async, Discard, Total), or ""."""

    major: int
    minor: int
    operation: str
    value: int


class BlockIOTables(msgspec.Struct, frozen=True, kw_only=True):
    """The group's and those below it. v2, and v1 without the BFQ scheduler, know the first two."""

    service_bytes: tuple[BlockIOEntry, ...] = ()
    serviced: tuple[BlockIOEntry, ...] = ()
    queued: tuple[BlockIOEntry, ...] = ()
    service_time: tuple[BlockIOEntry, ...] = ()
    wait_time: tuple[BlockIOEntry, ...] = ()
    merged: tuple[BlockIOEntry, ...] = ()
    time: tuple[BlockIOEntry, ...] = ()
    sectors: tuple[BlockIOEntry, ...] = ()

    def counts(self) -> tuple[BlockIOCount, ...]:
        """Bytes and requests of each device together."""
        requests = {(each.major, each.minor, each.operation): each.value for each in self.serviced}
        return tuple(
            BlockIOCount(
                major=each.major, minor=each.minor, operation=each.operation, bytes=each.value,
                count=requests.get((each.major, each.minor, each.operation), 0),
            )
            for each in self.service_bytes
            if each.operation
        )  # fmt: skip


class MemoryCount(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes; a limit of 0 is none. `failures`: how often the limit was met."""

    limit: int = 0
    usage: int = 0
    peak: int = 0
    failures: int = 0


class PressureTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the time (percent over so many seconds) that tasks waited, and microseconds altogether."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """Documentation/accounting/psi.rst: some tasks waited, or all."""

    some: PressureTimes = PressureTimes()
    full: PressureTimes = PressureTimes()


class Cpuset(msgspec.Struct, frozen=True, kw_only=True):
    """CPUs and memory nodes by number, and v1's flags by their names without `cpuset.`."""

    cpus: tuple[int, ...] = ()
    mems: tuple[int, ...] = ()
    flags: dict[str, int] = {}


class RdmaCount(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of 0 is none."""

    handles: int = 0
    objects: int = 0
    handles_limit: int = 0
    objects_limit: int = 0


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, nanoseconds, counts. A limit of 0 is none.

    `memory_stat` has the kernel's names of the version in force.
    """

    unified: bool = False
    cpu_usage: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_each: tuple[int, ...] = ()
    """By CPU; v1 only, as the next two."""
    cpu_each_user: tuple[int, ...] = ()
    cpu_each_system: tuple[int, ...] = ()
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_time: int = 0
    cpu_pressure: Pressure | None = None
    cpuset: Cpuset = Cpuset()
    memory_usage: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_cache: int = 0
    memory_stat: dict[str, int]
    memory_swap: MemoryCount = MemoryCount()
    """Memory and swap together, as v1 counts them; on v2 the sum of the two."""
    memory_kernel: MemoryCount = MemoryCount()
    memory_kernel_tcp: MemoryCount = MemoryCount()
    memory_pressure: Pressure | None = None
    pids_current: int = 0
    pids_limit: int = 0
    blkio: tuple[BlockIOCount, ...] = ()
    block_io: BlockIOTables = BlockIOTables()
    block_io_pressure: Pressure | None = None
    hugetlb: dict[str, MemoryCount] = {}
    """By page size in the kernel's words, as 2MB."""
    rdma: dict[str, RdmaCount] = {}
    """By device."""


# --- Reading -------------------------------------------------------------------------------------------------

NO_LIMIT = 1 << 62
"""v1 writes a number near 2⁶³ where there is no limit."""


def text(path: str) -> str:
    """The file's text; "" where it is missing, or not counted by this kernel (pressure: EOPNOTSUPP)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def number(path: str) -> int:
    """The file's number; 0 for `max`, a missing file, and the huge numbers by which v1 says that there is no limit."""
    value = text(path).strip()
    found = int(value) if value.isdigit() else 0
    return 0 if found >= NO_LIMIT else found


def numbers(path: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text(path).split() if each.isdigit())


def table(path: str) -> dict[str, int]:
    pairs = (line.split() for line in text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def listed(ranges: str) -> tuple[int, ...]:
    """`0-2,4` as numbers."""
    result: list[int] = []
    for part in ranges.strip().split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (not dash or last.isdigit()):
            result += range(int(first), int(last if dash else first) + 1)
    return tuple(result)


def pressure(path: str) -> Pressure | None:
    """None where the kernel does not count it."""
    kinds: dict[str, PressureTimes] = {}
    for line in text(path).splitlines():
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            kinds[kind] = PressureTimes(
                avg10=float(values["avg10"]), avg60=float(values["avg60"]), avg300=float(values["avg300"]),
                total=int(values["total"]),
            )  # fmt: skip
        except (KeyError, ValueError):
            continue
    if not kinds:
        return None
    return Pressure(some=kinds.get("some", PressureTimes()), full=kinds.get("full", PressureTimes()))


def rdma(directory: str) -> dict[str, RdmaCount]:
    """rdma.current and rdma.max, the same in both versions: `mlx4_0 hca_handle=2 hca_object=2000`."""
    used, limits = _rdma_table(f"{directory}/rdma.current"), _rdma_table(f"{directory}/rdma.max")
    return {
        device: RdmaCount(
            handles=used.get(device, {}).get("hca_handle", 0), objects=used.get(device, {}).get("hca_object", 0),
            handles_limit=limits.get(device, {}).get("hca_handle", 0),
            objects_limit=limits.get(device, {}).get("hca_object", 0),
        )
        for device in {**used, **limits}
    }  # fmt: skip


def _rdma_table(path: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in text(path).splitlines():
        device, *pairs = line.split()
        values = (pair.partition("=") for pair in pairs)
        found[device] = {name: int(value) for name, _, value in values if value.isdigit()}
    return found


def page_sizes(directory: str, last: str) -> list[str]:
    """Of huge pages, in the kernel's words: those with a file `hugetlb.SIZE.last`."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    parts = (name.split(".", 2) for name in sorted(names))
    return [part[1] for part in parts if len(part) == 3 and part[0] == "hugetlb" and part[2] == last]
