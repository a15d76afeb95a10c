"""An image's time of creation, as Go writes it."""

from __future__ import annotations

import pytest

from sampan.core import archives


@pytest.mark.parametrize(("now", "written"), [
    (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
    (1_700_000_000_123_456_700, "2023-11-14T22:13:20.1234567Z"),
    (1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"),
    (1_700_000_000_000_000_000, "2023-11-14T22:13:20Z"),
])  # fmt: skip
def test_moment(monkeypatch: pytest.MonkeyPatch, now: int, written: str) -> None:
    monkeypatch.setattr("time.time_ns", lambda: now)
    assert archives.moment() == written
