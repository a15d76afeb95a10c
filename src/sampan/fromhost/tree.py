"""The set of host paths that go into an image, closed under symbolic links: each link of a chain stands for itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sampan.errors import InvalidArgument, NotFound

_MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)
_KERNEL_TREES = ("/proc", "/sys", "/dev")


@dataclass(frozen=True)
class Node:
    """A file, directory or link of the image. `source` is the host's path, or None with `data` or a bare directory."""

    path: str
    mode: int
    mtime: int = 0
    source: str | None = None
    target: str | None = None
    data: bytes | None = None
    size: int = 0


class Tree:
    """Nodes by their path in the image, which is the host's path with all links resolved but the last."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._nodes

    def __iter__(self) -> Iterator[Node]:
        """Sorted, so a directory comes before what is in it."""
        return (self._nodes[path] for path in sorted(self._nodes))

    def add(self, path: str) -> str:
        """Take one path with its parents, following links and keeping them; return where it ends, free of links.

        Raises NotFound, and InvalidArgument for a loop of links or what is not on a disk.
        """
        left = [part for part in os.path.abspath(path).split("/") if part]
        real = ""
        links = 0
        while left:
            part = left.pop(0)
            if part == "..":
                real = os.path.dirname(real).rstrip("/")
                continue
            candidate = f"{real}/{part}"
            status = _lstat(candidate, path)
            if not stat.S_ISLNK(status.st_mode):
                self._take(candidate, status)
                real = candidate
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidArgument(f"{path}: too many levels of symbolic links")
            target = os.readlink(candidate)
            self._nodes[candidate] = Node(path=candidate, mode=0o777, mtime=_seconds(status), target=target)
            if target.startswith("/"):
                real = ""
            left = [each for each in target.split("/") if each not in ("", ".")] + left
        return real or "/"

    def add_directory(self, path: str, wanted: Callable[[str], bool] = lambda path: True) -> list[str]:
        """Take a directory whole, its links followed out of it where they lead to something. `path` is free of links.

        Returns the regular files taken. Entries for which `wanted` is false are left out, with what is below
        them; so are sockets, pipes and devices.
        """
        if path == "/" or path.startswith(tuple(f"{tree}/" for tree in _KERNEL_TREES)) or path in _KERNEL_TREES:
            raise InvalidArgument(f"{path}: cannot be packed as a directory")
        files: list[str] = []
        with os.scandir(path) as entries:
            names = sorted(entry.path for entry in entries)
        for name in names:
            if not wanted(name):
                continue
            status = os.lstat(name)
            if stat.S_ISLNK(status.st_mode):
                files += self._take_link(name, status)
            elif stat.S_ISDIR(status.st_mode):
                self._take(name, status)
                files += self.add_directory(name, wanted)
            elif stat.S_ISREG(status.st_mode):
                self._take(name, status)
                files.append(name)
        return files

    def _take_link(self, path: str, status: os.stat_result) -> list[str]:
        """A link inside a directory: its target comes along if it is a file; one that dangles stays as it is."""
        if not os.path.isfile(path):
            self._nodes[path] = Node(path=path, mode=0o777, mtime=_seconds(status), target=os.readlink(path))
            return []
        return [self.add(path)]

    def make_directory(self, path: str, mode: int) -> None:
        """A directory with this mode, whatever the host has there."""
        self._nodes[path] = Node(path=path, mode=stat.S_IFDIR | mode)

    def make_file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A file of the image's own, unless the host's has been taken."""
        self._nodes.setdefault(path, Node(path=path, mode=stat.S_IFREG | mode, data=data, size=len(data)))

    def make_link(self, path: str, target: str) -> None:
        self._nodes.setdefault(path, Node(path=path, mode=0o777, target=target))

    def _take(self, path: str, status: os.stat_result) -> None:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise InvalidArgument(f"{path}: neither a file nor a directory")
        directory = stat.S_ISDIR(status.st_mode)
        self._nodes[path] = Node(
            path=path, mode=status.st_mode, mtime=_seconds(status),
            source=None if directory else path, size=0 if directory else status.st_size,
        )  # fmt: skip


def _seconds(status: os.stat_result) -> int:
    # Whole seconds: Python keeps those of a module's source in the compiled file, and checks them.
    return int(status.st_mtime)


def _lstat(candidate: str, asked: str) -> os.stat_result:
    try:
        return os.lstat(candidate)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{asked}: no such file or directory") from None
