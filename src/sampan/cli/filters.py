"""`-f NAME=VALUE`, as often as one likes."""

from __future__ import annotations

from sampan.errors import InvalidArgument


def parse_filters(words: list[str]) -> dict[str, list[str]]:
    """Raises InvalidArgument."""
    result: dict[str, list[str]] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise InvalidArgument(f"invalid argument {word!r} for \"-f, --filter\" flag: expected 'name=value'")
        result.setdefault(name.strip(), []).append(value)
    return result
