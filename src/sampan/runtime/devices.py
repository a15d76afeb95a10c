"""The device nodes of a container, and the links in /dev. Follows config-linux.md, "Devices" and "Default devices".

A node is made by its directory's descriptor and then checked by its own: what somebody puts in its place meanwhile, in
a directory that another container shares, is neither chowned nor bound.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

import msgspec

from sampan.errors import InvalidArgument
from sampan.linux import mount as m
from sampan.linux.fs import (
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    make_directories,
    of_descriptor,
    openat2,
)
from sampan.oci.runtime import Device
from sampan.runtime.identity import check_id
from sampan.runtime.tree import Tree, closing, told

DEFAULT_DEVICES = tuple(
    Device(type="c", path=f"/dev/{name}", major=major, minor=minor, file_mode=0o666, uid=0, gid=0)
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    )
)  # fmt: skip
"""config-linux.md, default devices."""

_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_PTMX = "/dev/ptmx"
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_MAJORS, _MINORS = 1 << 12, 1 << 20


def planned(asked: Sequence[Device]) -> tuple[Device, ...]:
    """Those that every container has, but for the paths that are asked for, and these. Raises InvalidArgument."""
    checked = [_checked(device) for device in asked]
    paths = {device.path for device in checked}
    # It is the link to the container's own devpts, whatever is asked for.
    return (*(each for each in DEFAULT_DEVICES if each.path not in paths), *(d for d in checked if d.path != _PTMX))


def _checked(device: Device) -> Device:
    where = f"linux.devices: {device.path!r}"
    if not device.path.startswith("/") or "\0" in device.path:
        raise InvalidArgument(f"{where} is not an absolute path")
    path = os.path.normpath("/" + device.path.lstrip("/"))
    if path == "/":
        raise InvalidArgument(f"{where} is the root itself")
    if device.type not in _KINDS:
        raise InvalidArgument(f"{where}: unknown type {device.type!r}")
    if device.type != "p" and not (0 <= device.major < _MAJORS and 0 <= device.minor < _MINORS):
        raise InvalidArgument(f"{where}: {device.major}:{device.minor} is not a device's number")
    check_id(device.uid or 0, f"{where}: uid")
    check_id(device.gid or 0, f"{where}: gid")
    return msgspec.structs.replace(device, path=path)


def make(tree: Tree, devices: Sequence[Device]) -> None:
    """Make the links and the nodes, with the modes that are asked for."""
    umask = os.umask(0)
    try:
        with told("create /dev"), closing(make_directories(tree.root, "/dev", follow=False)) as directory:
            _make_links(directory)
        with contextlib.ExitStack() as held:
            way, directory = "", -1
            for device in devices:
                with told(f"create device {device.path}"):
                    above, name = os.path.split(device.path)
                    if above != way:
                        way, directory = above, held.enter_context(closing(make_directories(tree.root, above)))
                    _make(directory, name, device)
    finally:
        os.umask(umask)


def _make_links(directory: int) -> None:
    for name, target in _LINKS:
        with contextlib.suppress(FileExistsError):
            os.symlink(target, name, dir_fd=directory)
    if os.path.exists("/proc/kcore"):
        with contextlib.suppress(FileExistsError):
            os.symlink("/proc/kcore", "core", dir_fd=directory)
    # A node that the image brings would open the devpts that is beside it, which need not be the container's own.
    with contextlib.suppress(FileNotFoundError):
        os.unlink("ptmx", dir_fd=directory)
    os.symlink("pts/ptmx", "ptmx", dir_fd=directory)


def _make(directory: int, name: str, device: Device) -> None:
    kind = _KINDS[device.type]
    mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
    number = 0 if kind == stat.S_IFIFO else os.makedev(device.major, device.minor)
    try:
        os.mknod(name, kind | mode, number, dir_fd=directory)
    except FileExistsError:
        with closing(_named(directory, name)) as node:
            _compare(node, kind, number)
        return
    except PermissionError:
        if kind == stat.S_IFIFO:
            raise
        _bind(directory, name, device, kind, number)
        return
    owner = (device.uid or 0, device.gid or 0)
    if owner == (0, 0) and not os.fstat(directory).st_mode & stat.S_ISGID:
        return  # It is root's already.
    with closing(_named(directory, name)) as node:
        _compare(node, kind, number)
        os.chown(of_descriptor(node), *owner)
        if mode & (stat.S_ISUID | stat.S_ISGID):  # They went with the change of owner.
            os.chmod(of_descriptor(node), mode)


def _named(directory: int, name: str) -> int:
    return openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_BENEATH)


def _compare(node: int, kind: int, number: int) -> None:
    """Raises OSError if the descriptor is not open on the device that is meant."""
    found = os.fstat(node)
    if stat.S_IFMT(found.st_mode) != kind or (kind != stat.S_IFIFO and found.st_rdev != number):
        raise OSError(errno.EEXIST, "something else is there already")


def _bind(directory: int, name: str, device: Device, kind: int, number: int) -> None:
    """Where devices can't be made (a user namespace, a sandbox), the host's own is bound."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=directory))
    with closing(_of_host(device, kind, number)) as tree:
        resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
        with closing(openat2(directory, name, os.O_PATH, resolve=resolve)) as place:
            m.move_mount(tree, place)


def _of_host(device: Device, kind: int, number: int) -> int:
    """The host's node, by the path that is asked for or by the name that the kernel has for its number."""
    for path in filter(None, (device.path, _kernel_name(kind, number))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            tree = m.open_tree(path)
            found = os.fstat(tree)
            if stat.S_IFMT(found.st_mode) == kind and found.st_rdev == number:
                return tree
            os.close(tree)
    raise OSError(errno.ENODEV, f"the host has no node of {os.major(number)}:{os.minor(number)} to bind")


def _kernel_name(kind: int, number: int) -> str:
    directory = "block" if kind == stat.S_IFBLK else "char"
    with (
        contextlib.suppress(OSError),
        open(f"/sys/dev/{directory}/{os.major(number)}:{os.minor(number)}/uevent", encoding="utf-8") as file,
    ):
        for line in file:
            if line.startswith("DEVNAME="):
                return "/dev/" + line.removeprefix("DEVNAME=").strip()
    return ""
