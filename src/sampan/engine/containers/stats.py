"""What a container uses, from its shim's counters and the host's side of its network, in Docker's terms."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec

from sampan.api.stats import (
    BlockIOEntries,
    BlockIOEntry,
    BlockIOStats,
    CPUStats,
    CPUUsage,
    MemoryStats,
    NetworkStats,
    PidsStats,
    Stats,
    ThrottlingData,
)
from sampan.engine import host
from sampan.engine.containers.container import Container
from sampan.engine.timestamps import rfc3339
from sampan.errors import SampanError
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine

INTERVAL = 1.0
"""Seconds between two answers of a stream, and between the two looks at the CPU for one answer."""
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


async def one(engine: Engine, container: Container, *, alone: bool) -> Stats:
    """`alone`: one look, without a rate of the CPU's use; it does not take a second then."""
    first = await _look(engine, container)
    if alone:
        return first or _named(container, Stats())
    if first is None:
        return _named(container, Stats())
    await asyncio.sleep(INTERVAL)
    return _named(container, _after(first, await _look(engine, container)))


async def stream(engine: Engine, container: Container) -> AsyncIterator[Stats]:
    """An answer a second, until the container is removed. One that does not run uses nothing."""
    before: Stats | None = None
    while engine.containers.has(container):
        now = await _look(engine, container)
        yield _named(container, _after(before, now))
        before = now
        await asyncio.sleep(INTERVAL)


def _named(container: Container, stats: Stats) -> Stats:
    return msgspec.structs.replace(stats, name=f"/{container.name.removeprefix('/')}", id=container.id)


def _after(before: Stats | None, now: Stats | None) -> Stats:
    if now is None:
        return Stats()
    if before is None:
        return now
    return msgspec.structs.replace(now, preread=before.read, precpu_stats=before.cpu_stats)


async def _look(engine: Engine, container: Container) -> Stats | None:
    if container.task is None:
        return None
    try:
        counters = await container.task.stats()
    except SampanError:
        return None  # It has just ended.
    endpoints = engine.network.endpoints(container.id)
    networks = {each.interface: network(each.host_interface) for each in endpoints if each.host_interface}
    return rendered(counters, system_cpu_usage(), {name: each for name, each in networks.items() if each})


def rendered(counters: msg.StatsTaken, system: int, networks: dict[str, NetworkStats]) -> Stats:
    """One look in Docker's terms; the members of the look before are left empty."""
    limit = counters.memory_limit or host.memory_total()
    usage = CPUUsage(
        total_usage=counters.cpu_usage, usage_in_kernelmode=counters.cpu_system, usage_in_usermode=counters.cpu_user,
        percpu_usage=counters.cpu_each or msgspec.UNSET,
    )  # fmt: skip
    return Stats(
        read=rfc3339(counters.read_at),
        pids_stats=PidsStats(current=counters.pids_current, limit=counters.pids_limit),
        blkio_stats=_blkio(counters),
        cpu_stats=CPUStats(
            cpu_usage=usage, system_cpu_usage=system, online_cpus=len(os.sched_getaffinity(0)),
            throttling_data=ThrottlingData(
                periods=counters.cpu_periods, throttled_periods=counters.cpu_throttled_periods,
                throttled_time=counters.cpu_throttled_time,
            ),
        ),
        memory_stats=MemoryStats(
            usage=counters.memory_usage, max_usage=0 if counters.unified else counters.memory_peak,
            stats=counters.memory_stat, failcnt=counters.memory_failures, limit=min(limit, host.memory_total()),
        ),
        networks=networks or msgspec.UNSET,
    )  # fmt: skip


def _blkio(counters: msg.StatsTaken) -> BlockIOStats:
    def entries(member: str) -> BlockIOEntries:
        return tuple(
            BlockIOEntry(major=each.major, minor=each.minor, op=each.operation, value=getattr(each, member))
            for each in counters.blkio
        )

    if counters.unified:
        both = [each for each in entries("bytes") or () if each.op in ("Read", "Write")]
        small = tuple(msgspec.structs.replace(each, op=each.op.lower()) for each in both)
        return BlockIOStats(io_service_bytes_recursive=small)
    return BlockIOStats(
        io_service_bytes_recursive=entries("bytes"), io_serviced_recursive=entries("count"), io_queue_recursive=(),
        io_service_time_recursive=(), io_wait_time_recursive=(), io_merged_recursive=(), io_time_recursive=(),
        sectors_recursive=(),
    )  # fmt: skip


def system_cpu_usage() -> int:
    """Nanoseconds that all CPUs have done anything, or nothing, since the boot. proc(5): user, nice, system, idle,
    iowait, irq, softirq; guests are in user already, and what was stolen was not ours."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = file.readline().split()[1:8]
    return sum(map(int, ticks)) * _TICK


def network(interface: str) -> NetworkStats | None:
    """By the host's end of the pair, whose receiving is the container's sending. None when it is gone."""

    def count(name: str) -> int:
        with open(f"/sys/class/net/{interface}/statistics/{name}", encoding="ascii") as file:
            return int(file.read())

    try:
        return NetworkStats(
            rx_bytes=count("tx_bytes"), rx_packets=count("tx_packets"), rx_errors=count("tx_errors"),
            rx_dropped=count("tx_dropped"), tx_bytes=count("rx_bytes"), tx_packets=count("rx_packets"),
            tx_errors=count("rx_errors"), tx_dropped=count("rx_dropped"),
        )  # fmt: skip
    except FileNotFoundError:
        return None
