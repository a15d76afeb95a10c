"""Reading the counters of a cgroup v1: a directory for each controller. Documentation/admin-guide/cgroup-v1"""

from __future__ import annotations

import os
from collections.abc import Mapping

from sampan.linux.cgroup.counters import (
    BlockIOEntry,
    BlockIOTables,
    Counters,
    Cpuset,
    MemoryCount,
    listed,
    number,
    numbers,
    page_sizes,
    rdma,
    table,
    text,
)


def read(directories: Mapping[str, str]) -> Counters:
    """`directories`: the group's directory by controller."""
    cpu, usage = directories.get("cpu", ""), directories.get("cpuacct", "")
    memory, pids = directories.get("memory", ""), directories.get("pids", "")
    times, throttled = table(f"{usage}/cpuacct.stat"), table(f"{cpu}/cpu.stat")
    stat = table(f"{memory}/memory.stat")
    whole = _memory(memory, "memory")
    user, system = _by_cpu(text(f"{usage}/cpuacct.usage_all"))
    tables = _block_io(directories.get("blkio", ""))
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return Counters(
        cpu_usage=number(f"{usage}/cpuacct.usage"),
        cpu_user=times.get("user", 0) * tick,
        cpu_system=times.get("system", 0) * tick,
        cpu_each=numbers(f"{usage}/cpuacct.usage_percpu"),
        cpu_each_user=user,
        cpu_each_system=system,
        cpu_periods=throttled.get("nr_periods", 0),
        cpu_throttled_periods=throttled.get("nr_throttled", 0),
        cpu_throttled_time=throttled.get("throttled_time", 0),
        cpuset=_cpuset(directories.get("cpuset", "")),
        memory_usage=whole.usage,
        memory_peak=whole.peak,
        memory_limit=whole.limit,
        memory_failures=whole.failures,
        memory_cache=stat.get("cache", 0),
        memory_stat=stat,
        memory_swap=_memory(memory, "memory.memsw"),
        memory_kernel=_memory(memory, "memory.kmem"),
        memory_kernel_tcp=_memory(memory, "memory.kmem.tcp"),
        pids_current=number(f"{pids}/pids.current"),
        pids_limit=number(f"{pids}/pids.max"),
        blkio=tables.counts(),
        block_io=tables,
        hugetlb={
            size: _memory(directories["hugetlb"], f"hugetlb.{size}")
            for size in page_sizes(directories.get("hugetlb", ""), "usage_in_bytes")
        },
        rdma=rdma(directories.get("rdma", "")),
    )


def _memory(directory: str, name: str) -> MemoryCount:
    return MemoryCount(
        limit=number(f"{directory}/{name}.limit_in_bytes"),
        usage=number(f"{directory}/{name}.usage_in_bytes"),
        peak=number(f"{directory}/{name}.max_usage_in_bytes"),
        failures=number(f"{directory}/{name}.failcnt"),
    )


def _by_cpu(lines: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """cpuacct.usage_all: a heading, and for each CPU its number, and nanoseconds of user and of system time."""
    rows = [line.split() for line in lines.splitlines()[1:]]
    rows = [row for row in rows if len(row) == 3 and all(each.isdigit() for each in row)]
    return tuple(int(row[1]) for row in rows), tuple(int(row[2]) for row in rows)


_FLAGS = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance",
)  # fmt: skip


def _cpuset(directory: str) -> Cpuset:
    if not directory:
        return Cpuset()
    flags = {name: number(f"{directory}/cpuset.{name}") for name in _FLAGS}
    level = text(f"{directory}/cpuset.sched_relax_domain_level").strip()
    flags["sched_relax_domain_level"] = int(level) if level.lstrip("-").isdigit() else 0
    return Cpuset(
        cpus=listed(text(f"{directory}/cpuset.cpus")), mems=listed(text(f"{directory}/cpuset.mems")), flags=flags
    )


_BFQ = {
    "service_bytes": "io_service_bytes", "serviced": "io_serviced", "queued": "io_queued",
    "service_time": "io_service_time", "wait_time": "io_wait_time", "merged": "io_merged", "time": "time",
    "sectors": "sectors",
}  # fmt: skip
_THROTTLE = {"service_bytes": "io_service_bytes", "serviced": "io_serviced"}


def _block_io(directory: str) -> BlockIOTables:
    """BFQ counts most where it schedules the disk; the throttle counts what every scheduler gets."""
    for prefix, suffix, names in (("bfq.", "_recursive", _BFQ), ("throttle.", "_recursive", _THROTTLE)):
        found = {field: _table(f"{directory}/blkio.{prefix}{name}{suffix}") for field, name in names.items()}
        if found["service_bytes"] or found["serviced"]:
            return BlockIOTables(**found)
    return BlockIOTables(**{field: _table(f"{directory}/blkio.throttle.{name}") for field, name in _THROTTLE.items()})


def _table(path: str) -> tuple[BlockIOEntry, ...]:
    """`8:0 Read 4096` or, of a time, `8:0 4096`; a last line has the total of all devices."""
    found: list[BlockIOEntry] = []
    for line in text(path).splitlines():
        device, *words = line.split()
        major, colon, minor = device.partition(":")
        if colon and words and words[-1].isdigit():
            operation = words[0] if len(words) == 2 else ""
            found.append(
                BlockIOEntry(major=int(major), minor=int(minor), operation=operation, value=int(words[-1]))
            )  # fmt: skip
    return tuple(found)
