"""Signals by the names that people and engines give them."""

from __future__ import annotations

import signal

from sampan.errors import InvalidArgument

_HIGHEST = 64


def number_of(text: str) -> int:
    """`9`, `KILL`, `sigkill`, `RTMIN+3`. Raises InvalidArgument."""
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdigit():
        number = int(name) if len(name) < 4 else _HIGHEST + 1
    else:
        base, separator, offset = name.partition("+") if "+" in name else name.partition("-")
        found = getattr(signal, f"SIG{base}", None)
        if not isinstance(found, signal.Signals) or (separator and not offset.isdigit()):
            raise InvalidArgument(f"unknown signal {text!r}")
        number = found + (int(offset) if "+" in name else -int(offset)) if separator else found
    if not 0 <= number <= _HIGHEST:
        raise InvalidArgument(f"unknown signal {text!r}")
    return number
