"""What a container's mounts need on the host while it runs: volumes with what their options say, images, subpaths.

A subpath is looked up in its volume by the kernel, with the volume as the root of all links, and what is found is bound
at `mounts/CONTAINER/N`: by its descriptor, so that nobody who has the volume too can put something else in its place.
An image is a snapshot of its own over the image's layers, which keeps them; it is mounted where layers are.

All of it lasts from before the start until after the end. An engine that was killed in between leaves mounts, which
`sweep` removes: of containers that do not live.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec

from sampan.engine import local_driver
from sampan.engine.containers.record import MountPoint, Record
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError
from sampan.linux.fs import open_in_root
from sampan.linux.mount import move_mount, open_tree

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_log = logging.getLogger("sampan.containers")
_PLACE = os.O_PATH | os.O_CLOEXEC


def names(points: Sequence[MountPoint]) -> list[str]:
    """The volumes."""
    return [point.name for point in points if point.type == "volume"]


def may_block(engine: Engine, points: Sequence[MountPoint]) -> bool:
    """Whether `take` and `give_back` have more to do than to say whose the volumes are."""
    return any(point.type == "image" or point.subpath for point in points) or any(
        engine.volumes.mounts_on_use(name) for name in names(points)
    )


def snapshot(container_id: str, number: int) -> str:
    """The name of the snapshot that the container's mount of an image is."""
    return f"{container_id}.{number}"


def owner(snapshot_id: str) -> str:
    """The container of a snapshot, its own or one of its images'."""
    return snapshot_id.partition(".")[0]


def add_images(engine: Engine, container_id: str, points: Sequence[MountPoint]) -> tuple[MountPoint, ...]:
    """The mounts with their images found and kept, at the creation. Blocks. Raises NotFound, ResourceExhausted; then
    `remove_images` is to be called."""
    core = engine.core
    result: list[MountPoint] = []
    for number, point in enumerate(points):
        if point.type == "image":
            image = core.images.get(point.name)
            name = snapshot(container_id, number)
            core.snapshots.create_container(name, image.top)
            merged = core.snapshots.graph_data(name).merged_dir
            point = msgspec.structs.replace(point, image=image.id, source=merged)
        result.append(point)
    return tuple(result)


def remove_images(engine: Engine, container_id: str, points: Sequence[MountPoint]) -> None:
    """Blocks. Idempotent."""
    for number, point in enumerate(points):
        if point.type == "image":
            engine.core.snapshots.remove_container(snapshot(container_id, number))


def take(engine: Engine, record: Record) -> tuple[MountPoint, ...]:
    """The mounts as they are to be bound into the container. Blocks, if `may_block` says so. On failure all is given
    back.

    Raises NotFound and InvalidArgument (a subpath), Conflict (a volume that is being restored), what mounting raises.
    """
    result: list[MountPoint] = []
    try:
        for number, point in enumerate(record.mounts):
            if point.type == "volume":
                engine.volumes.use(point.name, record.id)
            elif point.type == "image":
                engine.core.snapshots.mount(snapshot(record.id, number), volatile=True)
            if point.subpath:
                point = msgspec.structs.replace(point, source=_bound(engine, record.id, number, point))
            result.append(point)
    except BaseException:
        give_back(engine, record)
        raise
    return tuple(result)


def _bound(engine: Engine, container_id: str, number: int, point: MountPoint) -> str:
    shown = f"{point.source}/{point.subpath}"
    root = os.open(point.source, _PLACE | os.O_DIRECTORY)
    try:
        found = open_in_root(root, point.subpath)
    except OSError as error:
        message = f"cannot access path {shown}: lstat {shown}: {(error.strerror or '').lower()}"
        if isinstance(error, FileNotFoundError):
            raise NotFound(message) from None
        raise InvalidArgument(message) from None
    finally:
        os.close(root)
    try:
        place = f"{engine.core.paths.mounts}/{container_id}/{number}"
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            os.makedirs(place, mode=0o700, exist_ok=True)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        tree = open_tree("", recursive=True, directory=found)
        try:
            target = os.open(place, _PLACE | os.O_NOFOLLOW)
            try:
                move_mount(tree, target)
            finally:
                os.close(target)
        finally:
            os.close(tree)
    except OSError as error:
        raise Conflict(f"cannot mount path {shown}: {(error.strerror or '').lower()}") from error
    finally:
        os.close(found)
    return place


def give_back(engine: Engine, record: Record) -> None:
    """Blocks, if `may_block` says so. Idempotent."""
    if any(point.subpath for point in record.mounts):
        _remove_places(f"{engine.core.paths.mounts}/{record.id}")
    for number, point in enumerate(record.mounts):
        if point.type == "image":
            with contextlib.suppress(SampanError, OSError):
                engine.core.snapshots.unmount(snapshot(record.id, number))
    engine.volumes.let_go(record.id, names(record.mounts))


def _remove_places(directory: str) -> None:
    """Never as a tree: what is mounted there is not ours to remove."""
    try:
        for name in os.listdir(directory):
            place = f"{directory}/{name}"
            local_driver.unmount(place)
            (os.rmdir if os.path.isdir(place) else os.unlink)(place)
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        _log.warning("remove %s: %s", directory, error)


def sweep(engine: Engine, live: Collection[str]) -> None:
    """Unmount what a killed engine left for containers that do not live. Blocks."""
    core = engine.core
    for name in os.listdir(core.paths.mounts):
        if name not in live:
            _remove_places(f"{core.paths.mounts}/{name}")
    for name in core.snapshots.containers():
        if name != owner(name) and owner(name) not in live:
            with contextlib.suppress(SampanError, OSError):
                core.snapshots.unmount(name)
    engine.volumes.sweep()
