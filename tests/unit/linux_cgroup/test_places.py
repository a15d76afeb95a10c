"""Which trees there are, where a process is in them, and who is in a group."""

from __future__ import annotations

import pathlib

import pytest

from sampan.linux.cgroup import members
from sampan.linux.cgroup.hierarchies import Hierarchies, found, listed

OTHER = "20 1 0:19 / /sys rw,nosuid shared:2 - sysfs sysfs rw"
V2 = "31 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
BESIDE = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
PAIR = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
CPUSET = "36 31 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset,noprefix,release_agent=/x,clone_children"
NAMED = "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd"
INSIDE = "35 31 0:32 /docker/a /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"

ROOT = "/sys/fs/cgroup"
FIRST = {"cpu": f"{ROOT}/cpu,cpuacct", "cpuacct": f"{ROOT}/cpu,cpuacct", "memory": f"{ROOT}/memory"}


@pytest.mark.parametrize(
    ("mounts", "systemd", "expected"),
    [
        ((OTHER, V2), True, Hierarchies(True, {"": ROOT})),
        ((OTHER, NAMED, BESIDE), True, Hierarchies(True, {"": f"{ROOT}/unified"})),
        ((OTHER, PAIR, MEMORY), True, Hierarchies(False, FIRST)),
        ((PAIR, MEMORY, BESIDE), False, Hierarchies(False, FIRST)),
        ((PAIR, MEMORY, BESIDE), True, Hierarchies(False, {**FIRST, "": f"{ROOT}/unified"})),
        ((CPUSET, NAMED), False, Hierarchies(False, {"cpuset": f"{ROOT}/cpuset", "name=systemd": f"{ROOT}/systemd"})),
        ((INSIDE,), False, Hierarchies(False, {"memory": f"{ROOT}/memory"}, {f"{ROOT}/memory": "/docker/a"})),
        ((OTHER,), False, Hierarchies(False, {})),
    ],
)
def test_what_is_mounted(mounts: tuple[str, ...], systemd: bool, expected: Hierarchies) -> None:
    assert found(mounts, systemd=systemd) == expected


@pytest.mark.parametrize(
    ("mounts", "lines", "expected"),
    [
        ((V2,), ["0::/user.slice/a.scope"], {ROOT: "/user.slice/a.scope"}),
        ((V2,), ["0::/../../b"], {ROOT: "/b"}),
        (
            (PAIR, MEMORY), ["4:memory:/m", "2:cpu,cpuacct:/c", "0::/u"],
            {f"{ROOT}/cpu,cpuacct": "/c", f"{ROOT}/memory": "/m"},
        ),
        ((INSIDE,), ["4:memory:/docker/a/b"], {f"{ROOT}/memory": "/b"}),
        ((INSIDE,), ["4:memory:/docker/a"], {f"{ROOT}/memory": "/"}),
        ((INSIDE,), ["4:memory:/docker/ab"], {f"{ROOT}/memory": "/docker/ab"}),
        ((MEMORY,), ["3:pids:/x"], {f"{ROOT}/memory": "/"}),
    ],
)  # fmt: skip
def test_where_a_process_is(mounts: tuple[str, ...], lines: list[str], expected: dict[str, str]) -> None:
    assert listed(lines, found(mounts, systemd=False)) == expected


def test_a_process_that_is_not_seen_from_here_is_none(tmp_path: pathlib.Path) -> None:
    """It shows as 0, which as a signal's target is this process's own group."""
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("0\n7\n")
    (tmp_path / "below/cgroup.procs").write_text("8\n0\n")
    assert members.processes(str(tmp_path)) == {7, 8}
