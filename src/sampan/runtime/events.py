"""What `events --stats` prints: a group's counters in the document that runc's users read (runc's types/events.go)."""

from __future__ import annotations

from typing import Literal

import msgspec

from sampan.linux.cgroup.counters import BlockIOEntry, BlockIOTables, Counters, Cpuset, MemoryCount, Pressure

_NO_LIMIT_V1 = (1 << 63) - 4096
_NO_LIMIT_V2 = (1 << 64) - 1


class _Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A field without a default is always there, as in runc's."""


class _CPUUsage(_Document, frozen=True, kw_only=True):
    total: int = 0
    percpu: tuple[int, ...] = ()
    percpu_kernel: tuple[int, ...] = ()
    percpu_user: tuple[int, ...] = ()
    kernel: int
    user: int


class _Throttling(_Document, frozen=True, kw_only=True, rename="camel"):
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class _CPU(_Document, frozen=True, kw_only=True):
    usage: _CPUUsage
    throttling: _Throttling
    psi: Pressure | None = None


class _CPUSet(_Document, frozen=True, kw_only=True):
    cpus: tuple[int, ...] = ()
    cpu_exclusive: int
    mems: tuple[int, ...] = ()
    mem_hardwall: int
    mem_exclusive: int
    memory_migrate: int
    memory_spread_page: int
    memory_spread_slab: int
    memory_pressure: int
    sched_load_balance: int
    sched_relax_domain_level: int


class _MemoryEntry(_Document, frozen=True, kw_only=True):
    limit: int
    usage: int = 0
    max: int = 0
    failcnt: int


class _Memory(_Document, frozen=True, kw_only=True):
    cache: int = 0
    usage: _MemoryEntry
    swap: _MemoryEntry
    kernel: _MemoryEntry
    kernel_tcp: _MemoryEntry = msgspec.field(name="kernelTCP")
    raw: dict[str, int] = {}
    psi: Pressure | None = None


class _Pids(_Document, frozen=True, kw_only=True):
    current: int = 0
    limit: int = 0


class _BlkioEntry(_Document, frozen=True, kw_only=True):
    major: int = 0
    minor: int = 0
    op: str = ""
    value: int = 0


class _Blkio(_Document, frozen=True, kw_only=True):
    service_bytes: tuple[_BlkioEntry, ...] = msgspec.field(name="ioServiceBytesRecursive", default=())
    serviced: tuple[_BlkioEntry, ...] = msgspec.field(name="ioServicedRecursive", default=())
    queued: tuple[_BlkioEntry, ...] = msgspec.field(name="ioQueueRecursive", default=())
    service_time: tuple[_BlkioEntry, ...] = msgspec.field(name="ioServiceTimeRecursive", default=())
    wait_time: tuple[_BlkioEntry, ...] = msgspec.field(name="ioWaitTimeRecursive", default=())
    merged: tuple[_BlkioEntry, ...] = msgspec.field(name="ioMergedRecursive", default=())
    time: tuple[_BlkioEntry, ...] = msgspec.field(name="ioTimeRecursive", default=())
    sectors: tuple[_BlkioEntry, ...] = msgspec.field(name="sectorsRecursive", default=())
    psi: Pressure | None = None


class _Hugetlb(_Document, frozen=True, kw_only=True):
    usage: int = 0
    max: int = 0
    failcnt: int


class _Nothing(_Document, frozen=True, kw_only=True):
    """{}: a part that is not counted here."""


class _Stats(_Document, frozen=True, kw_only=True):
    cpu: _CPU
    cpuset: _CPUSet
    memory: _Memory
    pids: _Pids
    blkio: _Blkio
    hugetlb: dict[str, _Hugetlb]
    intel_rdt: _Nothing
    network_interfaces: None


class _Event(_Document, frozen=True, kw_only=True):
    type: Literal["stats", "oom"]
    id: str
    data: _Stats | None = None


def stats_document(container_id: str, counters: Counters) -> bytes:
    """One JSON document, without a line's end."""
    return msgspec.json.encode(_Event(type="stats", id=container_id, data=_stats(counters)))


def oom_document(container_id: str) -> bytes:
    """The kernel has killed for want of memory."""
    return msgspec.json.encode(_Event(type="oom", id=container_id))


def _stats(counters: Counters) -> _Stats:
    return _Stats(
        cpu=_CPU(
            usage=_CPUUsage(
                total=counters.cpu_usage, percpu=counters.cpu_each, percpu_kernel=counters.cpu_each_system,
                percpu_user=counters.cpu_each_user, kernel=counters.cpu_system, user=counters.cpu_user,
            ),
            throttling=_Throttling(
                periods=counters.cpu_periods, throttled_periods=counters.cpu_throttled_periods,
                throttled_time=counters.cpu_throttled_time,
            ),
            psi=counters.cpu_pressure,
        ),
        cpuset=_cpuset(counters.cpuset),
        memory=_memory(counters),
        pids=_Pids(current=counters.pids_current, limit=counters.pids_limit),
        blkio=_blkio(counters.block_io, counters.block_io_pressure),
        hugetlb={
            size: _Hugetlb(usage=count.usage, max=count.peak, failcnt=count.failures)
            for size, count in counters.hugetlb.items()
        },
        intel_rdt=_Nothing(),
        network_interfaces=None,
    )  # fmt: skip


def _cpuset(cpuset: Cpuset) -> _CPUSet:
    flags = {name: cpuset.flags.get(name, 0) for name in _CPUSet.__struct_fields__ if name not in ("cpus", "mems")}
    return _CPUSet(cpus=cpuset.cpus, mems=cpuset.mems, **flags)


def _memory(counters: Counters) -> _Memory:
    none = _NO_LIMIT_V2 if counters.unified else _NO_LIMIT_V1

    def entry(count: MemoryCount) -> _MemoryEntry:
        return _MemoryEntry(limit=count.limit or none, usage=count.usage, max=count.peak, failcnt=count.failures)

    whole = MemoryCount(
        limit=counters.memory_limit, usage=counters.memory_usage, peak=counters.memory_peak,
        failures=counters.memory_failures,
    )  # fmt: skip
    return _Memory(
        cache=counters.memory_cache, usage=entry(whole), swap=entry(counters.memory_swap),
        kernel=entry(counters.memory_kernel), kernel_tcp=entry(counters.memory_kernel_tcp), raw=counters.memory_stat,
        psi=counters.memory_pressure,
    )  # fmt: skip


def _blkio(tables: BlockIOTables, pressure: Pressure | None) -> _Blkio:
    def entries(table: tuple[BlockIOEntry, ...]) -> tuple[_BlkioEntry, ...]:
        return tuple(
            _BlkioEntry(major=each.major, minor=each.minor, op=each.operation, value=each.value) for each in table
        )

    return _Blkio(psi=pressure, **{name: entries(getattr(tables, name)) for name in tables.__struct_fields__})
