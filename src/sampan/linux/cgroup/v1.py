"""From resources to the files of cgroup v1. Pure. Documentation/admin-guide/cgroup-v1"""

from __future__ import annotations

from sampan.linux.cgroup.write import Write, device_rule
from sampan.oci.runtime import CPU, BlockIO, LinuxResources, Memory


def writes(resources: LinuxResources) -> list[Write]:
    """What to write, in an order that the kernel accepts; files are relative to the group's directory."""
    result: list[Write] = []
    for rule in resources.devices:
        result.append(Write("devices", "devices.allow" if rule.allow else "devices.deny", device_rule(rule)))
    if resources.memory is not None:
        result += _memory(resources.memory)
    if resources.cpu is not None:
        result += _cpu(resources.cpu)
    if resources.pids is not None:
        limit = resources.pids.limit
        result.append(Write("pids", "pids.max", str(limit) if limit > 0 else "max"))
    if resources.block_io is not None:
        result += _block_io(resources.block_io)
    for page in resources.hugepage_limits:
        result.append(Write("hugetlb", f"hugetlb.{page.page_size}.limit_in_bytes", str(page.limit)))
    if resources.network is not None:
        if resources.network.class_id is not None:
            result.append(Write("net_cls", "net_cls.classid", str(resources.network.class_id)))
        for priority in resources.network.priorities:
            result.append(Write("net_prio", "net_prio.ifpriomap", f"{priority.name} {priority.priority}"))
    return result


def _memory(memory: Memory) -> list[Write]:
    limits = [
        ("memory.limit_in_bytes", memory.limit), ("memory.memsw.limit_in_bytes", memory.swap),
    ]  # fmt: skip
    # Memory may never exceed memory and swap together. A group begins without limits, so the smaller one goes first;
    # to raise the limits of a live group takes the other order, and `optional` says that the write may be repeated.
    result = [
        Write("memory", file, str(value), optional=file.startswith("memory.memsw"), retry=True)
        for file, value in limits
        if value is not None
    ]
    for file, value in (
        ("memory.soft_limit_in_bytes", memory.reservation),
        ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
        ("memory.swappiness", memory.swappiness),
    ):
        if value is not None:
            result.append(Write("memory", file, str(value)))
    if memory.disable_oom_killer:
        result.append(Write("memory", "memory.oom_control", "1"))
    return result


def _cpu(cpu: CPU) -> list[Write]:
    result = [
        Write("cpu", file, str(value))
        for file, value in (
            ("cpu.shares", cpu.shares),
            # The period goes before the quota, which is checked against it.
            ("cpu.cfs_period_us", cpu.period),
            ("cpu.cfs_quota_us", cpu.quota),
            ("cpu.cfs_burst_us", cpu.burst),
            ("cpu.rt_period_us", cpu.realtime_period),
            ("cpu.rt_runtime_us", cpu.realtime_runtime),
            ("cpu.idle", cpu.idle),
        )
        if value
    ]
    if cpu.cpus:
        result.append(Write("cpuset", "cpuset.cpus", cpu.cpus))
    if cpu.mems:
        result.append(Write("cpuset", "cpuset.mems", cpu.mems))
    return result


def _block_io(io: BlockIO) -> list[Write]:
    result: list[Write] = []
    if io.weight:
        result.append(Write("blkio", "blkio.bfq.weight", str(io.weight), optional=True))
    for weight in io.weight_device:
        result.append(
            Write("blkio", "blkio.bfq.weight_device", f"{weight.major}:{weight.minor} {weight.weight}", optional=True)
        )
    for file, throttles in (
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device),
    ):
        result += [Write("blkio", file, f"{each.major}:{each.minor} {each.rate}") for each in throttles]
    return result
