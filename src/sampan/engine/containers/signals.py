"""Signals by name or number, as Docker's clients write them."""

from __future__ import annotations

import re
import signal

from sampan.errors import InvalidArgument

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d+))?")


def parse_signal(text: str) -> int:
    """`9`, `KILL`, `SIGKILL`, `RTMIN+3`. Raises InvalidArgument."""
    if text.isdigit():
        number = int(text)
        if 0 < number < signal.NSIG:
            return number
        raise InvalidArgument(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    found = signal.Signals.__members__.get(f"SIG{name}")
    if found is not None:
        return int(found)
    match = _REAL_TIME.fullmatch(name)
    if match is not None:
        base = int(signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX)
        number = base + int(f"{match[2] or '+'}{match[3] or 0}")
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    raise InvalidArgument(f"invalid signal: {text}")
