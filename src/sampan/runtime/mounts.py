"""A configuration's mounts as steps: options sorted into flags, propagation and the file system's own. Pure.

Follows runtime-spec config.md, "Mounts", and config-linux.md.
"""

from __future__ import annotations

import os

import msgspec

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import mount as m
from sampan.oci.runtime import Mount

_FLAGS = {
    "ro": (m.MS_RDONLY, 0), "rw": (0, m.MS_RDONLY), "nosuid": (m.MS_NOSUID, 0), "suid": (0, m.MS_NOSUID),
    "nodev": (m.MS_NODEV, 0), "dev": (0, m.MS_NODEV), "noexec": (m.MS_NOEXEC, 0), "exec": (0, m.MS_NOEXEC),
    "sync": (m.MS_SYNCHRONOUS, 0), "async": (0, m.MS_SYNCHRONOUS), "dirsync": (m.MS_DIRSYNC, 0),
    "remount": (m.MS_REMOUNT, 0), "mand": (m.MS_MANDLOCK, 0), "nomand": (0, m.MS_MANDLOCK),
    "noatime": (m.MS_NOATIME, 0), "atime": (0, m.MS_NOATIME), "nodiratime": (m.MS_NODIRATIME, 0),
    "diratime": (0, m.MS_NODIRATIME), "relatime": (m.MS_RELATIME, 0), "norelatime": (0, m.MS_RELATIME),
    "strictatime": (m.MS_STRICTATIME, 0), "nostrictatime": (0, m.MS_STRICTATIME), "lazytime": (m.MS_LAZYTIME, 0),
    "nosymfollow": (m.MS_NOSYMFOLLOW, 0), "bind": (m.MS_BIND, 0), "rbind": (m.MS_BIND | m.MS_REC, 0),
    "defaults": (0, 0), "silent": (m.MS_SILENT, 0), "loud": (0, m.MS_SILENT),
}  # fmt: skip
PROPAGATION = {
    "private": m.MS_PRIVATE, "rprivate": m.MS_PRIVATE | m.MS_REC, "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC, "shared": m.MS_SHARED, "rshared": m.MS_SHARED | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE, "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}  # fmt: skip
_RECURSIVE_ATTRIBUTES = {
    "rro": m.MOUNT_ATTR_RDONLY, "rnosuid": m.MOUNT_ATTR_NOSUID, "rnodev": m.MOUNT_ATTR_NODEV,
    "rnoexec": m.MOUNT_ATTR_NOEXEC,
}  # fmt: skip


class MountStep(msgspec.Struct, frozen=True):
    """One mount. For a bind mount `source` is absolute and `attributes` are MOUNT_ATTR_*, on the whole tree if
    `recursive_attributes`; for a file system `flags` are mount(2)'s and `data` its own options."""

    source: str
    destination: str
    kind: str
    flags: int = 0
    data: str = ""
    propagation: int = 0
    attributes: int = 0
    recursive_attributes: int = 0

    @property
    def bind(self) -> bool:
        return bool(self.flags & m.MS_BIND)


def mount_step(mount: Mount, bundle: str) -> MountStep:
    """A mount's options sorted into flags, propagation and the file system's own."""
    flags = propagation = recursive = 0
    own: list[str] = []
    for option in mount.options:
        if option in _FLAGS:
            on, off = _FLAGS[option]
            flags = (flags | on) & ~off
        elif option in PROPAGATION:
            propagation = PROPAGATION[option]
        elif option in _RECURSIVE_ATTRIBUTES:
            recursive |= _RECURSIVE_ATTRIBUTES[option]
        elif option in ("tmpcopyup", "idmap", "ridmap"):
            raise Unsupported(f"mount {mount.destination}: option {option} is not supported")
        else:
            own.append(option)
    if mount.type == "bind" and not flags & m.MS_BIND:
        flags |= m.MS_BIND
    source = mount.source
    attributes = 0
    if flags & m.MS_BIND:
        source = os.path.join(bundle, source)
        attributes = flags & (m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC)
    destination = mount.destination if mount.destination.startswith("/") else "/" + mount.destination
    data = ",".join(own)
    if "\0" in source + destination + data:
        raise InvalidArgument("mount: embedded null byte")
    return MountStep(
        source,
        destination,
        "bind" if flags & m.MS_BIND else mount.type,
        flags,
        data,
        propagation,
        attributes,
        recursive,
    )


def split(steps: tuple[MountStep, ...]) -> tuple[tuple[MountStep, ...], tuple[MountStep, ...]]:
    """The mounts that can be made before the cgroup, and those that can't: neither may cover what it did not."""
    early: list[MountStep] = []
    late: list[MountStep] = []
    for step in steps:
        place = step.destination.rstrip("/") + "/"
        related = any(
            place.startswith(other) or other.startswith(place)
            for other in (each.destination.rstrip("/") + "/" for each in late)
        )
        (late if related or step.kind == "cgroup" else early).append(step)
    return tuple(early), tuple(late)
