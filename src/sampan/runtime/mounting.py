"""Making the mounts of a plan: every destination is resolved by openat2 inside the container's root, checked as a
descriptor and mounted on by that descriptor, so that nothing can be put in its place between the check and the use.

Bind mounts, and new mounts with which more is to be done, are made detached and attached when they are right: what is
done afterwards is done with the mount's own descriptor, not with its path. Others are made by one mount(2), which costs
two thirds of fsopen(2) and its siblings.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import mount as m
from sampan.linux.cgroup import Cgroup, hierarchies
from sampan.linux.fs import (
    is_procfs,
    of_descriptor,
    open_or_make,
)
from sampan.runtime.copyup import copy_up
from sampan.runtime.mounts import Change, MountStep, bind_change, new_attributes, options, pieces
from sampan.runtime.tree import Tree, closing, told

_PLAIN = ("/proc", "/sys", "/dev")
_UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")
_OLD_CALL_ONLY = m.MS_I_VERSION
_PROC_ROOT = 1
"""The inode number of a procfs' own root."""

_IN_PROC = {
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
}  # fmt: skip
"""Where a mount inside /proc is allowed: files that lxcfs and its like give a container's own values. runc lists
net/dev too, but that lies in each process's own directory, where it refuses it as we do."""


def mount_all(tree: Tree, steps: Iterable[MountStep], own_cgroups: bool, group: Callable[[], Cgroup]) -> None:
    """`own_cgroups`: the container has a cgroup namespace. `group`: its cgroup, for those who ask."""
    for step in steps:
        with _mounting(step):
            if step.remount:
                _remount(tree, step)
            elif step.bind:
                _bind(tree, step)
            elif step.kind == "cgroup":
                _mount_cgroups(tree, step, own_cgroups, group())
            else:
                _mount(tree, step)


def _mounting(step: MountStep) -> told:
    return told(f'error mounting "{step.source}" to rootfs at "{step.destination}"')


def open_source(step: MountStep) -> int:
    """A detached copy of what is to be bound."""
    with _mounting(step):
        return m.open_tree(step.source, recursive=bool(step.flags & m.MS_REC))


def _place(tree: Tree, step: MountStep, directory: bool = True) -> tuple[int, bool]:
    """The destination, and whether it had to be made. As O_PATH: nothing is opened, only named.

    /proc, /sys and /dev, and wherever else the kernel's own trees are mounted, may not be or lie behind links: what is
    written there later would be written elsewhere (CVE-2019-19921).
    """
    plain = step.kind in ("proc", "sysfs") or step.place in _PLAIN
    try:
        place, made = open_or_make(
            tree.root, step.destination, directory, 0o755 if directory else 0o644, follow=not plain
        )
    except OSError as error:
        if plain and error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f'filesystem "{step.kind}" must be mounted on ordinary directory') from error
        raise
    try:
        _check_place(step, tree.inside(place))
    except BaseException:
        os.close(place)
        raise
    return place, made


def _check_place(step: MountStep, path: str) -> None:
    """Raises InvalidArgument where a mount would lie over the root or inside /proc, which others trust to be proc's."""
    if path == "/":
        raise InvalidArgument(f"mount {step.destination!r}: the destination is the root itself")
    if path == "/proc":
        if step.kind not in ("proc", "bind"):  # What is bound is looked at when it is open.
            raise InvalidArgument(f"mount {step.destination!r}: cannot be mounted because it is not of type proc")
    elif path.startswith("/proc/") and path not in _IN_PROC:
        raise InvalidArgument(f"mount {step.destination!r}: {path} cannot be mounted because it is inside /proc")


# --- Bind mounts ------------------------------------------------------------------------------------------


def _bind(tree: Tree, step: MountStep) -> None:
    ready = tree.sources.get(step)
    with closing(ready.pop() if ready else open_source(step)) as source:
        _change(source, bind_change(step))
        if step.recursive or step.recursive_cleared:
            m.mount_setattr(source, attributes=step.recursive, cleared=step.recursive_cleared, recursive=True)
        found = os.fstat(source)
        directory = stat.S_ISDIR(found.st_mode)
        with closing(_place(tree, step, directory)[0]) as place:
            if stat.S_ISDIR(os.fstat(place).st_mode) != directory:
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if tree.inside(place) == "/proc" and not (is_procfs(source) and found.st_ino == _PROC_ROOT):
                raise InvalidArgument(f"mount {step.destination!r}: cannot be mounted because it is not of type proc")
            m.move_mount(source, place)
        private = tree.propagation & (m.MS_PRIVATE | m.MS_UNBINDABLE)
        # Unless it is asked for, nothing that is mounted in it shows on the host.
        _propagate(source, step.propagation or ((m.MS_PRIVATE if private else m.MS_SLAVE) | m.MS_REC,))


def _change(mount: int, change: Change | None) -> None:
    """What the host has set and a user namespace may not take back stays, unless it is asked to go."""
    if change is None:
        return
    try:
        m.mount_setattr(mount, attributes=change.gained, cleared=change.lost)
    except PermissionError:
        if change.lost == change.explicit:
            raise
        m.mount_setattr(mount, attributes=change.gained, cleared=change.explicit)


def _propagate(mount: int, kinds: Iterable[int]) -> None:
    for kind in kinds:
        m.set_propagation(mount, kind)


def _remount(tree: Tree, step: MountStep) -> None:
    """Change the mount, and unless it is a bind mount the file system, that is there."""
    with closing(_place(tree, step)[0]) as place:
        flags = step.flags
        if step.bind:
            _change(place, bind_change(step))
        else:
            if _read_only_late(step):
                flags &= ~m.MS_RDONLY
                tree.readonly.append(os.dup(place))
            m.mount(step.source, of_descriptor(place), step.kind, flags, ",".join(step.own))
        _propagate(place, step.propagation)


# --- New mounts -------------------------------------------------------------------------------------------


def _mount(tree: Tree, step: MountStep) -> None:
    late = _read_only_late(step)
    place, made = _place(tree, step)
    with closing(place):
        covers = step.kind == "tmpfs" and not made
        own = _options_for(step, tree.label, os.fstat(place).st_mode if covers else None)
        stepwise = bool(
            step.propagation or step.recursive or step.recursive_cleared or step.copy_up or late
            or len(",".join(own)) > m.LONGEST_OPTIONS
        )  # fmt: skip
        if not stepwise:
            try:
                m.mount(step.source or step.kind, of_descriptor(place), step.kind, step.flags, ",".join(own))
                return
            except OSError as error:
                # What it is that is invalid, the file system tells only where it is asked in steps.
                if error.errno != errno.EINVAL or step.flags & _OLD_CALL_ONLY:
                    raise
        elif step.flags & _OLD_CALL_ONLY:
            raise Unsupported(f"mount {step.destination!r}: iversion is not supported along with its other options")
        with closing(_new(step, own, late)) as mount:
            if step.copy_up:
                asked = {piece.partition("=")[0] for option in step.own for piece in pieces(option)}
                copy_up(place, mount, owner=not asked & {"uid", "gid"})
            if step.recursive or step.recursive_cleared:
                m.mount_setattr(mount, attributes=step.recursive, cleared=step.recursive_cleared)
            m.move_mount(mount, place)
            _propagate(mount, step.propagation)
            if late:
                tree.readonly.append(os.dup(mount))


def _new(step: MountStep, own: tuple[str, ...], late: bool) -> int:
    """Detached; `late`: it is made read-only when what lies in it is made."""
    flags = step.flags & ~m.MS_RDONLY if late else step.flags
    return m.new_mount(step.kind, options(step.kind, step.source, flags, own), new_attributes(flags))


def _read_only_late(step: MountStep) -> bool:
    return bool(step.flags & m.MS_RDONLY) and (step.kind == "tmpfs" or step.place == "/dev")


def _options_for(step: MountStep, label: str, mode: int | None) -> tuple[str, ...]:
    """Its own options, for a tmpfs the mode of the directory that it covers, and the security context."""
    own = step.own
    if mode is not None:
        own = (f"mode={stat.S_IMODE(mode):04o}", *own)
    if label and step.kind not in _UNLABELLED:
        own = (*own, f'context="{label}"')
    return own


# --- Cgroups ----------------------------------------------------------------------------------------------


def _mount_cgroups(tree: Tree, step: MountStep, own: bool, group: Cgroup) -> None:
    """The cgroup file system as the container's own group is its root: v2 in one mount, v1 as a directory of trees."""
    trees = hierarchies()
    with closing(_place(tree, step)[0]) as place:
        if trees.unified:
            if not own:
                _bind_directory(trees.roots[""], place, step.flags)
                return
            try:
                m.mount("cgroup", of_descriptor(place), "cgroup2", step.flags, ",".join(step.own))
            except OSError as error:
                # Where the host's /sys is bound, its cgroup mount is there, over which none can be mounted again.
                if error.errno != errno.EBUSY:
                    raise
                _bind_directory(group.shown(trees.roots[""]), place, step.flags)
            return
        attributes = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
        with closing(m.new_mount("tmpfs", (("source", "tmpfs"), ("mode", "755")), attributes)) as inside:
            m.move_mount(inside, place)
            _propagate(inside, step.propagation)
            _mount_controllers(inside, step.flags, own, group)
            if step.flags & m.MS_RDONLY:
                m.mount_setattr(inside, attributes=m.MOUNT_ATTR_RDONLY)


def _mount_controllers(inside: int, flags: int, own: bool, group: Cgroup) -> None:
    roots = hierarchies().roots
    mounted: set[str] = set()
    for controller, host in roots.items():
        name = os.path.basename(host)
        if controller and name not in mounted:  # Not v2's beside v1's.
            mounted.add(name)
            os.mkdir(name, 0o755, dir_fd=inside)
            with closing(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=inside)) as directory:
                if own:
                    data = ",".join(each for each, where in roots.items() if where == host)
                    data = data.replace("name=systemd", "none,name=systemd")
                    m.mount("cgroup", of_descriptor(directory), "cgroup", flags, data)
                else:
                    _bind_directory(group.shown(host), directory, flags)
        if controller and controller != name and not controller.startswith("name="):
            os.symlink(name, controller, dir_fd=inside)


def _bind_directory(source: str, target: int, flags: int) -> None:
    with closing(m.open_tree(source)) as tree:
        m.mount_setattr(tree, attributes=flags & (m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC))
        m.move_mount(tree, target)
