"""Imports that our own interpreters do without: the runtime's command, and the spawner whose memory is every shim's.

msgspec imports for its users what the runtime uses nothing of: it asks for typing_extensions (which brings inspect,
ast, dis and tokenize) where the standard library's typing serves as well, writes JSON schemas, reads YAML and TOML, and
knows UUIDs (which bring platform). Together they are a third of the time that the imports take, and over a megabyte.
"""

from __future__ import annotations

import sys
import types

_PARTS = ("msgspec.inspect", "msgspec.toml", "msgspec.yaml", "msgspec._json_schema")


def leave_out() -> None:
    """Before the first import of msgspec."""
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # What the import system takes for "not there".
    for name in _PARTS:
        sys.modules[name] = _Absent(name)
    uuid = sys.modules["uuid"] = _Absent("uuid")
    uuid.SafeUUID = types.SimpleNamespace(unknown=None)  # type: ignore[attr-defined] # msgspec takes this one apart.
    # What the module is since Python 3.12: the one in C, without the one in Python that it replaces.
    if "datetime" not in sys.modules:
        import _datetime  # type: ignore[import-not-found]

        sys.modules["datetime"] = _datetime


class _Absent(types.ModuleType):
    """Stands in a module's place: whatever is asked of it is a class that nothing is an instance of."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})
