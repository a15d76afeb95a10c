"""What a container has changed: its writable layer beside the layers below, as overlayfs keeps them.

Everything is looked up from the layers' descriptors, and no link is followed: a container that runs may put one in the
place of a directory at any moment.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sampan.core.snapshots import View
from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, of_descriptor, openat2

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"
_REDIRECT = "trusted.overlay.redirect"
_OURS = frozenset({
    ".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "dev/mqueue", "etc/hostname", "etc/hosts", "etc/mtab",
    "etc/resolv.conf", "proc", "run", "run/secrets", "sys",
})  # fmt: skip
"""Made for what is mounted on it, as long as nothing is in it: no change of the container's."""


class Kind(enum.IntEnum):
    """As the Engine API numbers them."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True)
class Change:
    """`path`: without a slash at its begin."""

    path: str
    kind: Kind


def open_directory(root: int, path: str) -> int:
    """A directory below `root`, through no link. Raises OSError."""
    return openat2(root, path or ".", DIRECTORY, resolve=_PLAIN)


@dataclass(frozen=True)
class _Directory:
    """One to be compared with that of the lower `layers`. `merged`: what it has not, theirs has."""

    path: str
    layers: tuple[int, ...]
    merged: bool


@dataclass(frozen=True)
class _Below:
    """What the lower layers have at one path. `layers`: those that a directory there is merged from, topmost first."""

    status: os.stat_result | None
    layers: tuple[int, ...] = ()


def compare(view: View) -> list[Change]:
    """In the order of their paths, a directory before what is in it. A directory of which only the content has changed
    counts as changed, as with Docker. Raises Unsupported for a renamed directory (redirect_dir), InvalidArgument for
    paths that are too long."""
    found: list[tuple[Change, bool]] = []
    waiting = [_Directory("", tuple(range(len(view.lowers))), merged=True)]
    while waiting:
        at = waiting.pop()
        try:
            directory = open_directory(view.upper, at.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _too_deep(error) from error
        try:
            for change, certain, below in _entries(view, directory, at):
                found.append((change, certain))
                if below is not None:
                    waiting.append(below)
        finally:
            os.close(directory)
    return _relevant(sorted(found, key=lambda each: each[0].path.split("/")))


def _too_deep(error: OSError) -> InvalidArgument:
    return InvalidArgument(f"compare the container's files: {(error.strerror or str(error)).lower()}")


def _relevant(found: Sequence[tuple[Change, bool]]) -> list[Change]:
    """Without the directories that are only on the way to no change."""
    needed: set[str] = set()
    result: list[Change] = []
    for change, certain in reversed(found):
        if certain or change.path in needed:
            result.append(change)
            needed.add(change.path.rpartition("/")[0])
    return result[::-1]


def _entries(view: View, directory: int, at: _Directory) -> Iterator[tuple[Change, bool, _Directory | None]]:
    """Each change in one directory of the upper layer; whether it is one by itself; and where to go on, if it is a
    directory."""
    if at.path and _attribute(directory, _REDIRECT) is not None:
        raise Unsupported(f"/{at.path} was renamed inside overlayfs (redirect_dir), which is not supported")
    names = os.listdir(directory)
    if not (at.merged and _attribute(directory, _OPAQUE) != b"y"):
        at = _Directory(at.path, at.layers, merged=False)
        for gone in _names(view, at.layers, at.path).difference(names):
            yield Change(_joined(at.path, gone), Kind.DELETED), True, None
    for name in names:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        child = _joined(at.path, name)
        below = _lower(view, at.layers, child)
        if is_whiteout(status):
            if below.status is not None:
                yield Change(child, Kind.DELETED), True, None
            continue
        change = Change(child, Kind.ADDED if below.status is None else Kind.MODIFIED)
        if not stat.S_ISDIR(status.st_mode):
            ours = child in _OURS and below.status is None and stat.S_ISREG(status.st_mode) and not status.st_size
            if not ours:
                yield change, True, None
            continue
        certain = child not in _OURS if below.status is None else _differs(status, below.status, child)
        yield change, certain, _Directory(child, below.layers, at.merged)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _differs(one: os.stat_result, other: os.stat_result, path: str) -> bool:
    """Whether two directories do, their content aside. The time of one in which something was mounted says nothing."""
    if (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return True
    return one.st_mtime_ns != other.st_mtime_ns and not any(each.rpartition("/")[0] == path for each in _OURS)


def _attribute(descriptor: int, name: str) -> bytes | None:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return None


def _lower(view: View, layers: Sequence[int], path: str) -> _Below:
    """Look a path up in the layers that its directory is merged from."""
    found: os.stat_result | None = None
    merged: list[int] = []
    for layer in layers:
        try:
            opened = openat2(view.lowers[layer], path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, resolve=_PLAIN)
        except OSError:
            continue
        try:
            status = os.fstat(opened)
            if not stat.S_ISDIR(status.st_mode):
                if found is None and not is_whiteout(status):
                    found = status
                break
            found = found or status
            merged.append(layer)
            with contextlib.suppress(OSError):
                if os.getxattr(of_descriptor(opened), _OPAQUE) == b"y":
                    break
        finally:
            os.close(opened)
    return _Below(found, tuple(merged))


def _names(view: View, layers: Sequence[int], path: str) -> set[str]:
    """What a directory of the lower layers has in it."""
    names: set[str] = set()
    hidden: set[str] = set()
    for layer in layers:
        opened = open_directory(view.lowers[layer], path)
        try:
            for name in os.listdir(opened):
                if name not in names | hidden:
                    status = os.stat(name, dir_fd=opened, follow_symlinks=False)
                    (hidden if is_whiteout(status) else names).add(name)
        finally:
            os.close(opened)
    return names
