"""`-v`, `--mount`, `--tmpfs` and an image's VOLUMEs: from what was asked for to what will be mounted."""

from __future__ import annotations

import os
import posixpath

import msgspec

from sampan.api.containers import HostConfig, Mount
from sampan.engine.containers.record import MountPoint
from sampan.engine.volumes import Volumes
from sampan.errors import InvalidArgument, Unsupported

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def parse_bind(text: str) -> MountPoint:
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
    destination = checked_destination(destination, text)
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
            propagation=propagation or "rprivate", create_source=True,
        )  # fmt: skip
    if source and ("/" in source or source.startswith(".")):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"volume\": "
            f'{source} includes invalid characters for a local volume name'
        )  # fmt: skip
    return MountPoint(
        type="volume", name=source, destination=destination, mode=mode or "z", writable=writable, copy=copy,
        anonymous=not source,
    )  # fmt: skip


def checked_destination(path: str, text: str) -> str:
    """An absolute, normal path that is not the root. Raises InvalidArgument."""
    if not path.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount path: '{path}' mount path must be absolute"
        )
    path = posixpath.normpath("/" + path.lstrip("/"))
    if path == "/":
        raise InvalidArgument(f"invalid volume specification: '{text}': destination can't be '/'")
    return path


def from_mount(mount: Mount) -> MountPoint:
    """One `--mount`. Raises InvalidArgument, Unsupported."""
    if not mount.target:
        raise InvalidArgument("invalid mount config: field Target must not be empty")
    destination = checked_destination(mount.target, mount.target)
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
            propagation = (options.propagation if options else "") or "rprivate"
            if propagation not in _PROPAGATIONS:
                raise InvalidArgument(f"invalid propagation mode: {propagation}")
            return MountPoint(
                type="bind", source=posixpath.normpath(mount.source), destination=destination,
                writable=not mount.read_only, propagation=propagation, create_source=create,
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


def wanted_mounts(host_config: HostConfig, image_volumes: tuple[str, ...]) -> list[MountPoint]:
    """What a container asks for, the image's volumes included where nothing else is mounted there. Raises
    InvalidArgument for two on one place."""
    found: dict[str, MountPoint] = {}
    for point in (
        *(parse_bind(each) for each in host_config.binds or ()),
        *(from_mount(each) for each in host_config.mounts or ()),
        *(_tmpfs(path, options) for path, options in (host_config.tmpfs or {}).items()),
    ):
        if point.destination in found:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        found[point.destination] = point
    for path in image_volumes:
        destination = checked_destination(path, path)
        if destination not in found:
            found[destination] = MountPoint(type="volume", destination=destination, copy=True, anonymous=True)
    return list(found.values())


def _tmpfs(path: str, options: str) -> MountPoint:
    words = tuple(each for each in options.split(",") if each)
    return MountPoint(
        type="tmpfs",
        destination=checked_destination(path, path),
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
