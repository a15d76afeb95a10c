"""A configuration's mounts as steps: options sorted into flags, propagation and the file system's own. Pure.

Follows runtime-spec config.md, "Mounts" and "Linux mount options", and config-linux.md; where they leave it open, runc.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from sampan.errors import InvalidArgument
from sampan.linux import mount as m
from sampan.oci.runtime import Mount
from sampan.runtime.identity import Maps, checked_maps

_RECURSIVE = {
    "rro": (m.MOUNT_ATTR_RDONLY, True), "rrw": (m.MOUNT_ATTR_RDONLY, False), "rnosuid": (m.MOUNT_ATTR_NOSUID, True),
    "rsuid": (m.MOUNT_ATTR_NOSUID, False), "rnodev": (m.MOUNT_ATTR_NODEV, True), "rdev": (m.MOUNT_ATTR_NODEV, False),
    "rnoexec": (m.MOUNT_ATTR_NOEXEC, True), "rexec": (m.MOUNT_ATTR_NOEXEC, False),
    "rnodiratime": (m.MOUNT_ATTR_NODIRATIME, True), "rdiratime": (m.MOUNT_ATTR_NODIRATIME, False),
    "rnosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, True), "rsymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, False),
}  # fmt: skip

_RECURSIVE_ATIME = {
    "rrelatime": m.MOUNT_ATTR_RELATIME, "rnorelatime": m.MOUNT_ATTR_RELATIME, "rnoatime": m.MOUNT_ATTR_NOATIME,
    "ratime": m.MOUNT_ATTR_RELATIME, "rstrictatime": m.MOUNT_ATTR_STRICTATIME, "rnostrictatime": m.MOUNT_ATTR_RELATIME,
}  # fmt: skip
"""These share one field, so that not to have one of them is the kernel's default, relatime."""

OPTIONS = frozenset((*m.FLAGS, *m.PROPAGATION, *_RECURSIVE, *_RECURSIVE_ATIME, "tmpcopyup", "idmap", "ridmap"))
"""All that are known; every other one is the file system's own."""

_ATTRIBUTES = (
    (m.MS_RDONLY, m.MOUNT_ATTR_RDONLY), (m.MS_NOSUID, m.MOUNT_ATTR_NOSUID), (m.MS_NODEV, m.MOUNT_ATTR_NODEV),
    (m.MS_NOEXEC, m.MOUNT_ATTR_NOEXEC), (m.MS_NOSYMFOLLOW, m.MOUNT_ATTR_NOSYMFOLLOW),
    (m.MS_NODIRATIME, m.MOUNT_ATTR_NODIRATIME),
)  # fmt: skip
_SUPER_FLAGS = (
    (m.MS_RDONLY, "ro"), (m.MS_SYNCHRONOUS, "sync"), (m.MS_DIRSYNC, "dirsync"), (m.MS_LAZYTIME, "lazytime"),
    (m.MS_MANDLOCK, "mand"),
)  # fmt: skip
_RESET = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC | m.MOUNT_ATTR_NOSYMFOLLOW
_SELINUX = ("context=", "fscontext=", "defcontext=", "rootcontext=")
_OF_CGROUPS = ("cgroup", "cgroup2")


class IDMap(msgspec.Struct, frozen=True):
    """The ids of a mount are translated: by `maps`, or else by the container's user namespace; `recursive`: those of
    the mounts below it too."""

    recursive: bool
    maps: Maps | None


class MountStep(msgspec.Struct, frozen=True):
    """One mount. `flags` and `cleared` are mount(2)'s, `recursive` and `recursive_cleared` MOUNT_ATTR_*, `own` are the
    file system's own options, `propagation` is set one after the other. A bind mount's source is absolute. `place`: the
    destination by its letters; links may lead it elsewhere."""

    source: str
    destination: str
    place: str
    kind: str
    flags: int = 0
    cleared: int = 0
    own: tuple[str, ...] = ()
    propagation: tuple[int, ...] = ()
    recursive: int = 0
    recursive_cleared: int = 0
    copy_up: bool = False
    id_map: IDMap | None = None

    @property
    def bind(self) -> bool:
        return bool(self.flags & m.MS_BIND)

    @property
    def remount(self) -> bool:
        return bool(self.flags & m.MS_REMOUNT)


class _Sorted:
    """Options, as they are read."""

    def __init__(self) -> None:
        self.flags = self.cleared = self.recursive = self.recursive_cleared = 0
        self.own: list[str] = []
        self.propagation: list[int] = []
        self.copy_up = False
        self.id_map: bool | None = None

    def take(self, option: str) -> None:
        if option in m.FLAGS:
            flag, on = m.FLAGS[option]
            self.flags = self.flags | flag if on else self.flags & ~flag
            self.cleared = self.cleared & ~flag if on else self.cleared | flag
        elif option in m.PROPAGATION:
            self.propagation.append(m.PROPAGATION[option])
        elif option in _RECURSIVE:
            flag, on = _RECURSIVE[option]
            self.recursive = self.recursive | flag if on else self.recursive & ~flag
            self.recursive_cleared = self.recursive_cleared & ~flag if on else self.recursive_cleared | flag
        elif option in _RECURSIVE_ATIME:
            self.recursive = self.recursive & ~m.MOUNT_ATTR__ATIME | _RECURSIVE_ATIME[option]
            self.recursive_cleared |= m.MOUNT_ATTR__ATIME
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option in ("idmap", "ridmap"):
            self.id_map = option == "ridmap"
        elif option:
            self.own.append(option)


def mount_step(mount: Mount, bundle: str, user_namespace: bool = False) -> MountStep:
    """What a mount's options mean. Raises InvalidArgument.

    `user_namespace`: the container has one, whose ids a mount may take.
    """
    options = _Sorted()
    for option in mount.options:
        options.take(option)
    if mount.type == "bind":
        options.flags |= m.MS_BIND
    bind = bool(options.flags & m.MS_BIND)
    step = MountStep(
        source=os.path.join(bundle, mount.source) if bind else mount.source,
        destination=mount.destination,
        place=os.path.normpath("/" + mount.destination.lstrip("/")),
        kind="bind" if bind else mount.type,
        flags=options.flags,
        cleared=options.cleared,
        own=tuple(options.own),
        propagation=tuple(options.propagation),
        recursive=options.recursive,
        recursive_cleared=options.recursive_cleared,
        copy_up=options.copy_up,
        id_map=_id_map(mount, options.id_map, user_namespace),
    )
    _check(step, mount)
    return _whole_sys(step)


def _whole_sys(step: MountStep) -> MountStep:
    """The host's /sys, bound read-only with all that lies in it, is meant to be that as a whole. By the letter only the
    topmost mount is, and the cgroups in it can be written to (CVE-2023-25809)."""
    whole = m.MS_BIND | m.MS_REC | m.MS_RDONLY
    if step.place != "/sys" or step.flags & whole != whole or step.recursive_cleared & m.MOUNT_ATTR_RDONLY:
        return step
    return msgspec.structs.replace(step, recursive=step.recursive | m.MOUNT_ATTR_RDONLY)


def _check(step: MountStep, mount: Mount) -> None:
    where = f"mount {mount.destination!r}"
    if "\0" in "".join((mount.source, mount.destination, mount.type, *mount.options)):
        raise InvalidArgument("mount: embedded null byte")
    if step.place == "/":
        raise InvalidArgument(f"{where}: the destination is the root itself")
    if step.bind:
        if step.own:
            raise InvalidArgument(f"{where}: a bind mount has no options of a file system, such as {step.own[0]!r}")
        if not mount.source and not step.remount:
            raise InvalidArgument(f"{where}: a bind mount needs a source")
    elif not step.kind and not step.remount:
        raise InvalidArgument(f"{where}: the type is missing")
    if step.copy_up and step.kind != "tmpfs":
        raise InvalidArgument(f"{where}: tmpcopyup is for a tmpfs")
    if step.id_map is not None and (not step.bind or step.remount):
        raise InvalidArgument(f"{where}: the ids of bind mounts only can be mapped")


def _id_map(mount: Mount, recursive: bool | None, user_namespace: bool) -> IDMap | None:
    where = f"mount {mount.destination!r}"
    if mount.uid_mappings or mount.gid_mappings:
        return IDMap(bool(recursive), checked_maps(mount.uid_mappings, mount.gid_mappings, where))
    if recursive is None:
        return None
    if not user_namespace:
        raise InvalidArgument(f"{where}: idmap without uidMappings and gidMappings needs a user namespace")
    return IDMap(recursive, None)


def _attributes(flags: int) -> int:
    return sum(attribute for flag, attribute in _ATTRIBUTES if flags & flag)


def _atime(flags: int) -> int:
    """The field of the attributes, as mount(2) fills it."""
    if flags & m.MS_STRICTATIME:
        return m.MOUNT_ATTR_STRICTATIME
    return m.MOUNT_ATTR_NOATIME if flags & m.MS_NOATIME else m.MOUNT_ATTR_RELATIME


def new_attributes(flags: int) -> int:
    """MOUNT_ATTR_* of a new mount with mount(2)'s flags."""
    return _attributes(flags) | _atime(flags)


class Change(msgspec.Struct, frozen=True):
    """MOUNT_ATTR_* that a bind mount's source has to gain and to lose. Where it may not lose them (a user namespace may
    not take back what the host has set), `explicit` is what must be lost all the same."""

    gained: int
    lost: int
    explicit: int


def bind_change(step: MountStep) -> Change | None:
    """None: nothing is asked for, so that the mount is as its source is. Otherwise it gets exactly what is asked for:
    nosuid alone makes a mount that can be written to and executed from, whatever its source is.

    The times of access are the source's unless they are asked for.
    """
    if not step.flags & ~(m.MS_BIND | m.MS_REC | m.MS_REMOUNT) and not step.cleared:
        return None
    gained = _attributes(step.flags)
    explicit = _attributes(step.cleared)
    if step.flags & (m.MS_NOATIME | m.MS_RELATIME | m.MS_STRICTATIME):
        gained |= _atime(step.flags)
        explicit |= m.MOUNT_ATTR__ATIME
    elif step.cleared & (m.MS_NOATIME | m.MS_STRICTATIME):
        explicit |= m.MOUNT_ATTR__ATIME
    return Change(gained, (_RESET & ~gained) | explicit, explicit)


def options(kind: str, source: str, flags: int, own: Iterable[str]) -> list[tuple[str, str | None]]:
    """A new mount's options as fsconfig(2) takes them: the file system's own, and those of every file system."""
    found: list[tuple[str, str | None]] = [("source", source or kind)]
    found += [(name, None) for flag, name in _SUPER_FLAGS if flags & flag]
    for option in own:
        for piece in pieces(option):
            key, separator, value = piece.partition("=")
            if kind == "overlay" and key == "lowerdir" and len(value) > m.LONGEST_VALUE and "\\" not in value:
                found += [("lowerdir+", layer) for layer in value.split(":")]
            else:
                found.append((key, value if separator else None))
    return found


def pieces(option: str) -> list[str]:
    """What is between the commas, but for those that a backslash or a security context's syntax protects."""
    if option.startswith(_SELINUX):
        key, _, value = option.partition("=")
        return [f"{key}={value.strip(chr(34))}"]
    found: list[str] = []
    for part in option.split(","):
        if found and found[-1].endswith("\\"):
            found[-1] += "," + part
        else:
            found.append(part)
    return [piece for piece in found if piece]


def split(steps: tuple[MountStep, ...]) -> tuple[tuple[MountStep, ...], tuple[MountStep, ...]]:
    """The mounts that can be made before the cgroup is known and the parent has sent what it alone can open, and those
    that can't: neither may cover what it did not."""
    early: list[MountStep] = []
    late: list[MountStep] = []
    for step in steps:
        place = step.place + "/"
        related = any(
            place.startswith(other) or other.startswith(place) for other in (each.place + "/" for each in late)
        )
        (late if related or step.kind in _OF_CGROUPS or step.id_map is not None else early).append(step)
    return tuple(early), tuple(late)


# --- What else of the configuration is about the file system ---------------------------------------------


def root_path(bundle: str, path: str) -> str:
    """The root's absolute path on the host."""
    if "\0" in path:
        raise InvalidArgument("config.json: root.path: embedded null byte")
    return os.path.normpath(os.path.join(bundle, path))


def root_propagation(name: str) -> int:
    """linux.rootfsPropagation. Unless it is given, the host's later mounts are seen, and ours not by the host."""
    if not name:
        return m.MS_SLAVE | m.MS_REC
    if name not in m.PROPAGATION:
        raise InvalidArgument(f"config.json: unknown rootfsPropagation {name!r}")
    return m.PROPAGATION[name]


def checked_paths(paths: tuple[str, ...], what: str) -> tuple[str, ...]:
    """linux.maskedPaths or readonlyPaths. Raises InvalidArgument."""
    for path in paths:
        if not path.startswith("/") or os.path.normpath(path).strip("/") == "" or "\0" in path:
            raise InvalidArgument(f"config.json: linux.{what}: {path!r} is not an absolute path below the root")
    return paths


def checked_label(label: str) -> str:
    """linux.mountLabel. Raises InvalidArgument for what would end the option it becomes, and begin another."""
    if '"' in label or "\0" in label:
        raise InvalidArgument("config.json: linux.mountLabel is not a security context")
    return label
