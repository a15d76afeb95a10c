"""Mounting: mount(2), umount2(2), pivot_root(2) and the calls on descriptors that came with Linux 5.2 and 5.12.

A mount onto a path that a container's image controls goes onto a descriptor (`open_tree` and `move_mount`, or
`mount` onto /proc/self/fd/N), so that no link is followed between the check and the use.
"""

from __future__ import annotations

import ctypes
import os

from sampan.linux.libc import check, encode, libc, syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). `data` is the file system's own options, a page (4096 bytes) at most."""
    check(
        libc.mount(encode(source), encode(target), encode(kind) or None, flags, encode(data) or None), "mount", target
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(encode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). With `.` for both, the old root lies on top of the new one and is unmounted from there."""
    syscall("pivot_root", encode(new_root), encode(put_old), path=new_root)


def open_tree(path: str, flags: int = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, *, directory: int = AT_FDCWD) -> int:
    """open_tree(2): a detached copy of the mount at `path`, as a descriptor; with AT_RECURSIVE its submounts too."""
    return syscall("open_tree", directory, encode(path), flags, path=path)


def move_mount(source: int, target: int) -> None:
    """move_mount(2): attach a detached mount onto what the descriptor `target` (O_PATH) is open on."""
    syscall("move_mount", source, b"", target, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(directory: int, *, attributes: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) on the mount that the descriptor is open on."""
    arguments = _MountAttributes(attributes, 0, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(
        "mount_setattr", directory, b"", flags, ctypes.byref(arguments), ctypes.sizeof(arguments)
    )  # fmt: skip


def is_mounted(path: str) -> bool:
    """Whether `path` is a mount point in this process's namespace; a path that does not exist is not."""
    octal = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == octal for line in table)


_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSOPEN_CLOEXEC = 1


def mount_overlay(target: str, lower: list[str], upper: str, work: str) -> None:
    """An overlay of any number of lower directories, topmost first, by fsopen(2) and its siblings: mount(2) takes one
    page of options. Linux 6.5 and later."""
    context = syscall("fsopen", b"overlay", _FSOPEN_CLOEXEC)
    try:
        for key, value in (*(("lowerdir+", each) for each in lower), ("upperdir", upper), ("workdir", work)):
            syscall("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), encode(value), 0, path=value)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0, path=target)
        tree = syscall("fsmount", context, _FSOPEN_CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        directory = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            move_mount(tree, directory)
        finally:
            os.close(directory)
    finally:
        os.close(tree)
