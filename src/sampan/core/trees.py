"""A container's files as a tar: the whole of them, or what it has changed as an image's layer (image-spec layer.md).

Headers are POSIX's pax: times to the nanosecond, extended attributes as SCHILY.xattr, names as the bytes that they are.
What a container changes meanwhile never leads out of its root, and never makes a broken archive: a file that became
shorter is filled up, one that became longer is cut.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Protocol

from sampan.core.changes import Change, Kind, open_directory
from sampan.errors import InvalidArgument
from sampan.linux.fs import file_system

_BLOCK = 512
_CHUNK = 1 << 20
_MOST_EXTENTS = 10_000
"""Of one file: a reader has its limits, too (docs/design/0012)."""
_XATTR = "SCHILY.xattr."
_OVERLAY = "trusted.overlay."
_KERNELS = frozenset((0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163))
"""proc, sysfs, cgroup and cgroup2, devpts, mqueue, debugfs, tracefs: what a container sees of the kernel is no file of
its own, and some of it can't be read to an end. linux/magic.h"""
_GONE = (FileNotFoundError, NotADirectoryError)
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def write_tree(root: int, out: Sink) -> None:
    """Everything below an open directory, but sockets. Raises InvalidArgument for paths that are too long."""
    writer = _Writer(out)
    with _too_deep():
        writer.below(root)
    writer.finish()


def write_all(root: int, out: Sink) -> None:
    """An open directory itself, as `./`, and everything below it but sockets; holes of files as GNU tar's sparse format
    1.0 has them. What is overlayfs's is kept. Raises as `write_tree` does."""
    writer = _Writer(out, holes=True, overlay=True)
    with _too_deep():
        writer.add(root, ".", "./")
        writer.below(root, "./")
    writer.finish()


Grafts = Mapping[str, tuple[int, str]]
"""What lies elsewhere: by the path below the top, an open directory and the name there."""


def write_entry(directory: int, name: str, shown: str, out: Sink, grafts: Grafts | None = None) -> None:
    """One entry of an open directory, as `shown`, with all that is below it. Raises as `write_tree` does."""
    writer = _Writer(out)
    with _too_deep():
        writer.whole(directory, name, shown, grafts or {})
    writer.finish()


def write_changes(root: int, changes: Iterable[Change], out: Sink) -> None:
    """What has changed below an open directory, which shows how it is now; what is no more, as whiteouts."""
    writer = _Writer(out)
    with _too_deep():
        for change in changes:
            path, _, name = change.path.rpartition("/")
            if change.kind is Kind.DELETED:
                writer.whiteout(path, name)
                continue
            with contextlib.suppress(*_GONE):
                directory = open_directory(root, path)
                try:
                    writer.add(directory, name, change.path)
                finally:
                    os.close(directory)
    writer.finish()


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """What has gone, or become something else, is left out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REPLACED:
            raise


@contextlib.contextmanager
def _too_deep() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InvalidArgument(f"read the container's files: {(error.strerror or str(error)).lower()}") from error


class _Writer:
    def __init__(self, out: Sink, *, holes: bool = False, overlay: bool = False) -> None:
        """`holes`: they are not written. `overlay`: overlayfs's attributes are."""
        self._out = out
        self._holes = holes
        self._overlay = overlay
        self._links: dict[tuple[int, int], str] = {}

    def add(self, directory: int, name: str, path: str) -> bool:
        """One entry; whether it is a directory. What is gone by now is left out."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                return False  # A socket, which no archive has.
            entry = _entry(directory, name, path, kind, status, self._overlay)
            if kind != tarfile.REGTYPE:
                self._write_header(entry)
                return kind == tarfile.DIRTYPE
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            if error.errno in _REPLACED:
                return False
            raise
        with open(file, "rb", buffering=0) as content:
            opened = os.fstat(file)
            if stat.S_ISREG(opened.st_mode):
                self._file(entry, content, opened)
        return False

    def whole(self, directory: int, name: str, path: str, grafts: Grafts) -> None:
        """One entry, as `path`, with all that is below it."""
        if self.add(directory, name, path):
            with _unless_gone():
                top = open_directory(directory, name)
                try:
                    self.below(top, f"{path.rstrip('/')}/", grafts)
                finally:
                    os.close(top)

    def below(self, root: int, prefix: str = "", grafts: Grafts | None = None) -> None:
        """Everything below an open directory, with something before its names."""
        grafts = grafts or {}
        waiting = [""]
        while waiting:
            path = waiting.pop()
            with _unless_gone():
                directory = open_directory(root, path)
                try:
                    if file_system(directory) in _KERNELS:
                        continue
                    found = [f"{path}/{name}" if path else name for name in sorted(os.listdir(directory))]
                    found = [each for each in found if each not in grafts]
                    into = [each for each in found if self.add(directory, each.rpartition("/")[2], prefix + each)]
                finally:
                    os.close(directory)
                waiting += reversed(into)
        for path, (directory, name) in grafts.items():
            if not any(path.startswith(f"{other}/") for other in grafts):
                inside = ((each, there) for each, there in grafts.items() if each.startswith(f"{path}/"))
                inner = {each.removeprefix(f"{path}/"): there for each, there in inside}
                self.whole(directory, name, prefix + path, inner)

    def _file(self, entry: tarfile.TarInfo, content: BinaryIO, status: os.stat_result) -> None:
        key = status.st_dev, status.st_ino
        if status.st_nlink > 1:
            if key in self._links:
                entry.type, entry.linkname = tarfile.LNKTYPE, self._links[key]
                self._write_header(entry)
                return
            self._links[key] = entry.name
        extents = _extents(content, status) if self._holes else None
        if extents is None:
            entry.size = status.st_size
            self._write_header(entry)
            self._data(content, status.st_size)
        else:
            self._sparse(entry, content, status.st_size, extents)
        self._zeros(-entry.size % _BLOCK)

    def _sparse(
        self, entry: tarfile.TarInfo, content: BinaryIO, size: int, extents: Sequence[tuple[int, int]]
    ) -> None:  # fmt: skip
        """A map of the data, by its decimal numbers, stands before the data."""
        numbers = [len(extents), *(number for extent in extents for number in extent)]
        table = b"".join(b"%d\n" % number for number in numbers)
        table += bytes(-len(table) % _BLOCK)
        way, _, name = entry.name.rpartition("/")
        entry.pax_headers = {
            **entry.pax_headers, "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": entry.name,
            "GNU.sparse.realsize": str(size),
        }  # fmt: skip
        entry.name = f"{way or '.'}/GNUSparseFile.0/{name}"
        entry.size = len(table) + sum(length for _, length in extents)
        self._write_header(entry)
        self._out.write(table)
        for start, length in extents:
            content.seek(start)
            self._data(content, length)

    def _data(self, content: BinaryIO, size: int) -> None:
        """As much of the file as was said, whatever has become of it."""
        left = size
        while left and (data := content.read(min(left, _CHUNK))):
            self._out.write(data)
            left -= len(data)
        self._zeros(left)

    def _zeros(self, left: int) -> None:
        while left:
            self._out.write(bytes(min(left, _CHUNK)))
            left -= min(left, _CHUNK)

    def whiteout(self, path: str, name: str) -> None:
        entry = tarfile.TarInfo(f"{path}/.wh.{name}" if path else f".wh.{name}")
        self._write_header(entry)

    def _write_header(self, entry: tarfile.TarInfo) -> None:
        self._out.write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def finish(self) -> None:
        self._out.write(bytes(2 * _BLOCK))


def _extents(content: BinaryIO, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file has data, if it has holes, and not too many for who reads the archive."""
    if status.st_blocks * _BLOCK >= status.st_size:
        return None
    found: list[tuple[int, int]] = []
    end, file = 0, content.fileno()
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole from there on.
        while end < status.st_size and len(found) <= _MOST_EXTENTS:
            start = os.lseek(file, end, os.SEEK_DATA)
            end = min(os.lseek(file, start, os.SEEK_HOLE), status.st_size)
            if start < end:
                found.append((start, end - start))
    os.lseek(file, 0, os.SEEK_SET)
    if len(found) > _MOST_EXTENTS or found == [(0, status.st_size)]:
        return None
    if not found or sum(found[-1]) < status.st_size:
        found.append((status.st_size, 0))  # GNU tar's own writes this, and its reader takes the size from it.
    return found


def _entry(
    directory: int, name: str, path: str, kind: bytes, status: os.stat_result, overlay: bool = False
) -> tarfile.TarInfo:  # fmt: skip
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = kind, stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    second, fraction = divmod(status.st_mtime_ns, 1_000_000_000)
    entry.mtime = second
    headers: dict[str, str] = {}
    if fraction or second < 0:
        headers["mtime"] = _decimal(status.st_mtime_ns)
    if kind == tarfile.SYMTYPE:
        entry.linkname = os.readlink(name, dir_fd=directory)
        entry.mode = 0o777  # What else an image said of it means nothing.
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    # By the directory's descriptor, as there is no call that takes one and a name.
    place = f"/proc/self/fd/{directory}/{name}"
    with contextlib.suppress(OSError):
        for attribute in sorted(os.listxattr(place, follow_symlinks=False)):
            if overlay or not attribute.startswith(_OVERLAY):
                value = os.getxattr(place, attribute, follow_symlinks=False)
                headers[_XATTR + attribute] = value.decode("utf-8", "surrogateescape")
    entry.pax_headers = headers
    return entry


def _decimal(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    second, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{sign}{second}.{fraction:09d}".rstrip("0").rstrip(".")
