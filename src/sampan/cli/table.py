"""Tables in Docker's layout, and the words in them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

_GAP = 3
_NARROWEST = 10
_UNITS = {
    1000: ("B", "kB", "MB", "GB", "TB", "PB", "EB"),
    1024: ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"),
}  # fmt: skip


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], narrowest: int = _NARROWEST) -> str:
    """Columns as wide as their widest cell, three blanks apart, and none but the last of less than so many letters."""
    lines = [tuple(titles), *map(tuple, rows)]
    widths = [
        max(narrowest, *(len(line[at]) + _GAP for line in lines if at < len(line) - 1), 0)
        for at in range(max(map(len, lines)) - 1)
    ]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)) + line[-1] for line in lines
    )


def size(count: int | float, digits: int = 3, base: int = 1000) -> str:
    """`1.98MB`: powers of 1000. Docker prints lists with three digits, and sums with four. `base` 1024: `1.89MiB`."""
    value = float(count)
    units = _UNITS[base]
    for unit in units:
        if value < base or unit == units[-1]:
            return f"{value:.{digits}g}{unit}"
        value /= base
    raise AssertionError("unreachable")


def ago(seconds: float) -> str:
    """`2 hours ago` for a moment in seconds since the epoch."""
    past = max(0, int(time.time() - seconds))
    minutes, hours = past // 60, int(past / 3600 + 0.5)
    if past < 1:
        return "Less than a second ago"
    for count, fits, unit in (
        (past, past < 60, "second"), (minutes, minutes < 60, "minute"), (hours, hours < 48, "hour"),
        (hours // 24, hours < 14 * 24, "day"), (hours // 24 // 7, hours < 60 * 24, "week"),
        (hours // 24 // 30, hours < 730 * 24, "month"),
    ):  # fmt: skip
        if fits:
            if count == 1 and unit in ("minute", "hour"):
                return f"About {'an' if unit == 'hour' else 'a'} {unit} ago"
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return f"{past // 3600 // 24 // 365} years ago"


def when(seconds: float) -> str:
    """A moment as Go prints it, in this machine's time zone: `2026-11-25 09:12:13 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(max(0.0, seconds)))


def moment_shown(text: str) -> str:
    """RFC 3339 as Go prints a time: `2026-11-25 09:12:10.648060339 +0000 UTC`."""
    day, _, rest = text.partition("T")
    clock, zone = (rest[:-1], "+0000 UTC") if rest.endswith("Z") else (rest[:-6], rest[-6:].replace(":", ""))
    return f"{day} {clock} {zone if ' ' in zone else f'{zone} {zone}'}" if rest else text


def short(identifier: str, full: bool = False) -> str:
    """An id's first twelve digits."""
    return identifier if full else identifier.removeprefix("sha256:")[:12]


def cut(text: str, width: int, full: bool = False) -> str:
    """The text, with a mark where it is cut off to be no wider."""
    return text if full or len(text) <= width else f"{text[: width - 1]}…"


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts `a9` before `a10`."""
    parts: list[tuple[int, str]] = []
    digits = letters = ""
    for each in f"{text}\0":
        if each.isdecimal() and each.isascii():
            if letters:
                parts.append((-1, letters))
                letters = ""
            digits += each
        else:
            if digits:
                parts.append((int(digits), digits))
                digits = ""
            letters += each
    return [*parts, (-1, letters.rstrip("\0"))]


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f",
            "\v": "\\v"}  # fmt: skip


def quoted(text: str) -> str:
    """As Go writes a string."""
    return '"' + "".join(_ESCAPES.get(each) or (each if each.isprintable() else _escape(each)) for each in text) + '"'


def _escape(each: str) -> str:
    code = ord(each)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
