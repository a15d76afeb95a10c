"""Scopes' names, limits as systemd's properties, and the messages that ask for them."""

from __future__ import annotations

import struct

import pytest

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import dbus
from sampan.oci.runtime import CPU, LinuxResources, Memory, Pids
from sampan.runtime.scope import properties, scope, values


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


@pytest.mark.parametrize("text", ["/a/b", "a:b:c", "a.slice:b:", "a.slice:../b:c", "-a.slice:b:c", "a.slice:b:c d"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        scope(text, "id")


def test_a_slice_as_the_group_is_refused_by_name() -> None:
    with pytest.raises(Unsupported):
        scope("a.slice:b:c.slice", "id")


def test_limits_as_properties() -> None:
    limits = LinuxResources(
        memory=Memory(limit=1 << 20, swap=-1), pids=Pids(limit=5), cpu=CPU(shares=1024, quota=25000, period=50000)
    )
    assert properties(values(limits), 252) == [
        ("MemorySwapMax", "t", (1 << 64) - 1), ("MemoryMax", "t", 1 << 20), ("CPUWeight", "t", 100),
        ("CPUQuotaPerSecUSec", "t", 500_000), ("CPUQuotaPeriodUSec", "t", 50_000), ("TasksMax", "t", 5),
    ]  # fmt: skip


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
