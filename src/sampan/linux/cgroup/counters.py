"""Reading a group's counters: cgroup v1 and v2 into the same record."""

from __future__ import annotations

import os

from sampan.linux.cgroup.write import BlockIOCount, Counters

_NO_LIMIT = 1 << 62


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int:
    """The file's number; 0 for `max`, a missing file, and the huge numbers by which v1 says that there is no limit."""
    text = _text(path).strip()
    value = int(text) if text.isdigit() else 0
    return 0 if value >= _NO_LIMIT else value


def _table(path: str) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdigit()}


def counters_v2(directory: str) -> Counters:
    cpu = _table(f"{directory}/cpu.stat")
    return Counters(
        cpu_usage=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        cpu_periods=cpu.get("nr_periods", 0),
        cpu_throttled_periods=cpu.get("nr_throttled", 0),
        cpu_throttled_time=cpu.get("throttled_usec", 0) * 1000,
        memory_usage=_number(f"{directory}/memory.current"),
        memory_peak=_number(f"{directory}/memory.peak"),
        memory_limit=_number(f"{directory}/memory.max"),
        memory_failures=_table(f"{directory}/memory.events").get("max", 0),
        memory_stat=_table(f"{directory}/memory.stat"),
        pids_current=_number(f"{directory}/pids.current"),
        pids_limit=_number(f"{directory}/pids.max"),
        blkio=tuple(_io_stat(_text(f"{directory}/io.stat"))),
    )


def _io_stat(text: str) -> list[BlockIOCount]:
    found: list[BlockIOCount] = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, separator, minor = device.partition(":")
        if not separator:
            continue
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        for operation, size, count in (("read", "rbytes", "rios"), ("write", "wbytes", "wios")):
            if size in values:
                found.append(
                    BlockIOCount(
                        major=int(major), minor=int(minor), operation=operation, bytes=int(values[size]),
                        count=int(values.get(count, 0)),
                    )
                )  # fmt: skip
    return found


def counters_v1(directories: dict[str, str]) -> Counters:
    """`directories`: the group's directory by controller."""
    cpu, usage = directories.get("cpu", ""), directories.get("cpuacct", "")
    memory, pids, blkio = directories.get("memory", ""), directories.get("pids", ""), directories.get("blkio", "")
    times, throttled = _table(f"{usage}/cpuacct.stat"), _table(f"{cpu}/cpu.stat")
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return Counters(
        cpu_usage=_number(f"{usage}/cpuacct.usage"),
        cpu_user=times.get("user", 0) * tick,
        cpu_system=times.get("system", 0) * tick,
        cpu_periods=throttled.get("nr_periods", 0),
        cpu_throttled_periods=throttled.get("nr_throttled", 0),
        cpu_throttled_time=throttled.get("throttled_time", 0),
        memory_usage=_number(f"{memory}/memory.usage_in_bytes"),
        memory_peak=_number(f"{memory}/memory.max_usage_in_bytes"),
        memory_limit=_number(f"{memory}/memory.limit_in_bytes"),
        memory_failures=_number(f"{memory}/memory.failcnt"),
        memory_stat=_table(f"{memory}/memory.stat"),
        pids_current=_number(f"{pids}/pids.current"),
        pids_limit=_number(f"{pids}/pids.max"),
        blkio=tuple(_throttle(_text(f"{blkio}/blkio.throttle.io_service_bytes"), blkio)),
    )


def _throttle(sizes: str, directory: str) -> list[BlockIOCount]:
    counts = {
        tuple(words[:2]): int(words[2])
        for words in map(str.split, _text(f"{directory}/blkio.throttle.io_serviced").splitlines())
        if len(words) == 3
    }
    found: list[BlockIOCount] = []
    for line in sizes.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in ("Read", "Write"):
            major, _, minor = words[0].partition(":")
            found.append(
                BlockIOCount(
                    major=int(major), minor=int(minor), operation=words[1].lower(), bytes=int(words[2]),
                    count=counts.get((words[0], words[1]), 0),
                )
            )  # fmt: skip
    return found
