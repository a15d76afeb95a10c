"""Copying a directory's content into a new tmpfs above it: the mount option `tmpcopyup`.

What is copied is the image's: names are opened below the directory that holds them and never through a link, and what
is mounted inside stays where it is. The tmpfs is not attached yet, so that nobody else is in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, copy_data, of_descriptor, openat2

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def copy_up(source: int, target: int, *, owner: bool) -> None:
    """Copy what is in the directory `source` (O_PATH) to the directory `target`: files with their holes and hard links,
    links, fifos and devices, with owners, modes, times and extended attributes. `owner`: the directory's own, too.

    A device that the kernel does not let us make (a user namespace) is left out. The OSError names what could not be
    copied.
    """
    _Copy(source, target).run(owner)


class _Copy:
    def __init__(self, source: int, target: int) -> None:
        self._source = source
        self._target = target
        self._directories: list[tuple[str, os.stat_result]] = []
        self._links: dict[tuple[int, int], str] = {}

    def run(self, owner: bool) -> None:
        waiting = ["."]
        while waiting:
            waiting += self._directory(waiting.pop())
        for path, found in reversed(self._directories):
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=self._target)
        found = os.fstat(self._source)
        if owner:
            _chown(self._target, ".", found)
        os.utime(".", ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=self._target)

    def _directory(self, path: str) -> list[str]:
        """Copy what is in it; returns the directories in it, which are made only."""
        try:
            source = openat2(self._source, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_INSIDE)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return []
            raise
        below: list[str] = []
        try:
            target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._target)
            try:
                _copy_attributes(source, of_descriptor(target))
                with os.scandir(source) as entries:
                    for entry in entries:
                        inside = os.path.join(path, entry.name)
                        try:
                            found = os.stat(entry.name, dir_fd=source, follow_symlinks=False)
                            self._entry(source, target, entry.name, inside, found)
                        except FileNotFoundError:
                            continue  # Gone since it was listed.
                        except OSError as error:
                            raise OSError(error.errno, f"copying {inside[2:]}: {error.strerror}") from error
                        if stat.S_ISDIR(found.st_mode):
                            below.append(inside)
                            self._directories.append((inside, found))
            finally:
                os.close(target)
        finally:
            os.close(source)
        return below

    def _entry(self, source: int, target: int, name: str, path: str, found: os.stat_result) -> None:
        if stat.S_ISREG(found.st_mode):
            self._file(source, target, name, path, found)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            _chown(target, name, found)
        else:
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
            else:
                try:
                    os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
                except PermissionError:
                    if stat.S_ISFIFO(found.st_mode):
                        raise
                    return
            _chown(target, name, found)
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        if not stat.S_ISDIR(found.st_mode):
            os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _file(self, source: int, target: int, name: str, path: str, found: os.stat_result) -> None:
        first = self._links.get((found.st_dev, found.st_ino))
        if first is not None:
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=target)
            return
        try:
            reading = openat2(source, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=_INSIDE)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ELOOP):
                return
            raise
        try:
            found = os.fstat(reading)
            if not stat.S_ISREG(found.st_mode):
                return
            writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                copy_data(reading, writing)
                with _unmapped():
                    os.fchown(writing, found.st_uid, found.st_gid)
                os.fchmod(writing, stat.S_IMODE(found.st_mode))
                _copy_attributes(reading, writing)
                os.utime(writing, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        if found.st_nlink > 1:
            self._links[found.st_dev, found.st_ino] = path


@contextlib.contextmanager
def _suppressed(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def _unmapped() -> contextlib.AbstractContextManager[None]:
    """An owner that the user namespace does not have: the copy is its root's."""
    return _suppressed(errno.EINVAL, errno.EPERM)


def _chown(directory: int, name: str, found: os.stat_result) -> None:
    with _unmapped():
        os.chown(name, found.st_uid, found.st_gid, dir_fd=directory, follow_symlinks=False)


def _copy_attributes(source: int, target: int | str) -> None:
    """Those that the tmpfs, and the namespace that we are in, can have."""
    with _suppressed(errno.EOPNOTSUPP):
        for name in os.listxattr(source):
            with _suppressed(errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENODATA):
                os.setxattr(target, name, os.getxattr(source, name))
