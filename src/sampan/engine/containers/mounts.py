"""`-v`, `--mount`, `--tmpfs` and an image's VOLUMEs: from what was asked for to what will be mounted."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

import msgspec

from sampan.api.containers import HostConfig, Mount
from sampan.engine.containers.record import MountPoint
from sampan.engine.volumes import Volumes
from sampan.errors import InvalidArgument, Unsupported

_TYPES = ("bind", "volume", "tmpfs", "image", "cluster", "npipe")
_TMPFS_OPTIONS = frozenset({
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "gid", "huge", "mand", "mode", "mpol",
    "noatime", "nodev", "nodiratime", "noexec", "nomand", "norelatime", "nostrictatime", "nosuid", "nr_blocks",
    "nr_inodes", "private", "rbind", "relatime", "remount", "ro", "rprivate", "rshared", "rslave", "runbindable", "rw",
    "shared", "size", "slave", "strictatime", "suid", "sync", "uid", "unbindable",
})  # fmt: skip
"""Of tmpfs(5) and mount(8), as Docker takes them."""
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def parse_bind(text: str, data_root: str) -> MountPoint:
    """`[source:]destination[:options]`. The source is a host's path, or a volume's name; none: an anonymous volume.

    Raises InvalidArgument in Docker's words.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, destination, mode = "", parts[0], ""
    if len(parts) >= 2:
        source, destination = parts[0], parts[1]
    if len(parts) == 3:
        mode = parts[2]
    destination = checked_destination(
        destination, f"invalid volume specification: '{text}': invalid mount config for type \"bind\": "
    )  # fmt: skip
    writable, propagation, copy = True, "", True
    for option in mode.split(",") if mode else []:
        if option in ("ro", "readonly"):
            writable = False
        elif option in _PROPAGATIONS:
            propagation = option
        elif option == "nocopy":
            copy = False
        elif option not in ("rw", "z", "Z", "cached", "delegated", "consistent", "rbind", "bind", ""):
            raise InvalidArgument(f"invalid mode: {mode}")
    if source.startswith("/"):
        return MountPoint(
            type="bind", source=posixpath.normpath(source), destination=destination, mode=mode, writable=writable,
            propagation=_propagation(source, propagation, data_root), follows=not propagation, create_source=True,
        )  # fmt: skip
    return MountPoint(
        type="volume", name=source, destination=destination, mode=mode or "z", writable=writable, copy=copy,
        anonymous=not source,
    )  # fmt: skip


def _propagation(source: str, wanted: str, data_root: str) -> str:
    """What holds the data root holds the containers' mounts: without their unmounts, which `rslave` lets in, a
    container would keep the file systems of others in use. Raises InvalidArgument."""
    if not _holds(source, data_root) and not _holds(data_root, source):
        return wanted or "rprivate"
    if wanted not in ("", "rslave", "rshared"):
        raise InvalidArgument(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{data_root}", bind mount source: "{source}", propagation: "{wanted}"'
        )
    return wanted or "rslave"


def _holds(directory: str, path: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def checked_destination(path: str, context: str = "") -> str:
    """An absolute, normal path that is not the root. Raises InvalidArgument, with `context` before its words."""
    if not path.startswith("/"):
        raise InvalidArgument(f"{context}invalid mount path: '{path}' mount path must be absolute")
    path = posixpath.normpath("/" + path.lstrip("/"))
    if path == "/":
        raise InvalidArgument(f"{context}invalid specification: destination can't be '/'")
    return path


def from_mount(mount: Mount, data_root: str) -> MountPoint:
    """One `--mount`. Raises InvalidArgument, Unsupported."""
    context = f'invalid mount config for type "{mount.type}": '
    if mount.type not in _TYPES:
        raise InvalidArgument(f"{context}mount type unknown")
    if not mount.target:
        raise InvalidArgument(f"{context}field Target must not be empty")
    destination = checked_destination(mount.target, context)
    match mount.type:
        case "bind":
            options = mount.bind_options
            if not mount.source:
                raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
            if not mount.source.startswith("/"):
                raise InvalidArgument(
                    f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' "
                    "mount path must be absolute"
                )
            create = bool(options and options.create_mountpoint)
            if not create and not os.path.lexists(mount.source):
                raise InvalidArgument(
                    f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
                )
            propagation = options.propagation if options else ""
            if propagation not in ("", *_PROPAGATIONS):
                raise InvalidArgument(f"invalid propagation mode: {propagation}")
            return MountPoint(
                type="bind", source=posixpath.normpath(mount.source), destination=destination,
                writable=not mount.read_only, propagation=_propagation(mount.source, propagation, data_root),
                follows=not propagation, create_source=create,
                recursive=not (options and options.non_recursive),
            )  # fmt: skip
        case "volume":
            volume = mount.volume_options
            if volume is not None and volume.subpath:
                raise Unsupported(f"mount {destination}: volume-subpath is not supported")
            if volume is not None and volume.driver_config and volume.driver_config.name not in ("", "local"):
                raise Unsupported(f"mount {destination}: volume driver {volume.driver_config.name} is not supported")
            return MountPoint(
                type="volume", name=mount.source, destination=destination, mode="z", writable=not mount.read_only,
                copy=not (volume and volume.no_copy), anonymous=not mount.source,
            )  # fmt: skip
        case "tmpfs":
            if mount.source:
                raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
            tmpfs: list[str] = []
            if mount.tmpfs_options is not None:
                if mount.tmpfs_options.size_bytes:
                    tmpfs.append(f"size={mount.tmpfs_options.size_bytes}")
                if mount.tmpfs_options.mode:
                    tmpfs.append(f"mode={mount.tmpfs_options.mode:o}")
            return MountPoint(
                type="tmpfs", destination=destination, writable=not mount.read_only, options=tuple(tmpfs)
            )  # fmt: skip
        case _:
            raise Unsupported(f'mount type "{mount.type}" is not supported')


def parse_volumes_from(text: str) -> tuple[str, str]:
    """`CONTAINER[:MODE]`: the name, and the mode or nothing. Raises InvalidArgument in Docker's words."""
    name, _, mode = text.partition(":")
    if not name:
        raise InvalidArgument(f"invalid volumes-from specification: {text}")
    for option in mode.split(",") if mode else []:
        if option not in ("ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid mode: {mode}")
    return name, mode


def borrowed(points: Sequence[MountPoint], mode: str) -> list[MountPoint]:
    """Another container's binds and volumes, as they were settled there; `mode` can only take the writing away."""
    return [
        msgspec.structs.replace(
            point, copy=False, create_source=False, mode=mode or point.mode,
            writable=point.writable and "ro" not in mode.split(","),
        )
        for point in points
        if point.type in ("bind", "volume")
    ]  # fmt: skip


def wanted_mounts(
    host_config: HostConfig, image_volumes: tuple[str, ...], data_root: str, others: Sequence[MountPoint] = ()
) -> list[MountPoint]:  # fmt: skip
    """What a container asks for, the image's volumes included where nothing else is mounted there. `others`: what it
    borrows, which is hidden by its own. Raises InvalidArgument for two on one place."""
    found: dict[str, MountPoint] = {}
    for point in (
        *(parse_bind(each, data_root) for each in host_config.binds or ()),
        *(from_mount(each, data_root) for each in host_config.mounts or ()),
        *(_tmpfs(path, options) for path, options in (host_config.tmpfs or {}).items()),
    ):
        if point.destination in found:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        found[point.destination] = point
    for point in others:
        found.setdefault(point.destination, point)
    for path in image_volumes:
        destination = checked_destination(path)
        if destination not in found:
            found[destination] = MountPoint(type="volume", destination=destination, copy=True, anonymous=True)
    return list(found.values())


def _tmpfs(path: str, options: str) -> MountPoint:
    words = tuple(each for each in options.split(",") if each)
    for word in words:
        if word.partition("=")[0] not in _TMPFS_OPTIONS:
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
    return MountPoint(
        type="tmpfs",
        destination=checked_destination(path),
        mode=options,
        options=words,
        writable="ro" not in words,
    )


def with_volumes(points: list[MountPoint], volumes: Volumes) -> tuple[MountPoint, ...]:
    """The mounts with their volumes made and found. Blocks. Raises what the volumes raise; anonymous ones that were
    made before are removed again."""
    made: list[str] = []
    result: list[MountPoint] = []
    try:
        for point in points:
            if point.type == "volume":
                if point.name:
                    volume = volumes.create(point.name)
                else:
                    volume = volumes.anonymous()
                    made.append(volume.name)
                point = msgspec.structs.replace(point, name=volume.name, source=volume.mountpoint)
            elif point.type == "bind" and point.create_source and not os.path.lexists(point.source):
                os.makedirs(point.source, mode=0o755, exist_ok=True)
            result.append(point)
    except BaseException as error:
        for name in made:
            volumes.remove(name, force=True)
        if isinstance(error, OSError):
            raise InvalidArgument(
                f"error while creating mount source path '{error.filename}': {(error.strerror or '').lower()}"
            ) from error
        raise
    return tuple(result)
