"""Sampan: the whole Docker stack in Python. `with sampan.Engine() as engine:` gives a program an engine of its own."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.embedded import Engine

__all__ = ["Engine", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Imported when it is asked for: no command, and nothing on a container's path, pays for it.
    if name == "Engine":
        from sampan.embedded import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
