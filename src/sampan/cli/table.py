"""Tables in Docker's layout, and the words in them."""

from __future__ import annotations

import time
from collections.abc import Sequence

_GAP = 3
_NARROWEST = 10


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, three blanks apart, and none of less than ten letters."""
    widths = [max(_NARROWEST, *(len(cell) + _GAP for cell in column)) for column in zip(titles, *rows, strict=True)]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (titles, *rows)
    )


def size(count: int | float, digits: int = 3) -> str:
    """`1.98MB`: powers of 1000. Docker prints lists with three digits, and sums with four."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.{digits}g}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


def ago(seconds: float) -> str:
    """`2 hours ago` for a moment in seconds since the epoch."""
    past = max(0, int(time.time() - seconds))
    if past < 1:
        return "Less than a second ago"
    for unit, length, limit in (
        ("second", 1, 60), ("minute", 60, 3600), ("hour", 3600, 48 * 3600), ("day", 86400, 14 * 86400),
        ("week", 7 * 86400, 60 * 86400), ("month", 30 * 86400, 730 * 86400),
    ):  # fmt: skip
        if past < limit:
            count = past // length
            if count == 1 and unit in ("minute", "hour"):
                return f"About {'an' if unit == 'hour' else 'a'} {unit} ago"
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return f"{past // (365 * 86400)} years ago"


def short(identifier: str, full: bool = False) -> str:
    """An id's first twelve digits."""
    return identifier if full else identifier.removeprefix("sha256:")[:12]
