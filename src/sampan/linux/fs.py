"""Paths inside a container's root, resolved by the kernel so that no link leads out: openat2(2)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import posixpath
import stat
from collections.abc import Callable

from sampan.linux.libc import check, encode, libc, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RETRIES = 64


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), close-on-exec. A rename elsewhere in the middle of a look-up (EAGAIN) is tried again."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(_RETRIES):
        try:
            return syscall("openat2", directory, encode(path), ctypes.byref(how), ctypes.sizeof(how), path=path)
        except OSError as error:
            if error.errno != errno.EAGAIN or attempt == _RETRIES - 1:
                raise
    raise AssertionError("unreachable")


def exchange(first: str, second: str) -> None:
    """renameat2(2): two names of one file system change places, in one step."""
    syscall("renameat2", _AT_FDCWD, encode(first), _AT_FDCWD, encode(second), _RENAME_EXCHANGE, path=first)


def open_in_root(root: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open `path` as a process whose root is the descriptor's directory would. /proc's magic links are refused."""
    return openat2(root, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


_MOST_LINKS = 40
"""As the kernel follows in one look-up."""


def make_directories(root: int, path: str, mode: int = 0o755, *, follow: bool = True) -> int:
    """Open the directory `path` inside the root, making what is missing of it; returns an O_PATH descriptor.

    Links are followed inside the root, one that dangles too: what it names is made. Without `follow` any link is an
    error (ELOOP). A file in a directory's place is one (ENOTDIR).
    """
    return open_or_make(root, path, True, mode, follow=follow)[0]


def make_file(root: int, path: str, mode: int = 0o644, *, follow: bool = True) -> int:
    """Open `path` inside the root, made empty with its directories where nothing is, as `make_directories` does."""
    return open_or_make(root, path, False, mode, follow=follow)[0]


def open_or_make(root: int, path: str, directory: bool, mode: int, *, follow: bool = True) -> tuple[int, bool]:
    """`make_directories` or `make_file`, and whether it was made."""
    flags = os.O_PATH | (os.O_DIRECTORY if directory else 0)
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow else RESOLVE_NO_SYMLINKS)
    with contextlib.suppress(FileNotFoundError):
        return openat2(root, path, flags, resolve=resolve), False
    parent, name = _parent(root, path, mode if directory else 0o755, follow)
    if not name:
        return parent, False
    try:
        with contextlib.suppress(FileExistsError):
            if directory:
                os.mkdir(name, mode, dir_fd=parent)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=parent))
        return openat2(parent, name, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), True
    finally:
        os.close(parent)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class _Place:
    """Where a walk inside a root has come to: a descriptor, and the path to it, which has no links."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._parts: list[str] = []
        self.descriptor = open_in_root(root, ".")

    @property
    def parts(self) -> list[str]:
        return self._parts

    def _be(self, descriptor: int, parts: list[str]) -> None:
        os.close(self.descriptor)
        self.descriptor, self._parts = descriptor, parts

    def up(self) -> None:
        """Never out of the root, whatever has been put in the place of a directory meanwhile."""
        parts = self._parts[:-1]
        self._be(open_in_root(self._root, "/".join(parts) or ".", os.O_PATH | os.O_DIRECTORY), parts)

    def down(self, name: str) -> str | None:
        """Into what the name stands for. If that is a link: stay, and tell what it says; from the root if that is
        absolute."""
        found = openat2(self.descriptor, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH)
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            self._be(found, [*self._parts, name])
            return None
        try:
            link = os.readlink("", dir_fd=found)
        finally:
            os.close(found)
        if link.startswith("/"):
            self._be(open_in_root(self._root, "."), [])
        return link


def resolve_in_root(root: int, path: str) -> str:
    """What `path` stands for inside the root: a path from there without links, `/` for the root itself. What is missing
    of it is left as it is. It may be another when it is used: look-ups are to refuse links then."""
    place, rest = _walk(root, path, lambda *_: False)
    os.close(place.descriptor)
    return posixpath.normpath("/".join(("", *place.parts, *rest)))


def _parent(root: int, path: str, mode: int, follow: bool) -> tuple[int, str]:
    """Where the last part is to be made: its directory, and its name. If nothing is missing after all: what is there,
    and no name."""
    way, _, name = path.rstrip("/").rpartition("/")
    if name not in ("", ".", ".."):
        # Mostly it is the last part only that is missing, and no link that dangles.
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow else RESOLVE_NO_SYMLINKS)
        with contextlib.suppress(FileNotFoundError):
            parent = openat2(root, way or "/", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
            try:
                os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return parent, name
            os.close(parent)

    def make(directory: int, name: str, last: bool) -> bool:
        if not last:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=directory)
        return not last

    place, rest = _walk(root, path, make, follow=follow)
    return place.descriptor, rest[0] if rest else ""


def _walk(
    root: int, path: str, missing: Callable[[int, str, bool], bool], *, follow: bool = True
) -> tuple[_Place, list[str]]:  # fmt: skip
    """Part by part, following links inside the root: where it ends, and what is left of the path. The descriptor there
    is the caller's. `missing(directory, name, last)` is asked at a part that is not there: True if it is now."""
    waiting = _parts(path)[::-1]
    place = _Place(root)
    links = 0
    try:
        while waiting:
            part = waiting.pop()
            if part == "..":
                place.up()
                continue
            try:
                link = place.down(part)
            except FileNotFoundError:
                if not missing(place.descriptor, part, not waiting):
                    return place, [part, *waiting[::-1]]
                link = place.down(part)
            if link is not None:
                links += 1
                if not follow or links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                waiting += _parts(link)[::-1]
    except BaseException:
        os.close(place.descriptor)
        raise
    return place, []


def read_in_root(root: int, path: str, limit: int = 4 << 20) -> bytes:
    """The content of a regular file inside the root; a device or a fifo is refused (EINVAL) without having been opened,
    and a file of more than `limit` bytes (EFBIG)."""
    named = open_in_root(root, path)
    try:
        if not stat.S_ISREG(os.fstat(named).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        descriptor = os.open(of_descriptor(named), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(named)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content


def copy_data(reading: int, writing: int) -> None:
    """What is in one open file into another, new one, without the holes."""
    size = os.fstat(reading).st_size
    end = 0
    while True:
        try:
            start = os.lseek(reading, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = os.lseek(reading, start, os.SEEK_HOLE)
        os.lseek(writing, start, os.SEEK_SET)
        while start < end:
            done = os.sendfile(writing, reading, start, end - start)
            if done == 0:  # It was cut meanwhile.
                break
            start += done
    os.ftruncate(writing, size)


PROC_SUPER_MAGIC = 0x9FA0
DEVPTS_SUPER_MAGIC = 0x1CD1


def file_system(descriptor: int) -> int:
    """fstatfs(2): the magic number of the file system that the descriptor's file lies in."""
    buffer = (ctypes.c_long * 16)()  # struct statfs is 120 bytes; its first word is the file system's type.
    check(libc.fstatfs(descriptor, ctypes.byref(buffer)), "fstatfs")
    return buffer[0]


def is_procfs(descriptor: int) -> bool:
    """Whether what the descriptor is open on lies in a proc file system, and in no look-alike."""
    return file_system(descriptor) == PROC_SUPER_MAGIC


def of_descriptor(descriptor: int) -> str:
    """A path that stands for what the descriptor is open on, for calls that take paths only."""
    return f"/proc/self/fd/{descriptor}"
