"""Counters out of the kernel's files, as v1 and v2 write them."""

from __future__ import annotations

import pathlib

import pytest

from sampan.linux.cgroup import counters_v1, counters_v2
from sampan.linux.cgroup.counters import BlockIOCount, BlockIOEntry, MemoryCount, PressureTimes, RdmaCount, listed


def written(directory: pathlib.Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


V2 = {
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
    "cpu.pressure": (
        "some avg10=1.50 avg60=0.00 avg300=0.25 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n"
    ),
    "memory.current": "4096\n", "memory.max": "8192\n", "memory.peak": "5000\n", "memory.events": "max 3\noom_kill 1\n",
    "memory.stat": "anon 100\nfile 200\nkernel 50\n", "memory.swap.current": "1000\n", "memory.swap.max": "2000\n",
    "memory.swap.events": "high 0\nmax 9\nfail 0\n", "pids.current": "7\n", "pids.max": "max\n",
    "io.stat": "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:0 \n",
    "hugetlb.2MB.current": "2097152\n", "hugetlb.2MB.max": "max\n", "hugetlb.2MB.events": "max 4\n",
    "hugetlb.2MB.rsvd.current": "0\n", "rdma.current": "mlx4_0 hca_handle=2 hca_object=3\n",
    "rdma.max": "mlx4_0 hca_handle=5 hca_object=max\n",
}  # fmt: skip


def test_v2(tmp_path: pathlib.Path) -> None:
    found = counters_v2.read(written(tmp_path, V2))
    assert (found.cpu_usage, found.cpu_user, found.cpu_system) == (30_000, 20_000, 10_000)
    assert (found.cpu_periods, found.cpu_throttled_periods, found.cpu_throttled_time) == (5, 2, 7000)
    assert found.cpu_pressure is not None
    assert found.cpu_pressure.some == PressureTimes(avg10=1.5, avg300=0.25, total=1234)
    assert found.cpu_pressure.full.total == 4
    assert found.memory_pressure is None
    assert (found.memory_usage, found.memory_limit, found.memory_peak, found.memory_failures) == (4096, 8192, 5000, 3)
    assert (found.memory_cache, found.memory_kernel.usage) == (200, 50)
    assert found.memory_swap == MemoryCount(limit=10192, usage=5096, failures=9)
    assert (found.pids_current, found.pids_limit) == (7, 0)
    assert found.blkio[:2] == (
        BlockIOCount(major=254, minor=0, operation="Read", bytes=4096, count=1),
        BlockIOCount(major=254, minor=0, operation="Write", bytes=8192, count=2),
    )
    assert found.block_io.serviced[1] == BlockIOEntry(major=254, minor=0, operation="Write", value=2)
    assert found.hugetlb == {"2MB": MemoryCount(usage=2 << 20, failures=4)}
    assert found.rdma == {"mlx4_0": RdmaCount(handles=2, objects=3, handles_limit=5)}


def test_v2_without_a_limit_has_none_on_swap_either(tmp_path: pathlib.Path) -> None:
    assert counters_v2.read(written(tmp_path, V2 | {"memory.max": "max\n"})).memory_swap.limit == 0
    assert counters_v2.read(written(tmp_path, V2 | {"memory.swap.max": "max\n"})).memory_swap.limit == 0


V1 = {
    "cpuacct.usage": "300\n", "cpuacct.usage_percpu": "100 200 \n", "cpuacct.stat": "user 2\nsystem 1\n",
    "cpuacct.usage_all": "cpu user system\n0 60 40\n1 150 50\n", "cpu.stat": "nr_periods 1\nthrottled_time 9\n",
    "cpuset.cpus": "0-1,4\n", "cpuset.mems": "0\n", "cpuset.sched_load_balance": "1\n",
    "cpuset.sched_relax_domain_level": "-1\n", "memory.usage_in_bytes": "10\n", "memory.failcnt": "4\n",
    "memory.limit_in_bytes": "9223372036854771712\n", "memory.max_usage_in_bytes": "20\n",
    "memory.memsw.usage_in_bytes": "15\n", "memory.memsw.limit_in_bytes": "30\n", "memory.kmem.usage_in_bytes": "3\n",
    "memory.stat": "cache 5\nrss 6\n", "pids.current": "2\n", "pids.max": "9\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 1\n8:0 Total 4097\nTotal 4097\n",
    "blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 2\nTotal 5\n",
    "hugetlb.1GB.usage_in_bytes": "0\n", "hugetlb.1GB.limit_in_bytes": "1073741824\n", "hugetlb.1GB.failcnt": "1\n",
    "hugetlb.1GB.rsvd.usage_in_bytes": "0\n",
}  # fmt: skip
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb")


def test_v1(tmp_path: pathlib.Path) -> None:
    found = counters_v1.read(dict.fromkeys(CONTROLLERS, written(tmp_path, V1)))
    assert (found.cpu_usage, found.cpu_each) == (300, (100, 200))
    assert (found.cpu_each_user, found.cpu_each_system) == ((60, 150), (40, 50))
    assert (found.cpu_periods, found.cpu_throttled_time) == (1, 9)
    assert (found.cpuset.cpus, found.cpuset.mems) == ((0, 1, 4), (0,))
    assert (found.cpuset.flags["sched_load_balance"], found.cpuset.flags["sched_relax_domain_level"]) == (1, -1)
    assert (found.memory_usage, found.memory_limit, found.memory_peak, found.memory_failures) == (10, 0, 20, 4)
    assert (found.memory_swap, found.memory_kernel.usage) == (MemoryCount(limit=30, usage=15), 3)
    assert (found.memory_cache, found.pids_limit) == (5, 9)
    assert found.blkio == (
        BlockIOCount(major=8, minor=0, operation="Read", bytes=4096, count=3),
        BlockIOCount(major=8, minor=0, operation="Write", bytes=1, count=2),
        BlockIOCount(major=8, minor=0, operation="Total", bytes=4097),
    )
    assert [each.operation for each in found.block_io.service_bytes] == ["Read", "Write", "Total"]
    assert found.hugetlb == {"1GB": MemoryCount(limit=1 << 30, failures=1)}


def test_v1_takes_what_the_bfq_scheduler_counts_where_it_counts(tmp_path: pathlib.Path) -> None:
    bfq = {"blkio.bfq.io_service_bytes_recursive": "8:0 Read 7\n", "blkio.bfq.time_recursive": "8:0 55\n"}
    found = counters_v1.read(dict.fromkeys(CONTROLLERS, written(tmp_path, V1 | bfq))).block_io
    assert [each.value for each in found.service_bytes] == [7]
    assert found.time == (BlockIOEntry(major=8, minor=0, operation="", value=55),)


def test_nothing_that_is_counted_is_nothing(tmp_path: pathlib.Path) -> None:
    assert counters_v1.read({}).memory_stat == {}
    assert counters_v2.read(str(tmp_path / "missing")).pids_current == 0


@pytest.mark.parametrize(
    ("ranges", "expected"), [("", ()), ("0\n", (0,)), ("0-2,5", (0, 1, 2, 5)), ("x,1-", ()), ("3,7-8\n", (3, 7, 8))]
)
def test_lists_of_cpus(ranges: str, expected: tuple[int, ...]) -> None:
    assert listed(ranges) == expected
