"""Files into a container and out of it, running or not: `docker cp`.

Every look-up is the kernel's, inside the container's root (openat2, RESOLVE_IN_ROOT), and what is found is used by its
descriptor: whatever the container moves about meanwhile, nothing leads out of it (CVE-2018-15664, CVE-2026-41568). This
process executes and loads nothing of the container's (CVE-2019-14271, CVE-2026-41567).
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.core.snapshots.apply import set_xattrs, write_data
from sampan.core.snapshots.tarwalk import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    Readable,
    TarWalk,
    shown,
)
from sampan.core.snapshots.tree import check_entry
from sampan.core.trees import Grafts, Sink, write_entry
from sampan.errors import InvalidArgument, NotFound, ResourceExhausted
from sampan.linux.fs import make_directories, of_descriptor, open_in_root, resolve_in_root
from sampan.linux.trees import remove_tree

_PLACE = os.O_PATH | os.O_DIRECTORY
_MISSING = (FileNotFoundError, NotADirectoryError)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_XATTRS = (b"user.", b"security.capability")
_MODES = (
    (stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20),
)  # fmt: skip
_KINDS = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24,
}  # fmt: skip


@dataclass(frozen=True)
class PathStat:
    """What lies at a path. `mode`: Go's os.FileMode. `mtime`: nanoseconds since the epoch. `link_target`: where a link
    leads, inside the container. `name`: the last part of the path as it was asked for."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str


def _asks_for_directory(path: str) -> bool:
    return path.endswith(("/", "/."))


@contextlib.contextmanager
def _place(root: int, path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds the last part of a path, and that part; "." where the path is a directory's itself."""
    whole = posixpath.normpath(f"/{path}")
    way, _, name = whole.rpartition("/")
    if _asks_for_directory(path) or not name:
        way, name = whole, "."
    try:
        parent = open_in_root(root, way or "/", _PLACE)
    except _MISSING:
        raise NotFound(path) from None
    try:
        yield parent, name
    finally:
        os.close(parent)


@contextlib.contextmanager
def _present(root: int, path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """The same with what lies there."""
    with _place(root, path) as (parent, name):
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except _MISSING:
            raise NotFound(path) from None
        yield parent, name, found


def path_stat(root: int, path: str) -> PathStat:
    """Raises NotFound with the path."""
    with _present(root, path) as (_, _, found):
        pass
    target = resolve_in_root(root, path) if stat.S_ISLNK(found.st_mode) else ""
    return PathStat(
        name=path.rstrip("/").rpartition("/")[2] or "/", size=found.st_size, mode=go_mode(found.st_mode),
        mtime=found.st_mtime_ns, link_target=target,
    )  # fmt: skip


def go_mode(mode: int) -> int:
    """Go's os.FileMode."""
    bits = sum(ours for kernels, ours in _MODES if mode & kernels)
    return stat.S_IMODE(mode) & 0o777 | bits | _KINDS.get(stat.S_IFMT(mode), 0)


def read_path(root: int, path: str, out: Sink, *, asked: str = "", grafts: Grafts | None = None) -> None:
    """A tar of what lies there, named by the last part of `asked` (else of the path); a directory's content alone, as
    `./…`, for `path/.`. `grafts`: what is mounted below it, when it is mounted.

    Raises NotFound with the path, InvalidArgument for names that are too long for an archive.
    """
    asked = asked or path
    base = "." if asked.endswith("/.") else posixpath.basename(posixpath.normpath(f"/{asked}"))
    with _present(root, path) as (parent, name, _):
        write_entry(parent, name, base or "/", out, grafts)


def write_into(
    root: int, path: str, stream: Readable, *, keep_kind: bool = False, owner: tuple[int, int] | None = None
) -> None:  # fmt: skip
    """Unpack a tar into a directory of the container's; what is there is replaced, directories are merged.

    `keep_kind`: a directory is replaced by nothing else, and nothing else by a directory. `owner`: of all that is made,
    instead of what the archive says. Raises NotFound with the path, InvalidArgument, DataCorrupt, ResourceExhausted.
    """
    try:
        top = open_in_root(root, path or "/")
    except _MISSING:
        raise NotFound(path) from None
    try:
        if not stat.S_ISDIR(os.fstat(top).st_mode):
            raise InvalidArgument("extraction point is not a directory")
    finally:
        os.close(top)
    walk = TarWalk(stream)
    into = _Extraction(root, path, walk, keep_kind, owner)
    for entry in walk:
        try:
            into.add(entry)
        except OSError as error:
            what = f"{shown(entry.name)}: {(error.strerror or str(error)).lower()}"
            raise (ResourceExhausted if error.errno in _FULL else InvalidArgument)(
                f"copy into {path}: {what}"
            ) from error
    into.finish()
    while stream.read(1 << 16):
        pass


class _Extraction:
    def __init__(self, root: int, path: str, walk: TarWalk, keep_kind: bool, owner: tuple[int, int] | None) -> None:
        self._root = root
        self._path = path
        self._walk = walk
        self._keep_kind = keep_kind
        self._owner = owner
        self._directories: list[tuple[str, int]] = []

    def add(self, entry: Entry) -> None:
        check_entry(entry)
        name = os.fsdecode(_inside(entry.name))
        way, _, last = name.rpartition("/")
        parent = make_directories(self._root, f"{self._path}/{way}")
        try:
            if last:
                self._add(parent, last, name, entry)
            elif entry.kind == DIRECTORY:
                self._settle_directory(parent, name, entry)
        finally:
            os.close(parent)

    def _add(self, parent: int, last: str, name: str, entry: Entry) -> None:
        present = _mode(parent, last)
        if present is not None:
            is_directory = stat.S_ISDIR(present)
            if self._keep_kind and is_directory != (entry.kind == DIRECTORY):
                ours, theirs = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
                raise InvalidArgument(
                    f'cannot overwrite {ours} "{self._path}/{name}" with {theirs} "{shown(entry.name)}"'
                )
            if is_directory and entry.kind == DIRECTORY:
                self._settle_below(parent, last, name, entry)
                return
            if is_directory:
                remove_tree(f"{of_descriptor(parent)}/{last}")  # Of any depth.
            else:
                os.unlink(last, dir_fd=parent)
        self._make(parent, last, name, entry)

    def _make(self, parent: int, last: str, name: str, entry: Entry) -> None:
        uid, gid = self._owner or (entry.uid, entry.gid)
        mode = entry.mode & 0o7777
        match entry.kind:
            case k if k == REGULAR:
                file = os.open(last, _NEW, 0o600, dir_fd=parent)
                try:
                    write_data(file, self._walk, entry)
                    os.fchown(file, uid, gid)
                    os.fchmod(file, mode)
                    set_xattrs(of_descriptor(file).encode(), _kept(entry), follow=True)
                    os.utime(file, ns=(entry.mtime, entry.mtime))
                finally:
                    os.close(file)
                return
            case k if k == DIRECTORY:
                os.mkdir(last, 0o700, dir_fd=parent)
                self._settle_below(parent, last, name, entry)
                return
            case k if k == HARD_LINK:
                self._link(parent, last, entry)
                return
            case k if k == SYMLINK:
                os.symlink(entry.target, last, dir_fd=parent)
            case k if k == FIFO:
                os.mkfifo(last, 0o600, dir_fd=parent)
            case k if k in (CHARACTER, BLOCK_DEVICE):
                kind = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
                os.mknod(last, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
            case _:
                raise InvalidArgument(f"{shown(entry.name)}: an archive's entry of unknown kind {entry.kind!r}")
        os.chown(last, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != SYMLINK:
            os.chmod(last, mode, dir_fd=parent)
        os.utime(last, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _link(self, parent: int, last: str, entry: Entry) -> None:
        way, _, target = os.fsdecode(_inside(entry.target)).rpartition("/")
        source = open_in_root(self._root, f"{self._path}/{way}", _PLACE)
        try:
            os.link(target, last, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _settle_below(self, parent: int, last: str, name: str, entry: Entry) -> None:
        directory = os.open(last, _PLACE | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._settle_directory(directory, name, entry)
        finally:
            os.close(directory)

    def _settle_directory(self, directory: int, name: str, entry: Entry) -> None:
        """All but its time, which what comes into it would change."""
        path = of_descriptor(directory)
        os.chown(path, *(self._owner or (entry.uid, entry.gid)))
        os.chmod(path, entry.mode & 0o7777)
        set_xattrs(path.encode(), _kept(entry), follow=True)
        self._directories.append((name, entry.mtime))

    def finish(self) -> None:
        for name, mtime in reversed(self._directories):
            with contextlib.suppress(OSError):  # The container has moved it.
                directory = open_in_root(self._root, f"{self._path}/{name}", _PLACE)
                try:
                    os.utime(of_descriptor(directory), ns=(mtime, mtime))
                finally:
                    os.close(directory)


def _inside(name: bytes) -> bytes:
    """A name as a path below the directory. Raises InvalidArgument for one that would lead out of it."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise InvalidArgument(f"{shown(name)}: an archive's entry leads out of the directory")
    return b"/".join(parts)


def _mode(parent: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _kept(entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name, value) for name, value in (entry.xattrs or {}).items() if name.startswith(_XATTRS))
