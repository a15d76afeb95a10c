"""Whole trees of files that somebody hostile may have made: removed and measured by descriptors, through no link,
however deep they are. (A walk by recursion, or by paths, ends at some depth.)"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 32
"""As many descriptors are open at a time; what is deeper is moved up."""


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it. Idempotent. Raises OSError; then some of it is gone."""
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        # What was moved up by one round is removed by the next.
        while _empty(top, top, 0):
            continue
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def _empty(directory: int, top: int, depth: int) -> bool:
    """Remove what is in an open directory; whether some of it has been moved to the top instead."""
    moved = False
    for name in os.listdir(directory):
        try:
            below = os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            continue
        try:
            if depth < _DEEPEST:
                moved = _empty(below, top, depth + 1) or moved
        finally:
            os.close(below)
        with contextlib.suppress(FileNotFoundError):
            if depth < _DEEPEST:
                os.rmdir(name, dir_fd=directory)
            else:
                os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
                moved = True
    return moved


def own_tree(path: str, uid: int, gid: int) -> None:
    """Give a file, or a directory with all that is in it, to an owner: links themselves, never what they lead to. What
    is his already is not touched; what goes meanwhile is left out. Raises OSError; then some of it is given."""
    os.lchown(path, uid, gid)
    try:
        root = os.open(path, _DIRECTORY)
    except NotADirectoryError:
        return
    try:
        waiting = [""]
        while waiting:
            at = waiting.pop()
            try:
                directory = openat2(root, at or ".", _DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                    continue
                raise
            try:
                for name in os.listdir(directory):
                    with contextlib.suppress(FileNotFoundError):
                        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                        if (found.st_uid, found.st_gid) != (uid, gid):
                            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
                        if stat.S_ISDIR(found.st_mode):
                            waiting.append(f"{at}/{name}" if at else name)
            finally:
                os.close(directory)
    finally:
        os.close(root)


class File(NamedTuple):
    """`path`: below the tree's root. `allocated`: bytes that it takes on the disk. `key`: one for all its names."""

    path: str
    size: int
    allocated: int
    key: tuple[int, int]
    directory: bool


def files(path: str) -> Iterator[File]:
    """Every file and directory below a directory, in no order, those of one file system; a file with several names
    comes with each. What goes or comes meanwhile may be missed, and what lies deeper than a path can say."""
    try:
        root = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        device = os.fstat(root).st_dev
        waiting = [""]
        while waiting:
            at = waiting.pop()
            try:
                directory = openat2(root, at or ".", _DIRECTORY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
            except OSError:
                continue
            try:
                for name in os.listdir(directory):
                    with contextlib.suppress(OSError):
                        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                        if found.st_dev != device:
                            continue
                        child = f"{at}/{name}" if at else name
                        is_directory = stat.S_ISDIR(found.st_mode)
                        if is_directory:
                            waiting.append(child)
                        yield File(
                            child, found.st_size if stat.S_ISREG(found.st_mode) else 0, found.st_blocks * 512,
                            (found.st_dev, found.st_ino), is_directory,
                        )  # fmt: skip
            finally:
                os.close(directory)
    finally:
        os.close(root)


class Size(NamedTuple):
    """`bytes`: what the files say of themselves. `allocated`: what they and the directories take on the disk."""

    bytes: int
    allocated: int
    files: int


def tree_size(path: str) -> Size:
    """Of everything below a directory, and of itself; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    size = count = 0
    allocated = 0
    with contextlib.suppress(OSError):
        allocated = os.lstat(path).st_blocks * 512
    for each in files(path):
        if each.key not in seen:
            seen.add(each.key)
            size += each.size
            allocated += each.allocated
            count += not each.directory
    return Size(size, allocated, count)
