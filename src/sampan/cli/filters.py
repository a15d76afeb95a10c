"""`-f NAME=VALUE`, as often as one likes."""

from __future__ import annotations

from sampan.cli.arguments import WrongFlag


def parse_filters(words: list[str]) -> dict[str, list[str]]:
    """Raises WrongFlag."""
    result: dict[str, list[str]] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            text = f'invalid argument "{word}" for "-f, --filter" flag: bad format of filter (expected name=value)'
            raise WrongFlag(text)
        result.setdefault(name.strip(), []).append(value)
    return result
