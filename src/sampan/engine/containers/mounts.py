"""`-v`, `--mount`, `--tmpfs` and an image's VOLUMEs: from what was asked for to what will be mounted."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

import msgspec

from sampan.api.containers import (
    BindOptions,
    HostConfig,
    IDMapping,
    Mount,
    TmpfsOptions,
    VolumeDriverConfig,
    VolumeOptions,
)
from sampan.engine.containers.record import MountPoint
from sampan.engine.volumes import Volumes
from sampan.errors import InvalidArgument, Unsupported

_TYPES = ("bind", "volume", "tmpfs", "image")
_TMPFS_OPTIONS = frozenset({
    "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "gid", "huge", "mand", "mode", "mpol",
    "noatime", "nodev", "nodiratime", "noexec", "nomand", "norelatime", "nostrictatime", "nosuid", "nr_blocks",
    "nr_inodes", "private", "rbind", "relatime", "remount", "ro", "rprivate", "rshared", "rslave", "runbindable", "rw",
    "shared", "size", "slave", "strictatime", "suid", "sync", "uid", "unbindable",
})  # fmt: skip
"""Of tmpfs(5) and mount(8), as Docker takes them."""
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


_MODES = (
    ("ro", "rw", "readonly"), ("z", "Z"), _PROPAGATIONS, ("nocopy",), ("U",), ("idmap",),
    ("cached", "delegated", "consistent"),
)  # fmt: skip
"""Of each at most one."""
_TMPFS_FLAGS = ("exec", "noexec")
_OPTIONS_OF = {
    "bind": "BindOptions", "volume": "VolumeOptions", "image": "ImageOptions", "tmpfs": "TmpfsOptions",
    "cluster": "ClusterOptions",
}  # fmt: skip


def parse_bind(text: str, data_root: str, driver: str = "") -> MountPoint:
    """`[source:]destination[:options]`. The source is a host's path, or a volume's name; none: an anonymous volume.
    `driver`: a new volume's.

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
    words = mode.split(",") if mode else []
    found = [next((word for word in words if word in group), "") for group in _MODES]
    if len(words) != sum(map(bool, found)):
        raise InvalidArgument(f"invalid mode: {mode}")
    writing, _, propagation, nocopy, chown, mapped, _ = found
    bind = source.startswith("/")
    if nocopy if bind else propagation or mapped:
        kind, other = ("bind", "VolumeOptions") if bind else ("volume", "BindOptions")
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": field {other} must not "
            "be specified"
        )
    writable = writing in ("", "rw")
    if bind:
        return MountPoint(
            type="bind", source=posixpath.normpath(source), destination=destination, mode=mode, writable=writable,
            propagation=_propagation(source, propagation, data_root), follows=not propagation, create_source=True,
            chown=bool(chown), id_mapping=IDMapping(source="match-user") if mapped else None,
        )  # fmt: skip
    return MountPoint(
        type="volume", name=source, destination=destination, mode=mode or "z", writable=writable, copy=not nocopy,
        anonymous=not source, chown=bool(chown), volume_options=_made_by(driver),
    )  # fmt: skip


def _made_by(driver: str) -> VolumeOptions | None:
    return VolumeOptions(driver_config=VolumeDriverConfig(name=driver)) if driver else None


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
    for kind, name in _OPTIONS_OF.items():
        if kind != mount.type and getattr(mount, f"{kind}_options") is not None:
            raise InvalidArgument(f'{name} must not be specified on mount type "{mount.type}"')
    if not mount.target:
        raise InvalidArgument(f"{context}field Target must not be empty")
    destination = checked_destination(mount.target, context)
    match mount.type:
        case "bind":
            return _bind(mount, destination, data_root, context)
        case "volume":
            return _volume(mount, destination, context)
        case "image":
            if not mount.source:
                raise InvalidArgument(f"{context}field Source must not be empty")
            return MountPoint(
                type="image", name=mount.source, destination=destination, writable=False, propagation="rprivate",
                subpath=_subpath(mount.image_options.subpath if mount.image_options else "", context),
            )  # fmt: skip
        case _:
            if mount.source:
                raise InvalidArgument(f"{context}field Source must not be specified")
            return MountPoint(
                type="tmpfs", destination=destination, writable=not mount.read_only,
                options=_tmpfs_options(mount.tmpfs_options or TmpfsOptions(), context),
            )  # fmt: skip


def _bind(mount: Mount, destination: str, data_root: str, context: str) -> MountPoint:
    options = mount.bind_options or BindOptions()
    if not mount.source:
        raise InvalidArgument(f"{context}field Source must not be empty")
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"{context}invalid mount path: '{mount.source}' mount path must be absolute")
    if not options.create_mountpoint and not os.path.lexists(mount.source):
        raise InvalidArgument(f"{context}bind source path does not exist: {mount.source}")
    if options.propagation not in ("", *_PROPAGATIONS):
        raise InvalidArgument(f"invalid propagation mode: {options.propagation}")
    alone, force = options.read_only_non_recursive, options.read_only_force_recursive
    if alone and force:
        raise InvalidArgument("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
    if (alone or force) and not mount.read_only:
        name = "ReadOnlyForceRecursive" if force else "ReadOnlyNonRecursive"
        raise InvalidArgument(f"mount options conflict: !ReadOnly && BindOptions.{name}")
    mapping = options.id_mapping
    if mapping is not None and mapping.source == "userns":
        raise Unsupported(f"{context}IDMapping by a user namespace is not supported: containers have none")
    if mapping is not None and mapping.source != "match-user":
        raise InvalidArgument(f"{context}invalid IDMapping.Source: '{mapping.source}'")
    return MountPoint(
        type="bind", source=posixpath.normpath(mount.source), destination=destination,
        writable=not mount.read_only, propagation=_propagation(mount.source, options.propagation, data_root),
        follows=not options.propagation, create_source=options.create_mountpoint,
        recursive=not options.non_recursive, deep_read_only=not alone, id_mapping=mapping,
    )  # fmt: skip


def _volume(mount: Mount, destination: str, context: str) -> MountPoint:
    options = mount.volume_options or VolumeOptions()
    subpath = _subpath(options.subpath, context)
    if subpath and not mount.source:
        raise InvalidArgument(f"{context}must not set Subpath when using anonymous volumes")
    return MountPoint(
        type="volume", name=mount.source, destination=destination, mode="z", writable=not mount.read_only,
        copy=not options.no_copy, anonymous=not mount.source, subpath=subpath, volume_options=options,
    )  # fmt: skip


def _subpath(path: str, context: str) -> str:
    """What the letters tell; where links lead is seen when it is mounted."""
    if not path:
        return ""
    normal = posixpath.normpath(path)
    if normal.startswith(("/", "../")) or normal == ".." or "\0" in path:
        raise InvalidArgument(f"{context}subpath must be a relative path within the volume")
    return path


def _tmpfs_options(given: TmpfsOptions, context: str) -> tuple[str, ...]:
    options: list[str] = []
    if given.size_bytes:
        options.append(f"size={given.size_bytes}")
    if given.mode:
        options.append(f"mode={given.mode:o}")
    for each in given.options or ():
        if not 1 <= len(each) <= 2:
            raise InvalidArgument(f"{context}invalid option array length")
        if each[0] not in _TMPFS_FLAGS or len(each) == 2:
            raise InvalidArgument(f"{context}invalid option: {each[0]}")
        options.append(each[0])
    return tuple(options)


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
            point, copy=False, create_source=False, chown=False, mode="",
            writable=point.writable and "ro" not in mode.split(","),
        )
        for point in points
        if point.type in ("bind", "volume")
    ]  # fmt: skip


def wanted_mounts(
    host_config: HostConfig, image_volumes: tuple[str, ...], data_root: str, others: Sequence[MountPoint] = ()
) -> list[MountPoint]:  # fmt: skip
    """What a container asks for, the image's volumes included where nothing else is mounted there. `others`: what it
    borrows, which is hidden by its own, and of which the last counts. Raises InvalidArgument for two on one place."""
    found: dict[str, MountPoint] = {}
    driver = host_config.volume_driver
    for point in (
        *(parse_bind(each, data_root, driver) for each in host_config.binds or ()),
        *(from_mount(each, data_root) for each in host_config.mounts or ()),
        *(_tmpfs(path, options) for path, options in (host_config.tmpfs or {}).items()),
    ):
        if point.destination in found:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        found[point.destination] = point
    for point in reversed(others):
        found.setdefault(point.destination, point)
    for path in image_volumes:
        destination = checked_destination(path)
        if destination not in found:
            found[destination] = MountPoint(
                type="volume", destination=destination, copy=True, anonymous=True, volume_options=_made_by(driver)
            )
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


def with_volumes(points: list[MountPoint], volumes: Volumes, names: Sequence[str] = ()) -> tuple[MountPoint, ...]:
    """The mounts with their volumes made and found; `names`: of the anonymous ones, in turn; none: any. Blocks. Raises
    what the volumes raise; anonymous ones that were made before are removed again."""
    made: list[str] = []
    result: list[MountPoint] = []
    try:
        for point in points:
            if point.type == "volume":
                options = point.volume_options or VolumeOptions()
                driver = options.driver_config or VolumeDriverConfig()
                if point.name:
                    volume = volumes.create(point.name, options.labels, driver=driver.name, options=driver.options)
                else:
                    volume = volumes.anonymous(
                        options.labels,
                        driver=driver.name,
                        options=driver.options,
                        name=names[len(made)] if names else "",
                    )
                    made.append(volume.name)
                point = msgspec.structs.replace(
                    point, name=volume.name, source=volume.mountpoint, volume_options=None
                )  # fmt: skip
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
