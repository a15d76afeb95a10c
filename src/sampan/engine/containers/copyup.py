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
from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, open_in_root, openat2

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 16 << 20


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
    """Copy everything below one directory into another, both open: files, directories and links, with owners, modes,
    times and attributes. What is there already stays.

    Another container may have the volume by now and move things about in it: so every name is taken from the
    directory's descriptor, and neither a link nor a rename leads out of the volume.
    """
    waiting = [""]
    while waiting:
        path = waiting.pop()
        at = openat2(source, path or ".", _DIRECTORY, resolve=_PLAIN)
        try:
            to = openat2(target, path or ".", _DIRECTORY, resolve=_PLAIN)
        except OSError as error:
            os.close(at)
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                continue  # Somebody has put something else there.
            raise
        try:
            for name in os.listdir(at):
                if _copy(at, to, name):
                    waiting.append(f"{path}/{name}" if path else name)
            _copy_attributes(at, to)
        finally:
            os.close(at)
            os.close(to)


def _copy(source: int, target: int, name: str) -> bool:
    """Copy one entry; True for a directory, whose content is still to be copied."""
    found = os.stat(name, dir_fd=source, follow_symlinks=False)
    with contextlib.suppress(FileExistsError):
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            return True
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISREG(found.st_mode):
            _copy_file(source, target, name)
        # Devices, fifos and sockets of an image are nothing to keep in a volume.
    return False


def _copy_file(source: int, target: int, name: str) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while os.sendfile(writing, reading, None, _CHUNK):
                continue
            _copy_attributes(reading, writing)
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
