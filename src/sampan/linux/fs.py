"""Paths inside a container's root, resolved by the kernel so that no link leads out: openat2(2)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat

from sampan.linux.libc import check, encode, libc, syscall

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

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


def open_in_root(root: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open `path` as a process whose root is the descriptor's directory would. /proc's magic links are refused."""
    return openat2(root, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Open the directory `path` inside the root, making what is missing of it; returns an O_PATH descriptor.

    Links on the way are followed inside the root, and a dangling one is an error (ENOENT), as is a file
    (ENOTDIR).
    """
    at = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    done = ""
    try:
        for part in _parts(path):
            done += "/" + part
            try:
                following = open_in_root(root, done, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, mode, dir_fd=at)
                following = open_in_root(root, done, os.O_PATH | os.O_DIRECTORY)
            os.close(at)
            at = following
    except BaseException:
        os.close(at)
        raise
    return at


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Open `path` inside the root, made empty with its directories where nothing is; returns an O_PATH descriptor."""
    try:
        return open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        parent, name = os.path.split(path.rstrip("/"))
        directory = make_directories(root, parent)
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory))
        except FileExistsError:
            pass
        finally:
            os.close(directory)
        return open_in_root(root, path, os.O_PATH)


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
