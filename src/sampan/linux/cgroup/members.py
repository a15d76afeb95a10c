"""Walking a group and the groups below it: who is in it, and the removal of all of it.

By descriptors and one step at a time: a container may nest groups of its own deeper than a path may be long.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(directory: str, visit: Callable[[int], None], leave: Callable[[int, str], None] | None = None) -> None:
    """`visit` each group's descriptor, the group itself first; `leave` is called with the descriptor of the group above
    and the name of one below it, when that one has been gone through. What vanishes meanwhile is passed over.
    """
    with contextlib.suppress(OSError):
        _walk(os.open(directory, _DIRECTORY), visit, leave)


def _walk(at: int, visit: Callable[[int], None], leave: Callable[[int, str], None] | None) -> None:
    try:
        visit(at)
        path: list[str] = []
        to_do = [_below(at)]
        while to_do:
            if to_do[-1]:
                name = to_do[-1].pop()
                with contextlib.suppress(OSError):
                    at = _step(at, name)
                    path.append(name)
                    visit(at)
                    to_do.append(_below(at))
                continue
            to_do.pop()
            if path:
                at = _step(at, "..")
                name = path.pop()
                if leave is not None:
                    leave(at, name)
    finally:
        os.close(at)


def _step(at: int, name: str) -> int:
    there = os.open(name, _DIRECTORY, dir_fd=at)
    os.close(at)
    return there


def _below(at: int) -> list[str]:
    try:
        with os.scandir(at) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def processes(directory: str) -> set[int]:
    """The processes of the group and of those below it, by their ids in this process's namespace."""
    found: set[int] = set()

    def visit(at: int) -> None:
        # A threaded group of v2 does not tell (EOPNOTSUPP): its processes are those of the group above.
        with contextlib.suppress(OSError), open(os.open("cgroup.procs", os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)) as file:
            found.update(int(line) for line in file)

    walk(directory, visit)
    return found - {0}  # Not seen from this pid namespace; as a signal's target, 0 would be this process's own group.


def remove(directory: str) -> None:
    """Remove the group and what is below it. OSError: EBUSY while a process is in one of them. Idempotent."""
    try:
        os.rmdir(directory)
        return
    except FileNotFoundError:
        return
    except OSError:
        pass

    def leave(at: int, name: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=at)

    walk(directory, lambda _: None, leave)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(directory)
