"""Reading the counters of a cgroup v2. Documentation/admin-guide/cgroup-v2.rst"""

from __future__ import annotations

from sampan.linux.cgroup.counters import (
    BlockIOEntry,
    BlockIOTables,
    Counters,
    MemoryCount,
    number,
    page_sizes,
    pressure,
    rdma,
    table,
    text,
)


def read(directory: str) -> Counters:
    cpu = table(f"{directory}/cpu.stat")
    memory = table(f"{directory}/memory.stat")
    usage, limit = number(f"{directory}/memory.current"), number(f"{directory}/memory.max")
    tables = _io_stat(text(f"{directory}/io.stat"))
    return Counters(
        unified=True,
        cpu_usage=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        cpu_periods=cpu.get("nr_periods", 0),
        cpu_throttled_periods=cpu.get("nr_throttled", 0),
        cpu_throttled_time=cpu.get("throttled_usec", 0) * 1000,
        cpu_pressure=pressure(f"{directory}/cpu.pressure"),
        memory_usage=usage,
        memory_peak=number(f"{directory}/memory.peak"),
        memory_limit=limit,
        memory_failures=table(f"{directory}/memory.events").get("max", 0),
        memory_cache=memory.get("file", 0),
        memory_stat=memory,
        memory_swap=_swap(directory, usage, limit),
        memory_kernel=MemoryCount(usage=memory.get("kernel", 0)),
        memory_pressure=pressure(f"{directory}/memory.pressure"),
        pids_current=number(f"{directory}/pids.current"),
        pids_limit=number(f"{directory}/pids.max"),
        blkio=tables.counts(),
        block_io=tables,
        block_io_pressure=pressure(f"{directory}/io.pressure"),
        hugetlb={
            size: MemoryCount(
                limit=number(f"{directory}/hugetlb.{size}.max"),
                usage=number(f"{directory}/hugetlb.{size}.current"),
                failures=table(f"{directory}/hugetlb.{size}.events").get("max", 0),
            )
            for size in page_sizes(directory, "current")
        },
        rdma=rdma(directory),
    )


def _swap(directory: str, usage: int, limit: int) -> MemoryCount:
    most = text(f"{directory}/memory.swap.max").strip()
    return MemoryCount(
        limit=limit + int(most) if limit and most.isdigit() else 0,
        usage=usage + number(f"{directory}/memory.swap.current"),
        failures=table(f"{directory}/memory.swap.events").get("max", 0),
    )


_OPERATIONS = (("rbytes", "rios", "Read"), ("wbytes", "wios", "Write"), ("dbytes", "dios", "Discard"))


def _io_stat(lines: str) -> BlockIOTables:
    sizes: list[BlockIOEntry] = []
    counts: list[BlockIOEntry] = []
    for line in lines.splitlines():
        device, *pairs = line.split()
        major, colon, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if not (colon and major.isdigit() and minor.isdigit()):
            continue
        for size, count, operation in _OPERATIONS:
            for name, entries in ((size, sizes), (count, counts)):
                if values.get(name, "").isdigit():
                    entries.append(
                        BlockIOEntry(
                            major=int(major), minor=int(minor), operation=operation, value=int(values[name])
                        )
                    )  # fmt: skip
    return BlockIOTables(service_bytes=tuple(sizes), serviced=tuple(counts))
