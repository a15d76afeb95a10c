"""Clients of the Docker Engine API, ours or another's.

`Docker` and `AsyncDocker` are for programs: typed, complete, with streams as iterators. `client.Client` is what the
command uses: documents are plain JSON values there, and it is quick to import, for a command's time is mostly imports
(h11 and msgspec cost 24 and 28 ms, which is more than a container's start).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.asynchronous.docker import AsyncDocker
    from sampan.client.synchronous.docker import Docker

__all__ = ["AsyncDocker", "Docker"]


def __getattr__(name: str) -> object:
    # Imported when they are asked for: the command never does.
    if name == "Docker":
        from sampan.client.synchronous.docker import Docker

        return Docker
    if name == "AsyncDocker":
        from sampan.client.asynchronous.docker import AsyncDocker

        return AsyncDocker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
