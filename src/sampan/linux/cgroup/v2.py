"""From resources to the files of cgroup v2. Pure. Documentation/admin-guide/cgroup-v2.rst

The conversions from v1's numbers are runc's and crun's, so that one config.json means the same everywhere. Values of 0
are "not set", as for them, except where 0 says something. Device rules are in `devices`.
"""

from __future__ import annotations

import math

from sampan.linux.cgroup.v1 import rdma_writes, swappiness
from sampan.linux.cgroup.write import Write, page_size, pids_limit
from sampan.oci.runtime import CPU, BlockIO, LinuxResources, Memory

_PERIOD = 100_000
"""Microseconds: the kernel's own."""
_SHARES = range(2, (1 << 18) + 1)


def writes(resources: LinuxResources) -> list[Write]:
    """What to write; files are relative to the group's directory. Raises ValueError for what v2 does not have."""
    result: list[Write] = []
    if resources.memory is not None:
        result += _memory(resources.memory)
    if resources.cpu is not None:
        result += _cpu(resources.cpu)
    if resources.pids is not None and (limit := pids_limit(resources.pids)) is not None:
        result.append(Write("pids", "pids.max", limit))
    if resources.block_io is not None:
        result += _block_io(resources.block_io)
    for page in resources.hugepage_limits:
        name = f"hugetlb.{page_size(page.page_size)}"
        result.append(Write("hugetlb", f"{name}.max", str(page.limit)))
        result.append(Write("hugetlb", f"{name}.rsvd.max", str(page.limit), optional=True))
    if resources.network is not None and (resources.network.class_id or resources.network.priorities):
        raise _missing("network")
    result += rdma_writes(resources)
    for file, value in resources.unified.items():
        if "/" in file or not file.partition(".")[2]:
            raise ValueError(f"unified: {file!r} is not the name of a cgroup file")
        # The kernel takes one line at a time.
        result += [Write(file.partition(".")[0], file, line) for line in value.splitlines() or [""]]
    return result


def _missing(name: str) -> ValueError:
    return ValueError(f"{name}: cgroup v2 has no such limit")


def _amount(value: int) -> str:
    return "max" if value < 0 else str(value)


def swap_limit(memory: Memory) -> int | None:
    """v1 counts memory and swap together, v2 swap alone; -1: no limit, None: not set. Raises ValueError."""
    limit, swap = memory.limit, memory.swap
    if not swap:
        return -1 if limit == -1 else None
    if swap == -1 or limit == -1:
        return swap
    if not limit:
        raise ValueError("memory.swap: a limit on memory and swap together needs one on memory")
    if swap < limit:
        raise ValueError(f"memory.swap: memory and swap together ({swap}) can't be less than memory ({limit})")
    return swap - limit


def _memory(memory: Memory) -> list[Write]:
    for name, given in (
        ("kernel", memory.kernel), ("kernelTCP", memory.kernel_tcp), ("swappiness", swappiness(memory) is not None),
        ("disableOOMKiller", memory.disable_oom_killer), ("useHierarchy=false", memory.use_hierarchy is False),
    ):  # fmt: skip
        if given:
            raise _missing(f"memory.{name}")
    result: list[Write] = []
    swap = swap_limit(memory)
    if swap is not None:
        # Without accounting of swap there is none to forbid, and none that is limited.
        result.append(Write("memory", "memory.swap.max", _amount(swap), optional=swap <= 0))
    if memory.limit:
        result.append(Write("memory", "memory.max", _amount(memory.limit)))
    if memory.reservation:
        result.append(Write("memory", "memory.low", _amount(memory.reservation)))
    return result


def weight(shares: int) -> int:
    """v1's shares (2 to 262144) as v2's weight (1 to 10000), each one's default becoming the other's.

    The curve is runc's (since 1.3.2) and crun's (since 1.23).
    """
    power = math.log2(max(_SHARES[0], min(shares, _SHARES[-1])))
    # Rounded before, as a whole number must not be lifted to the next by the last bit.
    return math.ceil(round(10 ** ((power * power + 125 * power) / 612 - 7 / 34), 6))


def _cpu(cpu: CPU) -> list[Write]:
    for name, given in (("realtimeRuntime", cpu.realtime_runtime), ("realtimePeriod", cpu.realtime_period)):
        if given:
            raise _missing(f"cpu.{name}")
    result: list[Write] = []
    if cpu.shares:
        result.append(Write("cpu", "cpu.weight", str(weight(cpu.shares))))
    if cpu.quota:
        period = f" {cpu.period}" if cpu.period else ""  # Without one the period stays.
        result.append(Write("cpu", "cpu.max", f"{_amount(cpu.quota)}{period}"))
    elif cpu.period:
        result.append(Write("cpu", "cpu.max", str(cpu.period), keeps_first=True))
    if cpu.burst is not None:
        result.append(Write("cpu", "cpu.max.burst", str(cpu.burst), optional=cpu.burst == 0))
    if cpu.idle is not None:
        # After the weight, which an idle group does not take.
        result.append(Write("cpu", "cpu.idle", str(cpu.idle), optional=cpu.idle == 0))
    if cpu.cpus:
        result.append(Write("cpuset", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        result.append(Write("cpuset", "cpuset.mems", cpu.mems))
    return result


def io_weight(old: int) -> int:
    """v1's weight (10 to 1000) as v2's (1 to 10000)."""
    return 1 + (max(10, old) - 10) * 9999 // 990


def _block_io(io: BlockIO) -> list[Write]:
    """Weights are the BFQ scheduler's, which has v1's scale, or else those of the cost model."""
    result: list[Write] = []
    if io.leaf_weight or any(each.leaf_weight for each in io.weight_device):
        raise _missing("blockIO.leafWeight")
    if io.weight:
        result.append(_weight("default", io.weight))
    result += [_weight(f"{each.major}:{each.minor}", each.weight) for each in io.weight_device if each.weight]
    for key, throttles in (
        ("rbps", io.throttle_read_bps_device),
        ("wbps", io.throttle_write_bps_device),
        ("riops", io.throttle_read_iops_device),
        ("wiops", io.throttle_write_iops_device),
    ):
        result += [Write("io", "io.max", f"{each.major}:{each.minor} {key}={each.rate or 'max'}") for each in throttles]
    return result


def _weight(what: str, value: int) -> Write:
    return Write("io", "io.bfq.weight", f"{what} {value}", instead=("io.weight", f"{what} {io_weight(value)}"))
