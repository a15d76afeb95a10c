"""Documents as others write them."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")
Plain = dict[str, "Plain"] | list["Plain"] | str | int | float | bool | None


def decode(content: bytes, kind: type[T]) -> T:
    """A JSON document of a type. A member that is null is one that is not there: so Go writes empty lists and maps, and
    so runc and crun read them.

    Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError (too deep).
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        plain: Plain = msgspec.json.decode(content)
        return msgspec.convert(_without_nulls(plain), kind)


def _without_nulls(value: Plain) -> Plain:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
