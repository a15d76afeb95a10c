"""Cgroup v2 as the kernel has it: controllers passed down, limits, devices, freezing, killing, running out of memory.

`./test --vm` runs these where the machine itself has v1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import pytest

from sampan.linux import bpf, namespaces
from sampan.linux.cgroup import Cgroup, devices
from sampan.oci.runtime import (
    CPU,
    BlockIO,
    DeviceCgroup,
    HugepageLimit,
    LinuxResources,
    Memory,
    Pids,
    ThrottleDevice,
    WeightDevice,
)

pytestmark = pytest.mark.requires("root", "cgroup2")

NOTHING = DeviceCgroup(allow=False, access="rwm")
BASE = f"/sampan-test-{os.getpid()}"


def rule(allow: bool, minor: int, access: str) -> DeviceCgroup:
    """On one of /dev/null (3), zero (5) and full (7)."""
    return DeviceCgroup(allow=allow, type="c", major=1, minor=minor, access=access)


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup(f"{BASE}/above/group")
    made.create()
    yield made
    base = Cgroup(BASE)
    base.kill()
    base.delete()
    assert not base.exists()


def opened(group: Cgroup) -> int:
    descriptor = group.open()
    assert descriptor is not None
    return descriptor


def child(group: Cgroup) -> tuple[int, int]:
    """A process that sleeps, born in the group, and its pidfd."""
    descriptor = opened(group)
    try:
        pid, pidfd = namespaces.clone(0, descriptor)
    finally:
        os.close(descriptor)
    if pid == 0:
        signal.pause()
        os._exit(0)
    return pid, pidfd


def opens(group: Cgroup, path: str, flags: int) -> bool:
    """Whether a process born in the group may open the device."""
    descriptor = opened(group)
    try:
        pid, pidfd = namespaces.clone(0, descriptor)
    finally:
        os.close(descriptor)
    if pid == 0:
        status = 2
        with contextlib.suppress(BaseException):
            try:
                os.open(path, flags)
                status = 0
            except PermissionError:
                status = 1
        os._exit(status)
    os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1)
    return status == 0


def text(group: Cgroup, file: str) -> str:
    return pathlib.Path(group.directories[0], file).read_text().strip()


def test_limits_arrive_and_change(group: Cgroup) -> None:
    group.apply(
        LinuxResources(
            memory=Memory(limit=64 << 20, swap=96 << 20, reservation=32 << 20), pids=Pids(limit=20),
            cpu=CPU(shares=1024, quota=50000, period=100000, cpus="0"),
        )
    )  # fmt: skip
    expected = {"memory.max": 64 << 20, "memory.low": 32 << 20, "pids.max": 20, "cpu.weight": 100, "cpuset.cpus": 0}
    assert {file: int(text(group, file)) for file in expected} == expected
    assert text(group, "cpu.max") == "50000 100000"
    group.apply(LinuxResources(memory=Memory(limit=0), pids=Pids(limit=-1)))
    assert (text(group, "memory.max"), text(group, "pids.max")) == (str(64 << 20), "max")
    group.apply(LinuxResources(memory=Memory(limit=-1, swap=-1)))
    assert text(group, "memory.max") == "max"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (CPU(quota=20000, period=50000), CPU(quota=30000), "30000 50000"),
        (CPU(quota=20000, period=50000), CPU(period=100000), "20000 100000"),
        (CPU(quota=20000, period=50000), CPU(quota=-1), "max 50000"),
        (CPU(), CPU(period=50000), "max 50000"),
    ],
)
def test_quota_and_period_alone(group: Cgroup, before: CPU, after: CPU, expected: str) -> None:
    group.apply(LinuxResources(cpu=before))
    group.apply(LinuxResources(cpu=after), update=True)
    assert text(group, "cpu.max") == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CPU(quota=50000, period=100000, burst=50000), CPU(quota=20000, period=100000, burst=10000)),
        (CPU(quota=20000, period=100000, burst=10000), CPU(quota=50000, period=100000, burst=50000)),
        (CPU(idle=1), CPU(idle=0, shares=512)),
        (CPU(shares=512), CPU(idle=1, shares=1024)),
    ],
)
def test_cpu_changes_in_whatever_order_it_takes(group: Cgroup, before: CPU, after: CPU) -> None:
    group.apply(LinuxResources(cpu=before))
    group.apply(LinuxResources(cpu=after), update=True)
    if after.burst:
        assert (text(group, "cpu.max"), text(group, "cpu.max.burst")) == (f"{after.quota} 100000", str(after.burst))
    else:
        assert text(group, "cpu.idle") == str(after.idle)


def test_swap_alone_is_counted_from_the_memory_there_is(group: Cgroup) -> None:
    with pytest.raises(ValueError, match="needs one on memory"):
        group.apply(LinuxResources(memory=Memory(swap=96 << 20)), update=True)
    group.apply(LinuxResources(memory=Memory(limit=64 << 20, swap=64 << 20)))
    assert text(group, "memory.swap.max") == "0"
    group.apply(LinuxResources(memory=Memory(swap=96 << 20)), update=True)
    assert text(group, "memory.swap.max") == str(32 << 20)


def test_an_update_that_is_refused_changes_nothing(group: Cgroup) -> None:
    group.apply(LinuxResources(memory=Memory(limit=64 << 20, swap=64 << 20), pids=Pids(limit=7)))
    with pytest.raises(OSError, match="out of range") as refused:
        group.apply(
            LinuxResources(memory=Memory(limit=32 << 20), pids=Pids(limit=5), unified={"cpu.weight": "0"}), update=True
        )
    assert str(refused.value.filename).endswith("/cpu.weight")
    assert (text(group, "memory.max"), text(group, "pids.max")) == (str(64 << 20), "7")


def test_a_limit_below_what_is_in_use(group: Cgroup) -> None:
    pid, pidfd = child(group)
    usage = int(text(group, "memory.current"))
    assert usage > 0
    with pytest.raises(OSError, match=r"rejecting memory limit 4096 <= usage"):
        group.apply(LinuxResources(memory=Memory(limit=4096, check_before_update=True)), update=True)
    with pytest.raises(OSError, match=r"rejecting memory\+swap limit 4096 <= usage"):
        group.apply(LinuxResources(memory=Memory(limit=-1, swap=4096, check_before_update=True)), update=True)
    assert text(group, "memory.max") == "max"
    group.kill()
    os.waitpid(pid, 0)
    os.close(pidfd)


def test_block_io(group: Cgroup) -> None:
    device = next(pathlib.Path("/sys/block").glob("[vs]d*"))
    major, minor = map(int, (device / "dev").read_text().split(":"))

    def throttle(rate: int) -> tuple[ThrottleDevice, ...]:
        return (ThrottleDevice(major=major, minor=minor, rate=rate),)

    group.apply(
        LinuxResources(
            block_io=BlockIO(
                throttle_read_bps_device=throttle(1 << 20), throttle_write_bps_device=throttle(2 << 20),
                throttle_read_iops_device=throttle(300), throttle_write_iops_device=throttle(400),
            )
        )
    )  # fmt: skip
    assert text(group, "io.max") == f"{major}:{minor} rbps=1048576 wbps=2097152 riops=300 wiops=400"
    group.apply(LinuxResources(block_io=BlockIO(throttle_read_bps_device=throttle(0))), update=True)
    assert "rbps=max" in text(group, "io.max")
    weight = BlockIO(weight=1000, weight_device=(WeightDevice(major=major, minor=minor, weight=10),))
    files = [each for each in ("io.bfq.weight", "io.weight") if os.path.exists(f"{group.directories[0]}/{each}")]
    if not files:
        with pytest.raises(OSError, match=r"io\.weight"):
            group.apply(LinuxResources(block_io=weight))
        return
    with contextlib.suppress(OSError):  # A weight of one device needs a scheduler or a model of its costs there.
        group.apply(LinuxResources(block_io=weight))
    group.apply(LinuxResources(block_io=BlockIO(weight=1000)))
    assert text(group, files[0]).splitlines()[0] == f"default {1000 if 'bfq' in files[0] else 10000}"


def test_huge_pages(group: Cgroup) -> None:
    group.apply(LinuxResources(hugepage_limits=(HugepageLimit(page_size="2MB", limit=4 << 20),)))
    assert text(group, "hugetlb.2MB.max") == text(group, "hugetlb.2MB.rsvd.max") == str(4 << 20)
    assert group.counters().hugetlb["2MB"].limit == 4 << 20
    with pytest.raises(FileNotFoundError, match=r"hugetlb\.3MB\.max"):
        group.apply(LinuxResources(hugepage_limits=(HugepageLimit(page_size="3MB", limit=0),)))


def test_files_by_their_own_names(group: Cgroup) -> None:
    group.apply(LinuxResources(unified={"memory.high": "10000000", "cgroup.max.depth": "3"}))
    assert (text(group, "memory.high"), text(group, "cgroup.max.depth")) == ("9998336", "3")
    with pytest.raises(FileNotFoundError, match=r"memory\.nothing"):
        group.apply(LinuxResources(unified={"memory.nothing": "1"}))
    with pytest.raises(FileNotFoundError, match="the magic controller is not available"):
        group.apply(LinuxResources(unified={"magic.max": "1"}))


def test_a_group_that_is_threaded_takes_none_below() -> None:
    above = Cgroup(f"{BASE}-threaded/above")
    os.makedirs(above.directories[0])  # Without controllers, of which some know no threads.
    try:
        pathlib.Path(above.directories[0], "cgroup.type").write_text("threaded")
        with pytest.raises(OSError, match="threaded"):
            Cgroup(f"{above.path}/group").create()
        assert not Cgroup(f"{above.path}/group").exists()
    finally:
        Cgroup(f"{BASE}-threaded").delete()


def test_where_a_group_is_that_has_no_absolute_path(group: Cgroup) -> None:
    """runc's: below the group above this process's own, as that has processes."""
    pid, pidfd = namespaces.clone(0, opened(group))
    if pid == 0:
        named = [Cgroup.named(path, "id").path for path in ("", "a/../../b", "/a/../c//d")]
        os._exit(int(named != [f"{BASE}/above/id", f"{BASE}/above/b", "/c/d"]))
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_pressure_is_counted(group: Cgroup) -> None:
    found = group.counters()
    if os.path.exists("/proc/pressure/cpu"):
        assert found.cpu_pressure is not None
        assert found.memory_pressure is not None
        assert found.block_io_pressure is not None
    assert found.memory_stat["anon"] >= 0


def test_a_group_below_one_that_was_there_gets_its_controllers() -> None:
    above = pathlib.Path(f"/sys/fs/cgroup{BASE}")
    above.mkdir()
    group = Cgroup(f"{BASE}/group")
    try:
        assert not (above / "cgroup.subtree_control").read_text().strip()
        group.create()
        group.apply(LinuxResources(pids=Pids(limit=7)))
        assert text(group, "pids.max") == "7"
    finally:
        group.delete()
        above.rmdir()


def test_a_controller_that_a_group_with_processes_cannot_pass_on_is_named(group: Cgroup) -> None:
    pid, pidfd = child(group)
    below = Cgroup(f"{group.path}/below")
    below.create()
    with pytest.raises(FileNotFoundError, match="the memory controller is not available") as failed:
        below.apply(LinuxResources(memory=Memory(limit=1 << 20)))
    assert failed.value.errno == errno.ENOENT
    group.kill()
    os.waitpid(pid, 0)
    os.close(pidfd)


@pytest.mark.parametrize(
    ("rules", "null_write", "null_both", "zero_read"),
    [
        ((NOTHING,), False, False, False),
        ((NOTHING, rule(True, 3, "rwm")), True, True, False),
        ((NOTHING, rule(True, 3, "w")), True, False, False),
        # Kinds that two rules allow add up, and what one refuses is refused together with others too.
        ((NOTHING, rule(True, 3, "r"), rule(True, 3, "w")), True, True, False),
        ((NOTHING, rule(True, 3, "rwm"), rule(False, 3, "r")), True, False, False),
        ((DeviceCgroup(allow=True, access="rwm"), rule(False, 3, "w")), False, False, True),
        ((rule(False, 3, "rwm"), DeviceCgroup(allow=True, access="rwm")), True, True, True),
        ((NOTHING, DeviceCgroup(allow=True, type="c", major=1, access="r")), False, False, True),
        ((NOTHING, DeviceCgroup(allow=True, type="b", access="rwm")), False, False, False),
    ],
)
def test_device_rules(
    group: Cgroup, rules: tuple[DeviceCgroup, ...], null_write: bool, null_both: bool, zero_read: bool
) -> None:
    group.apply(LinuxResources(devices=rules))
    assert opens(group, "/dev/null", os.O_WRONLY) == null_write
    assert opens(group, "/dev/null", os.O_RDWR) == null_both
    assert opens(group, "/dev/zero", os.O_RDONLY) == zero_read


def test_new_device_rules_replace_the_old(group: Cgroup) -> None:
    group.apply(LinuxResources(devices=(NOTHING,)))
    for _ in range(3):
        bpf_rules = (NOTHING, rule(True, 5, "rwm"))
        group.apply(LinuxResources(devices=bpf_rules))
        assert opens(group, "/dev/zero", os.O_RDWR)
        assert not opens(group, "/dev/full", os.O_RDWR)
    descriptor = opened(group)
    assert len(bpf.attached(descriptor)) == 1
    bpf.attach_device_program(descriptor, devices.program((DeviceCgroup(allow=True, access="rwm"),)))
    os.close(descriptor)
    assert opens(group, "/dev/full", os.O_RDWR)


def test_freezing_and_killing(group: Cgroup) -> None:
    pid, pidfd = child(group)
    assert group.pids() == [pid]
    group.freeze(True)
    assert group.frozen()
    group.freeze(False)
    assert not group.frozen()
    group.freeze(True)
    group.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    os.close(pidfd)
    assert group.pids() == []


def test_a_process_that_wants_too_much_memory_is_counted(group: Cgroup) -> None:
    group.apply(LinuxResources(memory=Memory(limit=24 << 20, swap=24 << 20)))
    descriptor = opened(group)
    pid, pidfd = namespaces.clone(0, descriptor)
    if pid == 0:
        hog = bytearray(96 << 20)
        os._exit(hog[0])
    os.close(descriptor)
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while not group.oom_kills() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert group.oom_kills() == 1
    assert group.counters().memory_limit == 24 << 20


def test_a_way_in_beside_a_process_of_a_divided_group(group: Cgroup) -> None:
    leaf = Cgroup(f"{group.path}/leaf")
    leaf.create()
    pid, pidfd = child(leaf)
    with pytest.raises(OSError, match="busy") as refused:
        child(group)
    assert refused.value.errno == errno.EBUSY
    beside = group.open_beside(pid)
    assert os.path.samestat(os.fstat(beside), os.stat(leaf.directories[0]))
    os.close(beside)
    with pytest.raises(OSError, match="busy"):
        leaf.open_beside(os.getpid())
    group.kill()
    os.waitpid(pid, 0)
    os.close(pidfd)
