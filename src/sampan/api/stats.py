"""What a container uses, on the wire: `GET /containers/{id}/stats`. Docker Engine API 1.24 to 1.51.

Bytes, nanoseconds and counts. Lists of what the kernel does not tell are empty with cgroup v1 and null with v2.
"""

from __future__ import annotations

import msgspec

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time."""


class StatsStruct(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable; snake case on the wire."""


class BlockIOEntry(StatsStruct, frozen=True, kw_only=True):
    major: int
    minor: int
    op: str
    value: int


BlockIOEntries = tuple[BlockIOEntry, ...] | None


class BlockIOStats(StatsStruct, frozen=True, kw_only=True):
    io_service_bytes_recursive: BlockIOEntries = None
    io_serviced_recursive: BlockIOEntries = None
    io_queue_recursive: BlockIOEntries = None
    io_service_time_recursive: BlockIOEntries = None
    io_wait_time_recursive: BlockIOEntries = None
    io_merged_recursive: BlockIOEntries = None
    io_time_recursive: BlockIOEntries = None
    sectors_recursive: BlockIOEntries = None


class CPUUsage(StatsStruct, frozen=True, kw_only=True):
    """`percpu_usage`: cgroup v1 only."""

    total_usage: int = 0
    percpu_usage: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class ThrottlingData(StatsStruct, frozen=True, kw_only=True):
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CPUStats(StatsStruct, frozen=True, kw_only=True):
    """`system_cpu_usage`: what all CPUs of the machine have done since it booted."""

    cpu_usage: CPUUsage = CPUUsage()
    system_cpu_usage: int | msgspec.UnsetType = msgspec.UNSET
    online_cpus: int | msgspec.UnsetType = msgspec.UNSET
    throttling_data: ThrottlingData = ThrottlingData()


class MemoryStats(StatsStruct, frozen=True, kw_only=True, omit_defaults=True):
    """`max_usage`: cgroup v1 only. `limit`: the machine's memory where none is set."""

    usage: int = 0
    max_usage: int = 0
    stats: dict[str, int] = {}
    failcnt: int = 0
    limit: int = 0


class PidsStats(StatsStruct, frozen=True, kw_only=True, omit_defaults=True):
    current: int = 0
    limit: int = 0


class NetworkStats(StatsStruct, frozen=True, kw_only=True):
    """As the container sees it: `rx` is what it received."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class Stats(StatsStruct, frozen=True, kw_only=True):
    """`preread`, `precpu_stats`: those of the answer before. `name`, `id`: not with `one-shot`."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    id: str | msgspec.UnsetType = msgspec.UNSET
    read: str = NEVER
    preread: str = NEVER
    pids_stats: PidsStats = PidsStats()
    blkio_stats: BlockIOStats = BlockIOStats()
    num_procs: int = 0
    storage_stats: dict[str, int] = {}
    cpu_stats: CPUStats = CPUStats()
    precpu_stats: CPUStats = CPUStats()
    memory_stats: MemoryStats = MemoryStats()
    networks: dict[str, NetworkStats] | msgspec.UnsetType = msgspec.UNSET
