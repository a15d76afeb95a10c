"""Whether what is mounted in a volume can show on the host, or the other way round: by the mount that it lies in."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from sampan.engine.containers.record import MountPoint
from sampan.errors import InvalidArgument
from sampan.linux import mount as m

_WANTED = {
    "shared": ("shared:",), "rshared": ("shared:",), "slave": ("shared:", "master:"), "rslave": ("shared:", "master:"),
}  # fmt: skip


def checked(points: tuple[MountPoint, ...]) -> tuple[MountPoint, ...]:
    """As they will be mounted. Raises InvalidArgument, in Docker's words, for a bind mount that asks for what its
    source's mount is not."""
    if not any(point.propagation in _WANTED for point in points):
        return points
    mounts = m.mounts()
    return tuple(_checked(point, mounts) if point.propagation in _WANTED else point for point in points)


def _checked(point: MountPoint, mounts: Iterable[m.Mount]) -> MountPoint:
    around = _around(os.path.realpath(point.source), mounts)
    if around is None or any(tag.startswith(_WANTED[point.propagation]) for tag in around.tags):
        return point
    if point.follows:
        return msgspec.structs.replace(point, propagation="rprivate")
    kind = "shared or slave" if point.propagation.endswith("slave") else "shared"
    raise InvalidArgument(f"path {point.source} is mounted on {around.point} but it is not a {kind} mount")


def _around(path: str, mounts: Iterable[m.Mount]) -> m.Mount | None:
    """The mount that the path lies in: the innermost, of those on one place the last."""
    found = None
    for each in mounts:
        inside = each.point == "/" or path == each.point or path.startswith(each.point + "/")
        if inside and (found is None or len(each.point) >= len(found.point)):
            found = each
    return found


def of_root(points: Iterable[MountPoint]) -> str:
    """linux.rootfsPropagation: a volume can share with the host, or follow it, as far as the root lets it."""
    asked = {point.propagation for point in points}
    if asked & {"shared", "rshared"}:
        return "shared"
    return "rslave" if asked & {"slave", "rslave"} else ""
