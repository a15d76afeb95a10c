"""Moments in the forms that the Engine API uses."""

from __future__ import annotations

import calendar
import re
import time

from sampan.errors import InvalidArgument

_UNIX = re.compile(r"(-?\d+)(?:\.(\d{1,9}))?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))")
ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time: never."""


def rfc3339(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC; the fraction without trailing zeros, as Go writes it."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def rfc3339_now() -> str:
    return rfc3339(time.time_ns())


def rfc3339_seconds(nanoseconds: int) -> str:
    """The same without a fraction."""
    return rfc3339(nanoseconds - nanoseconds % 10**9)


def unix_seconds(text: str | None) -> int:
    """RFC 3339 as seconds since the epoch; 0 for none and for what is no such time."""
    match = _RFC3339.fullmatch(text or "")
    if match is None:
        return 0
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0
    if match[3]:
        offset = int(match[4]) * 3600 + int(match[5]) * 60
        seconds += offset if match[3] == "-" else -offset
    return seconds


def parse_timestamp(text: str) -> int:
    """`seconds[.fraction]` since the epoch as nanoseconds: what Docker's clients send. Raises InvalidArgument."""
    match = _UNIX.fullmatch(text)
    if match is None:
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(match[1]) * 10**9 + int((match[2] or "").ljust(9, "0"))


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> int:
    """Go's durations (`1h2m3.5s`, `300ms`) in nanoseconds. Raises InvalidArgument in Go's words."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f'time: invalid duration "{text}"')
    return sum(int(float(number) * _UNITS[unit]) for number, unit in parts)


def parse_moment(text: str) -> int:
    """A moment as people write it for `until`: a time, or how long ago (`1h30m`), as nanoseconds since the epoch."""
    ago = _DURATION.fullmatch(text)
    if ago is not None and text:
        seconds = int(ago[1] or 0) * 3600 + int(ago[2] or 0) * 60 + float(ago[3] or 0)
        return time.time_ns() - int(seconds * 10**9)
    if _RFC3339.fullmatch(text):
        return unix_seconds(text) * 10**9
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return calendar.timegm(time.strptime(text, form)) * 10**9
        except ValueError:
            continue
    return parse_timestamp(text)
