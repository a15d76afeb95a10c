"""The document of `events --stats`: runc's names, and its habit of leaving out what is 0."""

from __future__ import annotations

import msgspec

from sampan.linux.cgroup.counters import (
    BlockIOEntry,
    BlockIOTables,
    Counters,
    Cpuset,
    MemoryCount,
    Pressure,
    PressureTimes,
)
from sampan.runtime.events import oom_document, stats_document

FLAGS = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab",
    "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def test_nothing_counted_is_what_runc_shows_of_it() -> None:
    document = msgspec.json.decode(stats_document("one", Counters(memory_stat={})))
    unlimited = {"limit": 9223372036854771712, "failcnt": 0}
    assert document == {
        "type": "stats", "id": "one",
        "data": {
            "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}}, "cpuset": dict.fromkeys(FLAGS, 0),
            "memory": dict.fromkeys(("usage", "swap", "kernel", "kernelTCP"), unlimited), "pids": {}, "blkio": {},
            "hugetlb": {}, "intel_rdt": {}, "network_interfaces": None,
        },
    }  # fmt: skip


def test_everything_counted() -> None:
    pressure = Pressure(some=PressureTimes(avg10=0.5, total=3))
    entry = BlockIOEntry(major=8, minor=0, operation="Read", value=6)
    counters = Counters(
        unified=True, cpu_usage=9, cpu_each=(4, 5), cpu_user=3, cpu_throttled_periods=2, cpu_pressure=pressure,
        cpuset=Cpuset(cpus=(0, 1), flags={"sched_load_balance": 1}), memory_usage=10, memory_limit=20,
        memory_cache=4, memory_stat={"file": 4}, memory_swap=MemoryCount(usage=12, peak=13, failures=1),
        pids_current=1, pids_limit=2, block_io=BlockIOTables(service_bytes=(entry,)),
        hugetlb={"2MB": MemoryCount(usage=5, peak=6)},
    )  # fmt: skip
    data = msgspec.json.decode(stats_document("one", counters))["data"]
    assert data["cpu"]["usage"] == {"total": 9, "percpu": [4, 5], "kernel": 0, "user": 3}
    assert data["cpu"]["throttling"] == {"throttledPeriods": 2}
    assert data["cpu"]["psi"]["some"] == {"avg10": 0.5, "avg60": 0.0, "avg300": 0.0, "total": 3}
    assert (data["cpuset"]["cpus"], data["cpuset"]["sched_load_balance"]) == ([0, 1], 1)
    assert data["memory"]["usage"] == {"limit": 20, "usage": 10, "failcnt": 0}
    assert data["memory"]["swap"] == {"limit": (1 << 64) - 1, "usage": 12, "max": 13, "failcnt": 1}
    assert (data["memory"]["cache"], data["memory"]["raw"]) == (4, {"file": 4})
    assert data["pids"] == {"current": 1, "limit": 2}
    assert data["blkio"] == {"ioServiceBytesRecursive": [{"major": 8, "op": "Read", "value": 6}]}
    assert data["hugetlb"] == {"2MB": {"usage": 5, "max": 6, "failcnt": 0}}


def test_an_end_for_want_of_memory() -> None:
    assert msgspec.json.decode(oom_document("one")) == {"type": "oom", "id": "one"}
