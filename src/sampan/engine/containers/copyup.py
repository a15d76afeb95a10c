"""An empty volume is filled from what the image has at its mount point, once: Docker's copy-up."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence

from sampan.core.snapshots.overlay2 import Overlay2
from sampan.engine.containers.record import MountPoint
from sampan.linux.fs import of_descriptor, open_in_root


def fill_volumes(snapshots: Overlay2, container_id: str, points: Sequence[MountPoint]) -> None:
    """Blocks. The image's directory is looked up inside the container's root, so that no link of it leads out."""
    wanted = [point for point in points if point.type == "volume" and point.copy and not os.listdir(point.source)]
    if not wanted:
        return
    root = os.open(snapshots.mount(container_id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for point in wanted:
            try:
                source = open_in_root(root, point.destination, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                _copy(source, point.source)
            finally:
                os.close(source)
    finally:
        os.close(root)
        snapshots.unmount(container_id)


def _copy(source: int, target: str) -> None:
    shutil.copytree(of_descriptor(source), target, symlinks=True, dirs_exist_ok=True, copy_function=_copy_file)
    _copy_owners(source, target)


def _copy_file(source: str, target: str, *, follow_symlinks: bool = False) -> str:
    if stat.S_ISREG(os.lstat(source).st_mode):
        return str(shutil.copy2(source, target, follow_symlinks=False))
    return target  # Devices, fifos and sockets of an image are nothing to keep in a volume.


def _copy_owners(source: int, target: str) -> None:
    base = of_descriptor(source)
    for at, directories, names in os.walk(target):
        inside = at.removeprefix(target)
        for name in (*directories, *names, "."):
            found = os.lstat(f"{base}{inside}/{name}")
            os.chown(f"{at}/{name}", found.st_uid, found.st_gid, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                os.chmod(f"{at}/{name}", stat.S_IMODE(found.st_mode))
