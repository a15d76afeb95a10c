"""The words in lists."""

from __future__ import annotations

import time

import pytest

from sampan.cli.ps import ports
from sampan.cli.table import ago, cut, moment_shown, natural, quoted, size, table

HOUR = 3600


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second ago"), (1, "1 second ago"), (59, "59 seconds ago"), (60, "About a minute ago"),
        (3599, "59 minutes ago"), (HOUR, "About an hour ago"), (1.6 * HOUR, "2 hours ago"),
        (47.4 * HOUR, "47 hours ago"),
        (47.6 * HOUR, "2 days ago"), (14 * 24 * HOUR, "2 weeks ago"), (59 * 24 * HOUR, "8 weeks ago"),
        (60 * 24 * HOUR, "2 months ago"), (729 * 24 * HOUR, "24 months ago"), (731 * 24 * HOUR, "2 years ago"),
    ],
)  # fmt: skip
def test_ago(seconds: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + seconds)
    assert ago(1e9) == text


def test_sizes_have_two_bases() -> None:
    assert [size(0), size(999), size(1982000), size(1982000, 4), size(10**19)] == [
        "0B",
        "999B",
        "1.98MB",
        "1.982MB",
        "10EB",
    ]
    assert [size(1023, 4, 1024), size(1536, 4, 1024), size(1 << 30, 4, 1024)] == ["1023B", "1.5KiB", "1GiB"]


def test_a_table_pads_all_but_the_last_column() -> None:
    assert (
        table(["A", "LONG"], [["1", ""], ["a longer one", "x"]])
        == "A              LONG\n1              \na longer one   x"
    )
    assert table(["A"], []) == "A"
    assert table(["A", "B"], [], 20) == "A" + " " * 19 + "B"


def test_words() -> None:
    assert sorted(["a10", "a9", "b", "a"], key=natural) == ["a", "a9", "a10", "b"]
    assert (cut("abcdef", 4), cut("abcd", 4), cut("abcdef", 4, full=True)) == ("abc…", "abcd", "abcdef")
    assert quoted('a"\n\x01é\\') == '"a\\"\\n\\x01é\\\\"'
    assert moment_shown("2026-11-25T09:12:10.5Z") == "2026-11-25 09:12:10.5 +0000 UTC"
    assert moment_shown("2026-11-25T09:12:10+02:00") == "2026-11-25 09:12:10 +0200 +0200"


def test_neighbouring_ports_stand_together() -> None:
    def port(inside: int, outside: int = 0, address: str = "", kind: str = "tcp") -> dict[str, object]:
        bound = {"IP": address, "PublicPort": outside} if outside else {}
        return {"PrivatePort": inside, "Type": kind, **bound}

    assert ports([port(82), port(80), port(81), port(90)]) == ["80-82/tcp", "90/tcp"]
    assert ports([port(80, 80, "0.0.0.0"), port(81, 81, "0.0.0.0")]) == ["0.0.0.0:80-81->80-81/tcp"]
    assert ports([port(80, 8080, "0.0.0.0"), port(80, 8080, "::"), port(53, kind="udp")]) == [
        "53/udp", "0.0.0.0:8080->80/tcp", "[::]:8080->80/tcp"
    ]  # fmt: skip
