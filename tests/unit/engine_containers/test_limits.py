"""From Docker's limits to the runtime specification's, as far as this machine's cgroups have them."""

from __future__ import annotations

import pytest

from sampan.api.containers import Resources
from sampan.engine.containers import spec
from sampan.oci.runtime import Memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("version", "counted", "limits", "expected"),
    [
        ("1", True, Resources(memory=MIB), Memory(limit=MIB, swap=2 * MIB)),
        ("1", False, Resources(memory=MIB), Memory(limit=MIB, swap=-1)),
        ("1", False, Resources(memory=MIB, memory_swap=3 * MIB), Memory(limit=MIB, swap=-1)),
        ("2", False, Resources(memory=MIB, memory_swap=3 * MIB), Memory(limit=MIB, swap=3 * MIB)),
        ("1", True, Resources(memory_swappiness=5), Memory(swappiness=5)),
        ("1", True, Resources(memory_swappiness=-1), None),
        ("2", True, Resources(memory_swappiness=5), None),
        ("1", True, Resources(oom_kill_disable=True), Memory(disable_oom_killer=True)),
        ("2", True, Resources(oom_kill_disable=True), None),
        ("1", True, Resources(), None),
    ],
)
def test_memory(
    monkeypatch: pytest.MonkeyPatch, version: str, counted: bool, limits: Resources, expected: Memory | None
) -> None:
    monkeypatch.setattr(spec, "cgroup_version", lambda: version)
    monkeypatch.setattr(spec, "cgroup_has", lambda *_: counted)
    assert spec.resources(limits).memory == expected
