"""From resources to the kernel's files: the two pure plans."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sampan.linux.cgroup import v1, v2
from sampan.linux.cgroup.write import Write
from sampan.oci.runtime import LinuxResources


def resources(document: dict[str, Any]) -> LinuxResources:
    """As they stand in config.json."""
    return msgspec.convert(document, LinuxResources)


def plain(writes: list[Write]) -> list[tuple[str, str]]:
    return [(each.file, each.value) for each in writes]


MEMORY = {
    "limit": 100, "swap": 300, "reservation": 50, "kernel": 7, "kernelTCP": 8, "swappiness": 0,
    "disableOOMKiller": True, "useHierarchy": True,
}  # fmt: skip
CPU = {
    "shares": 1024, "quota": 50000, "period": 100000, "burst": 10, "idle": 1, "realtimeRuntime": 950,
    "realtimePeriod": 1000, "cpus": "0-1", "mems": "0",
}  # fmt: skip
THROTTLES = {
    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
}
BLOCK_IO = {
    "weight": 200, "leafWeight": 300, "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}],
    **THROTTLES,
}  # fmt: skip


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, []),
        (
            {"memory": MEMORY},
            [
                ("memory.use_hierarchy", "1"), ("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "300"),
                ("memory.soft_limit_in_bytes", "50"), ("memory.kmem.limit_in_bytes", "7"),
                ("memory.kmem.tcp.limit_in_bytes", "8"), ("memory.swappiness", "0"), ("memory.oom_control", "1"),
            ],
        ),
        ({"memory": {"limit": 0, "swap": 0, "reservation": 0, "swappiness": -1}}, []),
        ({"memory": {"swappiness": (1 << 64) - 1}}, []),
        ({"memory": {"limit": -1}}, [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")]),
        (
            {"cpu": CPU},
            [
                ("cpu.shares", "1024"), ("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000"),
                ("cpu.rt_period_us", "1000"), ("cpu.rt_runtime_us", "950"), ("cpu.cfs_burst_us", "10"),
                ("cpu.idle", "1"), ("cpuset.cpus", "0-1"), ("cpuset.mems", "0"),
            ],
        ),
        ({"cpu": {"quota": -1, "shares": 0}}, [("cpu.cfs_quota_us", "-1")]),
        ({"pids": {"limit": 5}}, [("pids.max", "5")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")]),
        ({"pids": {}}, []),
        (
            {"blockIO": BLOCK_IO},
            [
                ("blkio.weight", "200"), ("blkio.leaf_weight", "300"), ("blkio.weight_device", "8:0 10"),
                ("blkio.leaf_weight_device", "8:0 20"), ("blkio.throttle.read_bps_device", "8:0 1"),
                ("blkio.throttle.write_bps_device", "8:0 2"), ("blkio.throttle.read_iops_device", "8:0 3"),
                ("blkio.throttle.write_iops_device", "8:0 0"),
            ],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]},
            [("hugetlb.2MB.limit_in_bytes", "4"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4")],
        ),
        (
            {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}},
            [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5")],
        ),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}, "rxe3": {}}},
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "mlx4_0 hca_object=1")],
        ),
    ],
)  # fmt: skip
def test_v1(document: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert plain(v1.writes(resources(document))) == expected


def test_v1_may_lack_what_was_not_asked_for() -> None:
    def lacking(document: dict[str, Any]) -> list[str]:
        return [each.file for each in v1.writes(resources(document)) if each.optional]

    assert lacking({"memory": {"limit": 1, "swap": 2}}) == []
    assert lacking({"memory": {"limit": -1}}) == ["memory.memsw.limit_in_bytes"]
    assert lacking({"cpu": {"idle": 0, "burst": 0}}) == ["cpu.cfs_burst_us", "cpu.idle"]
    assert lacking({"cpu": {"idle": 1, "burst": 1}}) == []
    assert lacking({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]}) == ["hugetlb.2MB.rsvd.limit_in_bytes"]
    (weight,) = v1.writes(resources({"blockIO": {"weight": 9}}))
    assert (weight.instead, weight.optional) == (("blkio.bfq.weight", "9"), False)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"unified": {"memory.high": "1"}}, "unified"),
        ({"memory": {"swappiness": 101}}, "swappiness"),
        ({"cpu": {"shares": 1}}, "shares"),
        ({"cpu": {"shares": 262145}}, "shares"),
        ({"hugepageLimits": [{"pageSize": "../x", "limit": 4}]}, "page size"),
        ({"network": {"priorities": [{"name": "eth0 6", "priority": 5}]}}, "interface"),
        ({"rdma": {"a b": {"hcaHandles": 1}}}, "rdma"),
    ],
)
def test_v1_refuses_by_name(document: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        v1.writes(resources(document))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, []),
        (
            {"memory": {"limit": 100, "swap": 300, "reservation": 50, "disableOOMKiller": False, "useHierarchy": True}},
            [("memory.swap.max", "200"), ("memory.max", "100"), ("memory.low", "50")],
        ),
        ({"memory": {"limit": 100, "swap": 100}}, [("memory.swap.max", "0"), ("memory.max", "100")]),
        ({"memory": {"limit": 100, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", "100")]),
        ({"memory": {"limit": -1, "swap": 7}}, [("memory.swap.max", "7"), ("memory.max", "max")]),
        ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"memory": {"swap": -1}}, [("memory.swap.max", "max")]),
        ({"memory": {"limit": 0, "swap": 0, "swappiness": -1, "kernel": 0}}, []),
        (
            {"cpu": {key: value for key, value in CPU.items() if not key.startswith("realtime")}},
            [
                ("cpu.weight", "100"), ("cpu.max", "50000 100000"), ("cpu.max.burst", "10"), ("cpu.idle", "1"),
                ("cpuset.cpus", "0-1"), ("cpuset.mems", "0"),
            ],
        ),
        ({"cpu": {"quota": 5000}}, [("cpu.max", "5000")]),
        ({"cpu": {"quota": -1, "period": 50000, "realtimeRuntime": 0}}, [("cpu.max", "max 50000")]),
        ({"cpu": {"period": 50000}}, [("cpu.max", "50000")]),
        ({"pids": {"limit": -7}}, [("pids.max", "max")]),
        ({"pids": {}}, []),
        (
            {"blockIO": {"weight": 200, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}], **THROTTLES}},
            [
                ("io.bfq.weight", "default 200"), ("io.bfq.weight", "8:0 10"), ("io.max", "8:0 rbps=1"),
                ("io.max", "8:0 wbps=2"), ("io.max", "8:0 riops=3"), ("io.max", "8:0 wiops=max"),
            ],
        ),
        (
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 4}]},
            [("hugetlb.1GB.max", "4"), ("hugetlb.1GB.rsvd.max", "4")],
        ),
        ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, [("rdma.max", "mlx5_1 hca_handle=3")]),
        ({"network": {"priorities": []}}, []),
        (
            {"unified": {"memory.high": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
            [("memory.high", "5"), ("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")],
        ),
    ],
)  # fmt: skip
def test_v2(document: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert plain(v2.writes(resources(document))) == expected


def test_v2_may_lack_what_was_not_asked_for() -> None:
    def lacking(document: dict[str, Any]) -> list[str]:
        return [each.file for each in v2.writes(resources(document)) if each.optional]

    assert lacking({"memory": {"limit": 1, "swap": 2}}) == []
    assert lacking({"memory": {"limit": 1, "swap": 1}}) == ["memory.swap.max"]
    assert lacking({"memory": {"swap": -1}}) == ["memory.swap.max"]
    (weight,) = v2.writes(resources({"blockIO": {"weight": 1000}}))
    assert weight.instead == ("io.weight", "default 10000")
    (period,) = v2.writes(resources({"cpu": {"period": 5000}}))
    assert period.keeps_first


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"memory": {"limit": 100, "swap": 99}}, "memory and swap together"),
        ({"memory": {"swap": 99}}, "needs one on memory"),
        ({"memory": {"kernel": 1}}, "memory.kernel"),
        ({"memory": {"kernelTCP": 1}}, "memory.kernelTCP"),
        ({"memory": {"swappiness": 10}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
        ({"memory": {"useHierarchy": False}}, "memory.useHierarchy"),
        ({"cpu": {"realtimeRuntime": 1}}, "cpu.realtimeRuntime"),
        ({"cpu": {"realtimePeriod": 1}}, "cpu.realtimePeriod"),
        ({"blockIO": {"leafWeight": 10}}, "leafWeight"),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}}, "leafWeight"),
        ({"network": {"classID": 1}}, "network"),
        ({"unified": {"../x.y": "1"}}, "unified"),
        ({"unified": {"memory": "1"}}, "unified"),
    ],
)
def test_v2_refuses_by_name(document: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        v2.writes(resources(document))


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(1, 1), (2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (102400, 4429), (262144, 10000), (1 << 30, 10000)],
)
def test_shares_become_weight_on_runcs_curve(shares: int, weight: int) -> None:
    assert v2.weight(shares) == weight
