"""What limits may be asked for, in Docker's words; and what this kernel does not have of them."""

from __future__ import annotations

import os

import msgspec

from sampan.api.containers import HostConfig, Resources
from sampan.engine.host import cgroup_has
from sampan.errors import InvalidArgument
from sampan.linux.cgroup import hierarchies

_MIN_MEMORY = 6 << 20
_PERIODS = range(1000, 1_000_001)


def check_resources(limits: Resources) -> None:
    """Raises InvalidArgument."""
    _check_memory(limits)
    _check_cpu(limits)
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")


def _check_memory(limits: Resources) -> None:
    if limits.memory and limits.memory < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if limits.memory_swap > 0 and not limits.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory and 0 < limits.memory_swap < limits.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory_reservation and limits.memory_reservation < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if limits.memory and limits.memory_reservation > limits.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(limits: Resources) -> None:
    if limits.nano_cpus and limits.cpu_period:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.nano_cpus and limits.cpu_quota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    available = os.cpu_count() or 1
    if limits.nano_cpus < 0 or limits.nano_cpus > available * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
        )  # fmt: skip
    if limits.cpu_period and limits.cpu_period not in _PERIODS:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    for number, what in (
        (limits.cpu_realtime_period, "CPU real-time period"), (limits.cpu_realtime_runtime, "CPU real-time runtime"),
    ):  # fmt: skip
        if number < 0:
            raise InvalidArgument(f"{what} must not be negative: {number}")
    if limits.cpu_realtime_period and limits.cpu_realtime_runtime > limits.cpu_realtime_period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if 0 < limits.cpu_quota < _PERIODS[0]:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for wanted, file, called, whose in (
        (limits.cpuset_cpus, "cpus", "CPUs", "cpuset cpus"),
        (limits.cpuset_mems, "mems", "memory nodes", "cpuset mems"),
    ):
        _check_set(wanted, _available(file), called, whose)


def _check_set(wanted: str, available: str, called: str, whose: str) -> None:
    if not wanted:
        return
    try:
        numbers = parse_set(wanted)
    except ValueError:
        raise InvalidArgument(f"Invalid value {wanted} for {whose}: invalid format: {wanted}") from None
    if available and not numbers <= parse_set(available):
        raise InvalidArgument(f"Requested {called} are not available - requested {wanted}, available: {available}")


def parse_set(text: str) -> set[int]:
    """`0-3,7` as numbers. Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin, end = int(first), int(last if dash else first)
        if not 0 <= begin <= end or end > 1 << 16:
            raise ValueError(text)
        found.update(range(begin, end + 1))
    return found


def _available(file: str) -> str:
    """The processors or memory nodes that groups may have; empty where the kernel does not say."""
    trees = hierarchies()
    root = trees.root("cpuset")
    try:
        with open(f"{root}/cpuset.{file}.effective" if trees.unified else f"{root}/cpuset.{file}") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def discarded(host: HostConfig) -> tuple[HostConfig, tuple[str, ...]]:
    """Without what this kernel's cgroups do not have, and a warning for each, as Docker gives them with the answer."""
    trees = hierarchies()
    warnings: list[str] = []
    for given, what in (
        ("cpu_count", "CPU count. Count"), ("cpu_percent", "CPU percent. Percent"),
        ("kernel_memory", "kernel memory limits. Limit"),
    ):  # fmt: skip
        if getattr(host, given):
            warnings.append(f"linux does not support {what} discarded.")
            host = msgspec.structs.replace(host, **{given: 0})
    for given, controller, file, what in (
        ("kernel_memory_tcp", "memory", "memory.kmem.tcp.limit_in_bytes", "kernel memory TCP limit"),
        ("cpu_realtime_period", "cpu", "cpu.rt_period_us", "CPU real-time period"),
        ("cpu_realtime_runtime", "cpu", "cpu.rt_runtime_us", "CPU real-time runtime"),
    ):
        if getattr(host, given) and (trees.unified or not cgroup_has(controller, file)):
            warnings.append(
                f"Your kernel does not support {what} or the cgroup is not mounted. {what[0].upper()}{what[1:]} "
                "discarded."
            )
            host = msgspec.structs.replace(host, **{given: 0})
    if host.oom_kill_disable and trees.unified:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        host = msgspec.structs.replace(host, oom_kill_disable=None)
    if host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    if host.memory and host.memory_swap != -1 and not cgroup_has("memory", "memory.memsw.limit_in_bytes"):
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        host = msgspec.structs.replace(host, memory_swap=-1)
    if host.memory_swappiness not in (None, -1) and trees.unified:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
        host = msgspec.structs.replace(host, memory_swappiness=None)
    if host.blkio_weight and not trees.unified and not os.path.exists(f"{trees.root('blkio')}/blkio.weight"):
        warnings.append(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        )  # fmt: skip
        host = msgspec.structs.replace(host, blkio_weight=0)
    if (
        host.blkio_weight_device
        and not trees.unified
        and not os.path.exists(f"{trees.root('blkio')}/blkio.weight_device")
    ):
        warnings.append("Your kernel does not support Block I/O weight_device. Weight-device discarded.")
        host = msgspec.structs.replace(host, blkio_weight_device=None)
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    return host, tuple(warnings)
