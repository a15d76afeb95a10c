"""Scopes' names, limits as systemd's properties, and the messages that ask for them."""

from __future__ import annotations

import struct

import pytest

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import dbus
from sampan.oci.runtime import CPU, LinuxResources, Memory, Pids
from sampan.runtime.scope import annotated, properties, scope, values


@pytest.mark.parametrize(
    ("text", "unit", "path"),
    [
        ("", "sampan-id.scope", "/system.slice/sampan-id.scope"),
        ("machine.slice:libpod:abc", "libpod-abc.scope", "/machine.slice/libpod-abc.scope"),
        ("a-b-c.slice::x", "x.scope", "/a.slice/a-b.slice/a-b-c.slice/x.scope"),
        ("-.slice:p:x", "p-x.scope", "/p-x.scope"),
    ],
)
def test_names(text: str, unit: str, path: str) -> None:
    found = scope(text, "id")
    assert (found.unit, found.path) == (unit, path)


def test_an_ordinary_users_slice() -> None:
    assert scope("", "id", rootless=True).path == "/user.slice/sampan-id.scope"


@pytest.mark.parametrize("text", ["/a/b", "a:b:c", "a.slice:b:", "a.slice:../b:c", "-a.slice:b:c", "a.slice:b:c d"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        scope(text, "id")


def test_a_slice_as_the_group_is_refused_by_name() -> None:
    with pytest.raises(Unsupported):
        scope("a.slice:b:c.slice", "id")


LIMITLESS = (1 << 64) - 1


@pytest.mark.parametrize(
    ("files", "version", "expected"),
    [
        ({"memory.max": "max", "memory.low": "5\n"}, 252, [("MemoryMax", "t", LIMITLESS), ("MemoryLow", "t", 5)]),
        ({"memory.min": "1", "memory.high": "2"}, 252, [("MemoryMin", "t", 1), ("MemoryHigh", "t", 2)]),
        ({"memory.swap.max": "0", "pids.max": "7"}, 252, [("MemorySwapMax", "t", 0), ("TasksMax", "t", 7)]),
        ({"cpu.weight": "100"}, 252, [("CPUWeight", "t", 100)]),
        ({"cpu.weight": "100", "cpu.idle": "1"}, 252, [("CPUWeight", "t", 0)]),
        ({"cpu.weight": "100", "cpu.idle": "1"}, 251, [("CPUWeight", "t", 100)]),
        ({"cpu.weight": "100", "cpu.idle": "0"}, 252, [("CPUWeight", "t", 100)]),
        (
            {"cpu.max": "max 50000"}, 252,
            [("CPUQuotaPerSecUSec", "t", LIMITLESS), ("CPUQuotaPeriodUSec", "t", 50_000)],
        ),
        # In whole percents, rounded up.
        ({"cpu.max": "33333"}, 241, [("CPUQuotaPerSecUSec", "t", 340_000)]),
        (
            {"cpuset.cpus": "0-2,9", "cpuset.mems": "0"}, 244,
            [("AllowedCPUs", "ay", b"\x07\x02"), ("AllowedMemoryNodes", "ay", b"\x01")],
        ),
        ({"cpuset.cpus": "0"}, 243, []),
        ({"io.max": "8:0 rbps=1", "hugetlb.2MB.max": "0", "memory.oom.group": "1"}, 255, []),
    ],
)  # fmt: skip
def test_files_as_properties(files: dict[str, str], version: int, expected: list[tuple[str, str, object]]) -> None:
    assert properties(files, version) == expected


def test_limits_as_values_of_files() -> None:
    limits = LinuxResources(
        memory=Memory(limit=1 << 20, swap=-1), pids=Pids(limit=5), cpu=CPU(quota=25000, period=50000),
        unified={"cpu.max": "70000", "memory.high": "9"},
    )  # fmt: skip
    assert values(limits) == {
        "memory.swap.max": "max", "memory.max": "1048576", "cpu.max": "70000 50000", "pids.max": "5",
        "memory.high": "9",
    }  # fmt: skip
    assert values(LinuxResources(cpu=CPU(period=50000))) == {"cpu.max": "max 50000"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TimeoutStopUSec", "uint64 123", ("TimeoutStopUSec", "t", 123)),
        ("TimeoutStopSec", "uint32 2", ("TimeoutStopUSec", "t", 2_000_000)),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", "t", 1_500_000)),
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", "s", "inactive-or-failed")),
        ("CollectMode", '"inactive"', ("CollectMode", "s", "inactive")),
        ("SendSIGHUP", "true", ("SendSIGHUP", "b", 1)),
        ("After", "['a.service', 'b.service']", ("After", "as", ("a.service", "b.service"))),
        ("CPUWeight", "-3", ("CPUWeight", "i", -3)),
        ("Odd", "double 5", ("Odd", "d", 5.0)),
    ],
)
def test_annotations_as_properties(name: str, text: str, expected: tuple[str, str, object]) -> None:
    assert annotated({f"org.systemd.property.{name}": text, "other": "thing"}) == [expected]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("X", "1"), ("A.b", "1"), ("Good1", "1"), ("After", "[1, 2]"), ("After", "(1, 2)"), ("After", "word"),
        ("StopSec", "'x'"), ("StopSec", "-1"), ("Odd", "uint64 x"),
    ],
)  # fmt: skip
def test_annotations_that_are_none(name: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match="annotation"):
        annotated({f"org.systemd.property.{name}": text})


def test_a_message_there_and_back() -> None:
    body = struct.pack("<I", 3) + b"abc\0"
    message = dbus.decode(dbus.encode_call(7, "org.example", "/a", "org.example.I", "Do", "s", body))
    assert (message.kind, message.member, message.values) == (1, "Do", ("abc",))


@pytest.mark.parametrize("size", [0, 1, 15, 20, 60])
def test_a_message_cut_short(size: int) -> None:
    body = struct.pack("<I", 900) + b"abc\0"
    whole = dbus.encode_call(7, "org.example", "/a", "org.example.I", "Do", "s", body)
    for data in (whole, whole[:size]):
        with pytest.raises(OSError, match="malformed"):
            dbus.decode(data)
