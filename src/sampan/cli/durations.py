"""Durations as Go writes them."""

from __future__ import annotations

import re

from sampan.errors import InvalidArgument

_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """`1m30s`, `500ms` in seconds. Raises InvalidArgument."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"invalid duration: {text}")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))
