"""An empty volume is filled from what the image has at its mount point, once: Docker's copy-up."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from sampan.core.snapshots.overlay2 import Overlay2
from sampan.engine.containers.record import MountPoint
from sampan.engine.volumes import Volumes
from sampan.errors import SampanError
from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, copy_data, of_descriptor, open_in_root, openat2

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
"""Somebody has put something else there."""


def fill_volumes(
    snapshots: Overlay2, volumes: Volumes, container_id: str, points: Sequence[MountPoint]
) -> None:  # fmt: skip
    """Blocks. The image's directory is looked up inside the container's root, so that no link of it leads out.

    A volume that can't be mounted is left for the start to say so."""
    held: list[str] = []
    try:
        wanted: list[MountPoint] = []
        for point in points:
            if point.type == "volume" and point.copy and not point.subpath:
                with contextlib.suppress(SampanError):
                    volumes.use(point.name, container_id)
                    held.append(point.name)
                    if not os.listdir(point.source):
                        wanted.append(point)
        if wanted:
            _fill(snapshots, container_id, wanted)
    finally:
        volumes.let_go(container_id, held)


def _fill(snapshots: Overlay2, container_id: str, wanted: Sequence[MountPoint]) -> None:
    root = os.open(snapshots.mount(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for point in wanted:
            try:
                source = open_in_root(root, point.destination, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                target = os.open(point.source, _DIRECTORY)
                try:
                    copy_tree(source, target)
                finally:
                    os.close(target)
            finally:
                os.close(source)
    finally:
        os.close(root)
        snapshots.unmount(container_id)


def copy_tree(source: int, target: int) -> None:
    """Copy everything below one directory into another, both open: files with their holes and hard links, directories,
    links, fifos and devices, with owners, modes, times and attributes. What is there already stays.

    Another container may have the volume by now and move things about in it: so every name is taken from the
    directory's descriptor, and neither a link nor a rename leads out of the volume.
    """
    _Copy(source, target).run()


class _Copy:
    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._links: dict[tuple[int, int], tuple[str, int]] = {}
        """Of a file with several names: where its copy is, and which inode that is."""

    def run(self) -> None:
        waiting = [""]
        while waiting:
            path = waiting.pop()
            at = openat2(self._source, path or ".", _DIRECTORY, resolve=_PLAIN)
            try:
                to = openat2(self._target, path or ".", _DIRECTORY, resolve=_PLAIN)
            except OSError as error:
                os.close(at)
                if error.errno in _REPLACED:
                    continue
                raise
            try:
                for name in os.listdir(at):
                    below = f"{path}/{name}" if path else name
                    if self._entry(at, to, name, below):
                        waiting.append(below)
                _copy_attributes(at, to)
            finally:
                os.close(at)
                os.close(to)

    def _entry(self, source: int, target: int, name: str, path: str) -> bool:
        """Copy one entry; True for a directory, whose content is still to be copied."""
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        with contextlib.suppress(FileExistsError):
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                return True
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
                os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)
            elif stat.S_ISREG(found.st_mode):
                if found.st_nlink == 1 or not self._linked(target, name, found):
                    inode = _copy_file(source, target, name)
                    if found.st_nlink > 1:
                        self._links[found.st_dev, found.st_ino] = path, inode
            elif not stat.S_ISSOCK(found.st_mode):
                _copy_node(target, name, found)
        return False

    def _linked(self, target: int, name: str, found: os.stat_result) -> bool:
        """Give the copy of a file one more name; False if there is none, or somebody has moved it."""
        path, inode = self._links.get((found.st_dev, found.st_ino), ("", 0))
        if not path:
            return False
        try:
            first = openat2(self._target, path, os.O_PATH | os.O_NOFOLLOW, resolve=_PLAIN)
        except OSError as error:
            if error.errno in _REPLACED:
                return False
            raise
        try:
            if os.fstat(first).st_ino != inode:
                return False
            os.link(of_descriptor(first), name, dst_dir_fd=target, follow_symlinks=True)
        finally:
            os.close(first)
        return True


def _copy_node(target: int, name: str, found: os.stat_result) -> None:
    os.mknod(name, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev, dir_fd=target)
    try:
        made = openat2(target, name, os.O_PATH | os.O_NOFOLLOW, resolve=_PLAIN)
    except OSError as error:
        if error.errno in _REPLACED:
            return
        raise
    try:
        if stat.S_IFMT(os.fstat(made).st_mode) == stat.S_IFMT(found.st_mode):
            os.chown(of_descriptor(made), found.st_uid, found.st_gid)
            os.chmod(of_descriptor(made), stat.S_IMODE(found.st_mode))
            os.utime(of_descriptor(made), ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        os.close(made)


def _copy_file(source: int, target: int, name: str) -> int:
    """The copy's inode."""
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            copy_data(reading, writing)
            _copy_attributes(reading, writing)
            return os.fstat(writing).st_ino
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_attributes(source: int, target: int) -> None:
    """Owner, then what a change of owner clears (set-id bits and file capabilities), then times."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for attribute in os.listxattr(source):
        with contextlib.suppress(OSError):  # A file system may not have them, or not this one.
            os.setxattr(target, attribute, os.getxattr(source, attribute))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
