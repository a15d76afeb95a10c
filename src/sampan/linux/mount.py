"""Mounting: mount(2), umount2(2), pivot_root(2) and the calls on descriptors that came with Linux 5.2 and 5.12.

A mount onto a path that a container's image controls goes onto a descriptor (`open_tree` and `move_mount`, or
`mount` onto /proc/self/fd/N), so that no link is followed between the check and the use.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from typing import NamedTuple

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
MS_I_VERSION = 1 << 23
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
MOUNT_ATTR_RELATIME = 0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
"""The field of the three above, which takes one of them: it is cleared as a whole before it is set."""
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

FLAGS = {
    "ro": (MS_RDONLY, True), "rw": (MS_RDONLY, False), "nosuid": (MS_NOSUID, True), "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True), "dev": (MS_NODEV, False), "noexec": (MS_NOEXEC, True),
    "exec": (MS_NOEXEC, False), "sync": (MS_SYNCHRONOUS, True), "async": (MS_SYNCHRONOUS, False),
    "dirsync": (MS_DIRSYNC, True), "mand": (MS_MANDLOCK, True), "nomand": (MS_MANDLOCK, False),
    "noatime": (MS_NOATIME, True), "atime": (MS_NOATIME, False), "nodiratime": (MS_NODIRATIME, True),
    "diratime": (MS_NODIRATIME, False), "relatime": (MS_RELATIME, True), "norelatime": (MS_RELATIME, False),
    "strictatime": (MS_STRICTATIME, True), "nostrictatime": (MS_STRICTATIME, False),
    "lazytime": (MS_LAZYTIME, True), "nolazytime": (MS_LAZYTIME, False), "iversion": (MS_I_VERSION, True),
    "noiversion": (MS_I_VERSION, False), "nosymfollow": (MS_NOSYMFOLLOW, True),
    "symfollow": (MS_NOSYMFOLLOW, False), "silent": (MS_SILENT, True), "loud": (MS_SILENT, False),
    "remount": (MS_REMOUNT, True), "bind": (MS_BIND, True), "rbind": (MS_BIND | MS_REC, True),
    "defaults": (0, True),
}  # fmt: skip
"""mount(8)'s words for the flags, each with whether it is set or cleared; the last one counts."""

PROPAGATION = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE | MS_REC, "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC, "shared": MS_SHARED, "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE, "runbindable": MS_UNBINDABLE | MS_REC,
}  # fmt: skip

LONGEST_VALUE = 255
"""Bytes of an option's value that fsconfig(2) takes; mount(2) takes a page of options (`LONGEST_OPTIONS`)."""
LONGEST_OPTIONS = 4095


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). `data` is the file system's own options; the kernel would cut what exceeds a page (E2BIG)."""
    if len(os.fsencode(data)) > LONGEST_OPTIONS:
        raise OSError(errno.E2BIG, "the options are longer than a page", target)
    check(
        libc.mount(encode(source), encode(target), encode(kind) or None, flags, encode(data) or None), "mount", target
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(encode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). With `.` for both, the old root lies on top of the new one and is unmounted from there."""
    syscall("pivot_root", encode(new_root), encode(put_old), path=new_root)


def open_tree(path: str, *, recursive: bool = False, directory: int = AT_FDCWD) -> int:
    """open_tree(2): a detached copy of the mount at `path`, as a descriptor; `recursive`: with its submounts.

    An empty path: of what the descriptor `directory` is open on.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", directory, encode(path), flags | (0 if path else AT_EMPTY_PATH), path=path or None)


def move_mount(source: int, target: int, path: str = "") -> None:
    """move_mount(2): attach the mount that `source` is open on to what the descriptor `target` (O_PATH) is open on, or
    to `path` from there."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", source, b"", target, encode(path), flags)


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    directory: int, *, attributes: int = 0, cleared: int = 0, propagation: int = 0, user_namespace: int = 0,
    recursive: bool = False,
) -> None:  # fmt: skip
    """mount_setattr(2) on the mount that the descriptor is open on: MOUNT_ATTR_* to set and to clear, MS_SHARED or
    another kind of propagation, a user namespace's descriptor along with MOUNT_ATTR_IDMAP."""
    arguments = _MountAttributes(attributes, cleared, propagation, user_namespace)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", directory, b"", flags, ctypes.byref(arguments), ctypes.sizeof(arguments))


def set_propagation(directory: int, propagation: int) -> None:
    """Set MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, with MS_REC on the whole tree."""
    mount_setattr(directory, propagation=propagation & ~MS_REC, recursive=bool(propagation & MS_REC))


def is_mounted(path: str) -> bool:
    """Whether `path` is a mount point in this process's namespace; a path that does not exist is not."""
    octal = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ", 5)[4] == octal for line in table)


class Mount(NamedTuple):
    """A line of mountinfo. `root`: which part of the file system is mounted. `tags`: `shared:N` and its like."""

    root: str
    point: str
    kind: str
    tags: tuple[str, ...]


def mounts() -> list[Mount]:
    """The mounts of this process's namespace, as far as its root leads to them: proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return [_parsed(line) for line in table]


def _parsed(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    _, _, _, root, point, _, *tags = before.split(" ")
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        root, point = root.replace(escape, character), point.replace(escape, character)
    return Mount(root, point, after.partition(" ")[0], tuple(tags))


_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6


def new_mount(kind: str, options: Iterable[tuple[str, str | None]], attributes: int = 0) -> int:
    """A new mount of a file system, detached, by fsopen(2) and its siblings. An option without a value is a flag.

    The OSError says what the file system says of it.
    """
    name, _, subtype = kind.partition(".")
    context = syscall("fsopen", encode(name), _FSOPEN_CLOEXEC, path=kind)
    try:
        for key, value in (*options, *((("subtype", subtype),) if subtype else ())):
            if value is None:
                syscall("fsconfig", context, _FSCONFIG_SET_FLAG, encode(key), None, 0)
            elif len(os.fsencode(value)) > LONGEST_VALUE:
                raise OSError(errno.E2BIG, f"option {key} is longer than {LONGEST_VALUE} bytes", kind)
            else:
                syscall("fsconfig", context, _FSCONFIG_SET_STRING, encode(key), encode(value), 0)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        said = _said(context)
        if not said:
            raise
        raise OSError(error.errno, said) from error
    finally:
        os.close(context)


def _said(context: int) -> str:
    """The file system's own words on what failed, if it has any."""
    words: list[str] = []
    try:
        while True:
            kind, _, message = os.read(context, 4096).decode(errors="replace").strip().partition(" ")
            if kind == "e":
                words.append(message)
    except OSError:  # ENODATA after the last one; ENOMSG, or none of this, where the kernel is older.
        return "; ".join(words)


def mount_overlay(target: str, lower: list[str], upper: str, work: str, *options: str) -> None:
    """An overlay of any number of lower directories, topmost first: mount(2) takes one page of options. Linux 6.5.
    `options`: others, with or without a value."""
    pairs: list[tuple[str, str | None]] = [("lowerdir+", each) for each in lower]
    pairs += [("upperdir", upper), ("workdir", work)]
    pairs += [(key, value or None) for key, _, value in (each.partition("=") for each in options)]
    attach(new_mount("overlay", pairs), target)


def mount_erofs(image: str, target: str, device: str) -> None:
    """An EROFS image in a file, with another file that it points into, read-only and with nothing that could be run on
    the host: Linux 6.12. Neither is a block device, and no loop device is made."""
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    if "," not in device:
        mount(image, target, "erofs", flags, f"device={device}")
        return
    tree = new_mount(
        "erofs", (("source", image), ("device", device)),
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
    )  # fmt: skip
    attach(tree, target)


def attach(tree: int, target: str) -> None:
    """Move a detached mount to a path, and close its descriptor."""
    try:
        directory = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            move_mount(tree, directory)
        finally:
            os.close(directory)
    finally:
        os.close(tree)
