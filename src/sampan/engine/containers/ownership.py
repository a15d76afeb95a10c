"""Whose a mount's files are in the container: `:U` gives them to its user, `idmap` makes them look like that user's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sampan.engine.containers.record import MountPoint, Record
from sampan.engine.containers.users import resolve_user
from sampan.errors import InvalidArgument
from sampan.linux.trees import own_tree
from sampan.oci.runtime import IDMapping, User

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_LAST = (1 << 32) - 2
"""The greatest id: the one after it stands for none."""
_SYSTEM = frozenset((
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc",
    "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run",
    "/var/spool", "/var/tmp",
))  # fmt: skip
Maps = tuple[tuple[IDMapping, ...], tuple[IDMapping, ...]]


def check(points: Sequence[MountPoint]) -> None:
    """Raises InvalidArgument for a directory of the host's that nobody can mean to give away."""
    for point in points:
        if point.chown and point.type == "bind":
            where = os.path.realpath(point.source)
            if where in _SYSTEM or where.startswith(("/usr/", "/proc/", "/sys/", "/dev/", "/boot/")):
                raise InvalidArgument(f"{point.source} is the system's own: its owner is not changed (option U)")


def give(engine: Engine, record: Record, points: Sequence[MountPoint]) -> None:
    """All that is in the mounts that ask for it becomes the container's user's. Blocks. Raises InvalidArgument."""
    root = engine.core.snapshots.graph_data(record.id).merged_dir
    user = resolve_user(root, record.config.user)
    for point in points:
        if point.chown:
            try:
                own_tree(point.source, user.uid, user.gid)
            except OSError as error:
                raise InvalidArgument(
                    f"change the owner of {point.source}: {(error.strerror or str(error)).lower()}"
                ) from error


def id_maps(points: Sequence[MountPoint], root: str, user: User) -> dict[str, Maps]:
    """By destination: how to map the ids of the mounts that ask for it. `root`: where names of users are looked up.
    Raises InvalidArgument."""
    found: dict[str, Maps] = {}
    for point in points:
        if point.id_mapping is None:
            continue
        named = point.id_mapping.user
        inside = resolve_user(root, named) if named else user
        try:
            owner = os.stat(point.source)
        except OSError as error:
            raise InvalidArgument(f"stat {point.source}: {(error.strerror or '').lower()}") from error
        found[point.destination] = exchanged(owner.st_uid, inside.uid), exchanged(owner.st_gid, inside.gid)
    return found


def exchanged(outside: int, inside: int) -> tuple[IDMapping, ...]:
    """A map in which two ids have changed places, so that what belongs to one on the disk belongs to the other in the
    container, and every other id stays what it is. Pure."""
    low, high = sorted((outside, inside))
    pieces = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1)]
    if low == high:
        pieces = [(0, 0, low + 1)]
    pieces.append((high + 1, high + 1, _LAST - high))
    return tuple(IDMapping(container_id=disk, host_id=seen, size=size) for disk, seen, size in pieces if size > 0)
