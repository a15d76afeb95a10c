"""From a bundle's configuration to what will be done: pure, so that it can be read, printed and tested without root.

The plan is in the order in which `init` carries it out. Follows runtime-spec config.md and config-linux.md.
"""

from __future__ import annotations

import msgspec

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.namespaces import CLONE_NEWUSER, FLAGS
from sampan.oci.runtime import Device, DeviceCgroup, Hooks, Linux, LinuxResources, Process, Spec, User
from sampan.runtime import devices, hooks, sysctl
from sampan.runtime.hooks import Subject
from sampan.runtime.identity import Maps, check_mapped, checked_maps
from sampan.runtime.mounts import (
    MountStep,
    checked_label,
    checked_paths,
    mount_step,
    root_path,
    root_propagation,
    split,
)
from sampan.runtime.process import Confinement, checked_process, confinement

INIT_ANNOTATION = "sampan.init"
"""Set to `true`: process 1 is a small reaper that starts the program and passes signals on (Docker's --init)."""

_ALWAYS_ALLOWED = (
    *(DeviceCgroup(allow=True, type=kind, access="m") for kind in "cb"),
    *(
        DeviceCgroup(allow=True, type="c", major=major, minor=minor, access="rwm")
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, -1))
    ),
)


class Options(msgspec.Struct, frozen=True):
    """How it is to be done, beside what config.json says.

    `systemd`: the cgroup is a scope of systemd's, named by cgroupsPath as `slice:prefix:name`. `rootless`: an ordinary
    user's, who may have no cgroup. `pivot`: change the root by pivot_root(2), which a root in the boot's own RAM file
    system does not allow. `keyring`: a session keyring of its own. `preserved`: how many descriptors from 3 on the
    program keeps. `detached`: another process will start it. `sibling`: its process is a child of this one's parent.
    """

    systemd: bool = False
    pivot: bool = True
    keyring: bool = True
    rootless: bool = False
    preserved: int = 0
    detached: bool = False
    sibling: bool = False


class Plan(msgspec.Struct, frozen=True):
    """All that a container's creation needs to know."""

    subject: Subject
    options: Options
    hooks: Hooks | None
    root: str
    root_propagation: int
    """MS_SLAVE and its siblings, with MS_REC if it is the whole tree's."""
    readonly_root: bool
    clone_flags: int
    """CLONE_NEW*, without the cgroup and time namespaces, which the process makes itself."""
    new_cgroup_namespace: bool
    joins: tuple[tuple[str, str], ...]
    """Namespaces to join: type and path, in the order in which it works."""
    user_namespace: bool
    """Whether the container has one that is not the host's, new or joined."""
    maps: Maps | None
    """The ids of a new one."""
    time_offsets: tuple[tuple[str, int, int], ...] | None
    """Clock, seconds and nanoseconds; None: no new time namespace."""
    mounts: tuple[MountStep, ...]
    cgroup_mounts: tuple[MountStep, ...]
    """Those that wait for the cgroup and for what the parent opens: the cgroup's file system, id-mapped mounts, and
    what lies above or below their places and comes later."""
    devices: tuple[Device, ...]
    masked: tuple[str, ...]
    readonly: tuple[str, ...]
    mount_label: str
    """The security context of new mounts."""
    sysctl: tuple[tuple[str, str], ...]
    hostname: str
    domainname: str
    process: Process
    confinement: Confinement
    reaper: bool
    cgroup: str
    """As it is configured; when it is known, the group's path."""
    unit: str
    """The scope of systemd's that the cgroup is, below `slice`; empty: we make it ourselves."""
    slice: str
    resources: LinuxResources
    cgroup_places: dict[str, str] | None = None
    """The group's paths by the trees' mount points, where they differ."""


_PLAIN = Options()


def plan(spec: Spec, container_id: str, bundle: str, options: Options = _PLAIN) -> Plan:
    """Raises InvalidArgument for a configuration that makes no sense, Unsupported for what is not done yet."""
    if spec.root is None or not spec.root.path:
        raise InvalidArgument("config.json: root.path is missing")
    if spec.process is None:
        raise InvalidArgument("config.json: process is missing")
    linux = spec.linux
    if linux is None:
        raise InvalidArgument("config.json: linux is missing")
    if not spec.oci_version.startswith("1."):
        raise InvalidArgument(f"config.json: ociVersion {spec.oci_version!r} is not supported: 1.x is")
    if linux.intel_rdt is not None:
        raise Unsupported("config.json: linux.intelRdt is not supported")
    clone_flags = 0
    new_cgroup = False
    joins: list[tuple[str, str]] = []
    seen: set[str] = set()
    new_time = False
    for namespace in linux.namespaces:
        if namespace.type not in FLAGS:
            raise InvalidArgument(f"config.json: unknown namespace type {namespace.type!r}")
        if namespace.type in seen:
            raise InvalidArgument(f"config.json: namespace {namespace.type} is given twice")
        seen.add(namespace.type)
        if namespace.path:
            joins.append((namespace.type, namespace.path))
        elif namespace.type == "cgroup":
            new_cgroup = True
        elif namespace.type == "time":
            new_time = True
        else:
            clone_flags |= FLAGS[namespace.type]
    if "mount" not in seen:
        raise InvalidArgument("config.json: a mount namespace is required")
    if spec.hostname and "uts" not in seen:
        raise InvalidArgument("config.json: hostname needs a uts namespace")
    resources = linux.resources or LinuxResources()
    cgroup, unit, parent = _cgroup(linux.cgroups_path, container_id, options)
    mounts = tuple(mount_step(each, bundle, "user" in seen) for each in spec.mounts)
    # With a user namespace, the cgroup is joined before anything is mounted.
    mounts, cgroup_mounts = (mounts, ()) if "user" in seen else split(mounts)
    return Plan(
        subject=Subject(container_id, bundle, spec.annotations),
        options=options,
        hooks=hooks.check(spec.hooks),
        root=root_path(bundle, spec.root.path),
        root_propagation=root_propagation(linux.rootfs_propagation),
        readonly_root=spec.root.readonly,
        clone_flags=clone_flags,
        new_cgroup_namespace=new_cgroup,
        joins=tuple(joins),
        mounts=mounts,
        cgroup_mounts=cgroup_mounts,
        user_namespace="user" in seen,
        maps=_maps(linux, bool(clone_flags & CLONE_NEWUSER), spec.process.user),
        time_offsets=_time_offsets(linux, new_time),
        devices=devices.planned(linux.devices),
        masked=checked_paths(linux.masked_paths, "maskedPaths"),
        readonly=checked_paths(linux.readonly_paths, "readonlyPaths"),
        mount_label=checked_label(linux.mount_label),
        sysctl=sysctl.checked(linux.sysctl, seen) if linux.sysctl else (),
        hostname=spec.hostname,
        domainname=spec.domainname,
        process=checked_process(spec.process),
        confinement=confinement(linux),
        reaper=spec.annotations.get(INIT_ANNOTATION) == "true",
        cgroup=cgroup,
        unit=unit,
        slice=parent,
        resources=with_default_devices(resources),
    )


def _cgroup(given: str, container_id: str, options: Options) -> tuple[str, str, str]:
    """The group's path; the scope and the slice if systemd makes it."""
    if not options.systemd:
        return given, "", ""
    from sampan.runtime.scope import scope

    wanted = scope(given, container_id, options.rootless)
    return wanted.path, wanted.unit, wanted.slice


def _maps(linux: Linux, new: bool, user: User) -> Maps | None:
    """The ids of a new user namespace. Beside a joined one they only tell what it has already."""
    if new:
        maps = checked_maps(linux.uid_mappings, linux.gid_mappings, "linux")
        check_mapped(user, maps)
        return maps
    if (linux.uid_mappings or linux.gid_mappings) and not any(each.type == "user" for each in linux.namespaces):
        raise InvalidArgument("config.json: linux.uidMappings and gidMappings need a user namespace")
    return None


_CLOCKS = ("monotonic", "boottime")


def _time_offsets(linux: Linux, new: bool) -> tuple[tuple[str, int, int], ...] | None:
    if not new:
        if linux.time_offsets:
            raise InvalidArgument("config.json: linux.timeOffsets needs a new time namespace")
        return None
    for clock, offset in linux.time_offsets.items():
        if clock not in _CLOCKS:
            raise InvalidArgument(f"config.json: linux.timeOffsets: unknown clock {clock!r}")
        if not 0 <= offset.nanosecs < 10**9 or abs(offset.secs) >= 1 << 63:
            raise InvalidArgument(f"config.json: linux.timeOffsets.{clock}: out of range")
    return tuple((clock, offset.secs, offset.nanosecs) for clock, offset in linux.time_offsets.items())


def with_default_devices(resources: LinuxResources) -> LinuxResources:
    """The devices that every container has may be used, whatever the list says (config-linux.md), and no others that
    it does not speak of, as with runc."""
    return msgspec.structs.replace(resources, devices=(*resources.devices, *_ALWAYS_ALLOWED))
