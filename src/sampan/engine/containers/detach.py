"""Detach sequences as Docker's clients write them: `ctrl-p,ctrl-q`."""

from __future__ import annotations

from sampan.errors import InvalidArgument

DEFAULT = b"\x10\x11"
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_detach_keys(text: str) -> bytes:
    """The raw bytes; empty text: the default. Raises InvalidArgument in Docker's words."""
    if not text:
        return DEFAULT
    result = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            result += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and (key[5].isalpha() or key[5] in _CONTROL):
            result.append(ord(key[5].lower()) - ord("a") + 1 if key[5].isalpha() else _CONTROL[key[5]])
        elif key == "DEL":
            result.append(127)
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(result)
