"""The values that a template sees, and how Go prints them."""

from __future__ import annotations

import json

from sampan.cli.listing import Row
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = Any
else:
    Value = object


class Nil:
    """Go's nil, of a type that tells how it is printed. It is false, empty, and null as JSON."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0


NOTHING, NO_LIST, NO_MAP, NO_TEXT = Nil("<nil>"), Nil("[]"), Nil("map[]"), Nil("")
_MAPS = frozenset(
    {
        "Annotations", "Containers", "DriverOpts", "ExposedPorts", "Labels", "LogConfig", "Networks", "Options",
        "PortBindings", "Ports", "Runtimes", "StorageOpt", "Sysctls", "Tmpfs", "Volumes",
    }
)  # fmt: skip
_POINTERS = frozenset(
    {
        "AuxiliaryAddresses", "ContainerIDFile", "GraphDriver", "GwPriority", "Health", "Healthcheck", "IPAMConfig",
        "Init", "MemorySwappiness", "OomKillDisable", "PidsLimit", "Platform", "Status", "UsageData",
    }
)  # fmt: skip
_LEFT_OUT = {
    "Annotations": NO_MAP, "ExposedPorts": NO_MAP, "Health": NOTHING, "Healthcheck": NOTHING, "Init": NOTHING,
    "MacAddress": NO_TEXT, "Mounts": NO_LIST, "NetworkDisabled": False, "PublicPort": 0, "Shell": NO_LIST,
    "SizeRootFs": NOTHING, "SizeRw": NOTHING, "StopSignal": NO_TEXT, "StopTimeout": NOTHING, "StorageOpt": NO_MAP,
    "Sysctls": NO_MAP, "Tmpfs": NO_MAP, "UsageData": NOTHING,
}  # fmt: skip
"""What Docker leaves out of its documents where it is empty, and a template may ask for nevertheless."""


def field(value: Value, name: str) -> Value:
    """`.name`. Raises InvalidArgument."""
    if isinstance(value, dict):
        if name in value:
            found = value[name]
            return nil(name) if found is None else found
        if not isinstance(value, Row) and name in _LEFT_OUT:
            return _LEFT_OUT[name]
        what = f"can't evaluate field {name}" if isinstance(value, Row) else f'map has no entry for key "{name}"'
        raise InvalidArgument(f"template: executing at <.{name}>: {what}")
    if value is None or isinstance(value, Nil):
        raise InvalidArgument(f"template: executing at <.{name}>: nil has no field {name}")
    raise InvalidArgument(f"template: executing at <.{name}>: can't evaluate field {name} in {kind(value)}")


def nil(name: str) -> Nil:
    """What null is in a field of this name."""
    return NO_MAP if name in _MAPS else NOTHING if name in _POINTERS else NO_LIST


def kind(value: Value) -> str:
    """A type's name, for messages."""
    names = ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (dict, "map"), (list, "slice"))
    return "type " + next((name for each, name in names if isinstance(value, each)), "nil")


def shown(value: Value) -> str:
    """As Go's `%v` prints it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, Nil):
        return value.shown
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(each)}" for key, each in sorted(_plain(value).items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(shown, value)) + "]"
    return str(value)


def _float(value: float) -> str:
    """The shortest digits; with an exponent below -4 and from 6 on, as Go's `%v`."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    exponent = f"{value:e}".partition("e")[2]
    shortest = repr(value)
    if -4 <= int(exponent) < 6:
        plain = f"{value:f}" if "e" in shortest else shortest
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    return min((f"{value:.{places}e}" for places in range(17) if float(f"{value:.{places}e}") == value), key=len)


def _plain(value: dict[str, Value]) -> dict[str, Value]:
    return {str(key): each for key, each in value.items() if not callable(each)}


def as_json(value: Value) -> str:
    """In one line. A row's members stand in order, with what HTML would take for its own escaped, as Docker's."""
    text = json.dumps(_members(value), separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, Row):
        text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return text


def _members(value: Value) -> Value:
    if isinstance(value, Nil):
        return None
    if isinstance(value, Row):
        return dict(sorted(_plain(value).items()))
    if isinstance(value, list | tuple):
        return [_members(each) for each in value]
    return value
