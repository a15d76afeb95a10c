"""From resources to the files of cgroup v1. Pure. Documentation/admin-guide/cgroup-v1

Values of 0 are "not set", as for runc, except where 0 says something. Device rules are in `devices`.
"""

from __future__ import annotations

from sampan.linux.cgroup.write import Write, interface, page_size, pids_limit, rdma_device
from sampan.oci.runtime import CPU, BlockIO, LinuxResources, Memory

_MOST_SWAPPINESS = 100
_UNSET_SWAPPINESS = (None, -1, (1 << 64) - 1)
_SHARES = range(2, (1 << 18) + 1)


def writes(resources: LinuxResources) -> list[Write]:
    """What to write; files are relative to the group's directory. Raises ValueError for what v1 does not have."""
    if resources.unified:
        raise ValueError("unified: there is no cgroup v2 on this machine")
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
        result.append(Write("hugetlb", f"{name}.limit_in_bytes", str(page.limit)))
        result.append(Write("hugetlb", f"{name}.rsvd.limit_in_bytes", str(page.limit), optional=True))
    if resources.network is not None:
        if resources.network.class_id:
            result.append(Write("net_cls", "net_cls.classid", str(resources.network.class_id)))
        for priority in resources.network.priorities:
            value = f"{interface(priority.name)} {priority.priority}"
            result.append(Write("net_prio", "net_prio.ifpriomap", value))
    return result + rdma_writes(resources)


def rdma_writes(resources: LinuxResources) -> list[Write]:
    """The same in both versions."""
    result: list[Write] = []
    for device, limit in resources.rdma.items():
        parts = [
            f"{name}={number}"
            for name, number in (("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects))
            if number is not None
        ]
        if parts:
            result.append(Write("rdma", "rdma.max", " ".join((rdma_device(device), *parts))))
    return result


def swappiness(memory: Memory) -> int | None:
    """None: not set. Raises ValueError."""
    if memory.swappiness in _UNSET_SWAPPINESS:
        return None
    if not 0 <= memory.swappiness <= _MOST_SWAPPINESS:
        raise ValueError(f"memory.swappiness: {memory.swappiness} is not between 0 and {_MOST_SWAPPINESS}")
    return memory.swappiness


def _memory(memory: Memory) -> list[Write]:
    swap = memory.swap
    if memory.limit == -1 and not swap:
        swap = -1  # Unlimited memory can't be below a limit on memory and swap together.
    result: list[Write] = []
    if memory.use_hierarchy is not None:
        result.append(Write("memory", "memory.use_hierarchy", str(int(memory.use_hierarchy))))
    for file, value, optional in (
        ("memory.limit_in_bytes", memory.limit, False),
        # Without accounting of swap it is not limited anyway.
        ("memory.memsw.limit_in_bytes", swap, swap == -1),
        ("memory.soft_limit_in_bytes", memory.reservation, False),
        ("memory.kmem.limit_in_bytes", memory.kernel, False),
        ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp, False),
    ):
        if value:
            result.append(Write("memory", file, str(value), optional=optional, checked="kmem.limit" in file))
    if (tendency := swappiness(memory)) is not None:
        result.append(Write("memory", "memory.swappiness", str(tendency)))
    if memory.disable_oom_killer is not None:
        result.append(Write("memory", "memory.oom_control", str(int(memory.disable_oom_killer))))
    return result


def _cpu(cpu: CPU) -> list[Write]:
    if cpu.shares and cpu.shares not in _SHARES:
        # The kernel would take it for the nearest that it knows.
        raise ValueError(f"cpu.shares: {cpu.shares} is not between {_SHARES[0]} and {_SHARES[-1]}")
    result = [
        Write("cpu", file, str(value))
        for file, value in (
            ("cpu.shares", cpu.shares),
            # The period goes before the quota, which is checked against it.
            ("cpu.cfs_period_us", cpu.period),
            ("cpu.cfs_quota_us", cpu.quota),
            ("cpu.rt_period_us", cpu.realtime_period),
            ("cpu.rt_runtime_us", cpu.realtime_runtime),
        )
        if value
    ]
    if cpu.burst is not None:
        result.append(Write("cpu", "cpu.cfs_burst_us", str(cpu.burst), optional=cpu.burst == 0))
    if cpu.idle is not None:
        # After the shares, which an idle group does not take.
        result.append(Write("cpu", "cpu.idle", str(cpu.idle), optional=cpu.idle == 0))
    if cpu.cpus:
        result.append(Write("cpuset", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        result.append(Write("cpuset", "cpuset.mems", cpu.mems))
    return result


def _block_io(io: BlockIO) -> list[Write]:
    """Weights are the CFQ scheduler's, up to Linux 4, or the BFQ scheduler's."""
    result: list[Write] = []
    if io.weight:
        weight = str(io.weight)
        result.append(Write("blkio", "blkio.weight", weight, instead=("blkio.bfq.weight", weight)))
    if io.leaf_weight:
        result.append(Write("blkio", "blkio.leaf_weight", str(io.leaf_weight)))
    for each in io.weight_device:
        if each.weight:
            value = f"{each.major}:{each.minor} {each.weight}"
            result.append(Write("blkio", "blkio.weight_device", value, instead=("blkio.bfq.weight_device", value)))
        if each.leaf_weight:
            value = f"{each.major}:{each.minor} {each.leaf_weight}"
            result.append(Write("blkio", "blkio.leaf_weight_device", value))
    for file, throttles in (
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device),
    ):
        result += [Write("blkio", file, f"{each.major}:{each.minor} {each.rate}") for each in throttles]
    return result
