"""Cgroup v1 as the kernel has it: a tree for each controller, limits in an order that it takes, devices, places."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.errors import Unsupported
from sampan.linux import namespaces
from sampan.linux.cgroup import Cgroup, group_of, hierarchies
from sampan.oci.runtime import CPU, DeviceCgroup, HugepageLimit, LinuxResources, Memory, NetworkResources, Pids
from sampan.runtime.container import Container, Stdio
from sampan.runtime.plan import Options
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "cgroup1")

BASE = f"/sampan-test1-{os.getpid()}"
MIB = 1 << 20


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup(f"{BASE}/above/group")
    made.create()
    made.apply(LinuxResources())
    yield made
    base = Cgroup(BASE)
    base.kill()
    base.delete()
    assert not base.exists()


def text(group: Cgroup, file: str) -> str:
    directory = group.directory(file.partition(".")[0])
    assert directory is not None
    return pathlib.Path(directory, file).read_text().strip()


def started(group: Cgroup, work: Callable[[], object]) -> int:
    """A process in the group that does the work, for ever."""
    reading, writing = os.pipe()
    pid, pidfd = namespaces.clone(0, None)
    if pid == 0:
        with contextlib.suppress(BaseException):
            group.join()
            os.write(writing, b".")
            while True:
                work()
        os._exit(1)
    os.close(pidfd)
    os.close(writing)
    assert os.read(reading, 1) == b"."
    os.close(reading)
    return pid


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- Limits --------------------------------------------------------------------------------------------------


def memory(group: Cgroup) -> tuple[int, int]:
    return int(text(group, "memory.limit_in_bytes")), int(text(group, "memory.memsw.limit_in_bytes"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((32, 64), (128, 256)), ((128, 256), (32, 64)), ((32, 256), (128, 128)), ((128, 128), (32, 256)),
        ((64, 64), (64, 64)),
    ],
)  # fmt: skip
def test_memory_is_raised_and_lowered(group: Cgroup, before: tuple[int, int], after: tuple[int, int]) -> None:
    group.apply(LinuxResources(memory=Memory(limit=before[0] * MIB, swap=before[1] * MIB)))
    group.apply(LinuxResources(memory=Memory(limit=after[0] * MIB, swap=after[1] * MIB)), update=True)
    assert memory(group) == (after[0] * MIB, after[1] * MIB)
    group.apply(LinuxResources(memory=Memory(limit=-1)), update=True)
    assert min(memory(group)) > 1 << 60


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CPU(quota=50000, period=100000), CPU(quota=5000, period=10000)),
        (CPU(quota=5000, period=10000), CPU(quota=50000, period=100000)),
        (CPU(quota=50000, period=100000, burst=50000), CPU(quota=20000, burst=10000)),
        (CPU(quota=20000, period=100000, burst=10000), CPU(quota=50000, burst=50000)),
        (CPU(idle=1), CPU(idle=0, shares=512)),
        (CPU(shares=512), CPU(idle=1)),
    ],
)
def test_cpu_changes_in_whatever_order_it_takes(group: Cgroup, before: CPU, after: CPU) -> None:
    # The group above has no room: period and quota are checked against it together.
    Cgroup(f"{BASE}/above").apply(LinuxResources(cpu=CPU(quota=50000, period=100000)))
    group.apply(LinuxResources(cpu=before))
    group.apply(LinuxResources(cpu=after), update=True)
    for file, value in (
        ("cpu.cfs_quota_us", after.quota), ("cpu.cfs_period_us", after.period), ("cpu.cfs_burst_us", after.burst),
        ("cpu.shares", after.shares), ("cpu.idle", after.idle),
    ):  # fmt: skip
        assert value is None or int(text(group, file)) == value


def test_an_update_that_is_refused_changes_nothing(group: Cgroup) -> None:
    group.apply(LinuxResources(memory=Memory(limit=64 * MIB, swap=128 * MIB), cpu=CPU(shares=512), pids=Pids(limit=7)))
    with pytest.raises(OSError, match="Numerical result") as refused:
        group.apply(
            LinuxResources(memory=Memory(limit=32 * MIB), cpu=CPU(shares=100, cpus="4000"), pids=Pids(limit=5)),
            update=True,
        )
    assert str(refused.value.filename).endswith("/cpuset.cpus")
    assert memory(group) == (64 * MIB, 128 * MIB)
    assert (text(group, "cpu.shares"), text(group, "pids.max")) == ("512", "7")


def test_a_limit_below_what_is_in_use(group: Cgroup) -> None:
    kept = bytearray()

    def use() -> None:
        if not kept:
            kept.extend(os.urandom(1) * (48 * MIB))
        time.sleep(1)

    pid = started(group, use)
    while int(text(group, "memory.usage_in_bytes")) < 48 * MIB:
        time.sleep(0.01)
    wanted = LinuxResources(memory=Memory(limit=8 * MIB, swap=8 * MIB, check_before_update=True))
    with pytest.raises(OSError, match="rejecting memory limit"):
        group.apply(wanted, update=True)
    assert min(memory(group)) > 1 << 60
    group.kill()
    assert reap(pid) == -signal.SIGKILL


def test_real_time_of_a_group_that_has_some_above(group: Cgroup) -> None:
    if not os.path.exists(f"{group.directory('cpu')}/cpu.rt_runtime_us"):
        pytest.skip("the kernel has no groups of real-time processes")
    limits = LinuxResources(cpu=CPU(realtime_period=500000, realtime_runtime=1000))
    with pytest.raises(OSError, match="Invalid argument") as refused:
        group.apply(limits)
    assert str(refused.value.filename).endswith("/cpu.rt_runtime_us")
    for path in (BASE, f"{BASE}/above"):
        Cgroup(path).apply(limits)
    group.apply(limits)
    assert (text(group, "cpu.rt_period_us"), text(group, "cpu.rt_runtime_us")) == ("500000", "1000")


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (LinuxResources(network=NetworkResources(class_id=5)), "net_cls"),
        (LinuxResources(hugepage_limits=(HugepageLimit(page_size="2MB", limit=0),)), "hugetlb"),
        (LinuxResources(memory=Memory(kernel=1 << 30)), "memory.kmem.limit_in_bytes"),
    ],
)
def test_what_this_kernel_lacks_is_named(group: Cgroup, limits: LinuxResources, named: str) -> None:
    if named in hierarchies().roots:
        pytest.skip(f"the {named} controller is mounted")
    with pytest.raises(OSError, match=named):
        group.apply(limits)


@pytest.mark.requires("program:busybox")
def test_systemds_driver_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    box = Box(tmp_path)
    spec = box.spec("true", cgroups_path="system.slice:box:one")
    with pytest.raises(Unsupported, match="cgroup v2 only"):
        Container.create(box.id, str(box.bundle), box.state_root, Stdio(), spec=spec, options=Options(systemd=True))
    assert os.listdir(box.state_root) == []


# --- Devices -------------------------------------------------------------------------------------------------

NULL, ZERO = (DeviceCgroup(allow=True, type="c", major=1, minor=each, access="rwm") for each in (3, 5))
NOTHING = DeviceCgroup(allow=False)


def opens(group: Cgroup, path: str) -> bool:
    pid, pidfd = namespaces.clone(0, None)
    if pid == 0:
        status = 2
        with contextlib.suppress(BaseException):
            group.join()
            try:
                os.open(path, os.O_RDWR)
                status = 0
            except PermissionError:
                status = 1
        os._exit(status)
    os.close(pidfd)
    status = reap(pid)
    assert status in (0, 1)
    return status == 0


def test_devices_and_an_update_of_them(group: Cgroup) -> None:
    group.apply(LinuxResources(devices=(NOTHING, NULL)))
    assert (opens(group, "/dev/null"), opens(group, "/dev/zero")) == (True, False)
    group.apply(LinuxResources(devices=(NOTHING, ZERO)), update=True)
    assert (opens(group, "/dev/null"), opens(group, "/dev/zero")) == (False, True)
    group.apply(LinuxResources(devices=(DeviceCgroup(allow=True),)), update=True)
    assert (opens(group, "/dev/null"), opens(group, "/dev/full")) == (True, True)


def test_an_update_of_devices_interrupts_nobody(group: Cgroup) -> None:
    group.apply(LinuxResources(devices=(NOTHING, NULL)))

    def use() -> None:
        os.close(os.open("/dev/null", os.O_RDWR))

    pid = started(group, use)
    for more in (ZERO, NULL) * 20:
        group.apply(LinuxResources(devices=(NOTHING, NULL, more)), update=True)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    group.kill()
    assert reap(pid) == -signal.SIGKILL


# --- Places --------------------------------------------------------------------------------------------------


def test_a_relative_path_is_below_ones_own_group_in_each_tree(group: Cgroup) -> None:
    own = Cgroup(group.path, {group.directories[0].removesuffix(group.path): group.path})
    pid, pidfd = namespaces.clone(0, None)
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            own.join()
            named = Cgroup.named("a/../../b", "id")
            expected = f"{group.path}/b"
            places = named.places or {}
            status = int(expected not in places.values() or len(set(places.values())) < 2 or named.path != "/b")
        os._exit(status)
    os.close(pidfd)
    assert reap(pid) == 0


@pytest.mark.parametrize("path", ["/", "//", "/..", "/a/.."])
def test_the_root_is_no_containers_group(path: str) -> None:
    with pytest.raises(ValueError, match="invalid cgroup path"):
        Cgroup.named(path, "id")


@pytest.mark.parametrize("name", ["x" * 5000, "a\nb"])
def test_a_path_that_cannot_be_made_leaves_nothing(name: str) -> None:
    with pytest.raises(OSError, match=r"too long|Invalid"):
        Cgroup(f"{BASE}-bad/above/{name}").create()
    assert not Cgroup(f"{BASE}-bad").exists()


def test_a_group_that_is_there_is_taken_if_nobody_is_in_it(group: Cgroup) -> None:
    Cgroup(group.path).create()
    below = Cgroup(f"{group.path}/below")
    below.create()
    below.apply(LinuxResources())
    pid = started(below, signal.pause)
    with pytest.raises(FileExistsError, match=rf"not empty: processes in it: {pid}"):
        Cgroup(group.path).create()
    assert below.pids() == [pid]
    group.kill()
    reap(pid)


def test_a_frozen_group_is_not_taken(group: Cgroup) -> None:
    above = Cgroup(f"{BASE}/above")
    above.freeze(True)
    try:
        with pytest.raises(OSError, match="frozen"):
            Cgroup(f"{BASE}/above/other").create()
        assert not Cgroup(f"{BASE}/above/other").exists()
    finally:
        above.freeze(False)


def test_cpusets_are_inherited_from_however_far_above(group: Cgroup) -> None:
    deep = Cgroup(f"{BASE}/x/y/z")
    deep.create()
    directory = deep.directory("cpuset")
    assert directory is not None
    assert text(deep, "cpuset.cpus") == ""
    deep.apply(LinuxResources())
    root = pathlib.Path(directory.removesuffix(deep.path))
    assert text(deep, "cpuset.cpus") == (root / "cpuset.cpus").read_text().strip()
    narrow = Cgroup(f"{BASE}/x/narrow")
    narrow.create()
    narrow.apply(LinuxResources(cpu=CPU(cpus="0")))
    assert (text(narrow, "cpuset.cpus"), text(narrow, "cpuset.mems")) == ("0", "0")


def test_the_group_of_a_process(group: Cgroup) -> None:
    pid = started(group, signal.pause)
    found = group_of(pid)
    assert found is not None
    assert found.directories == group.directories
    group.kill()
    reap(pid)
