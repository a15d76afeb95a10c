"""Making the container's file system: its root, mounts, devices, the change of root, hidden and read-only paths.

Runs in the child, in its own mount namespace, still with the host's root: nothing of the image's content is trusted.
What is done to a path is done to a descriptor that openat2 opened inside the container's root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Sequence

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import mount as m
from sampan.linux import selinux
from sampan.linux.cgroup import Cgroup
from sampan.linux.fs import (
    DEVPTS_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    file_system,
    is_procfs,
    make_directories,
    make_file,
    of_descriptor,
    open_in_root,
    openat2,
)
from sampan.linux.terminal import open_slave
from sampan.runtime import devices, identity
from sampan.runtime.mounting import mount_all, open_source
from sampan.runtime.mounts import MountStep
from sampan.runtime.plan import Plan
from sampan.runtime.tree import Tree, closing, told

_NULL = os.makedev(1, 3)
_PROC_ROOT = 1


def build(plan: Plan, mapped: Sequence[int] = ()) -> Tree:
    """Mount what does not need the cgroup. `mapped`: the sources of id-mapped mounts, if they are here already."""
    os.umask(0o022)
    if plan.mount_label and not selinux.enabled():
        raise Unsupported("config.json: linux.mountLabel: SELinux is not enabled")
    shares = bool(plan.root_propagation & m.MS_SHARED)
    if not shares:
        _cut_off()
    tree, host = _root(plan)
    # What only the host's ids may reach is opened before they are given up; and a mount that is to share with the host
    # is copied from one that does, before they stop to.
    opened = _open_sources(plan) if shares or plan.user_namespace else {}
    if shares:
        _cut_off()
    with told(f"root.path {plan.root}"), closing(host):
        m.move_mount(tree.root, host)
    if plan.user_namespace:
        if not plan.options.pivot:
            # What a user namespace has inherited it may not unmount, only cover, wherever it lies.
            for point in _kernels_own(tree):
                tree.uncovered.append(os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        identity.become_root()
    tree.sources.update(opened)
    _add_mapped(tree, plan, mapped)
    mount_all(tree, plan.mounts, plan.new_cgroup_namespace, lambda: Cgroup(plan.cgroup, plan.cgroup_places))
    if not any(step.bind and step.place == "/dev" for step in (*plan.mounts, *plan.cgroup_mounts)):
        # Somebody's own directory, such as the host's, stays as it is.
        devices.make(tree, plan.devices)
    return tree


def finish(tree: Tree, plan: Plan, mapped: Sequence[int] = ()) -> None:
    """Mount the rest: this process is in its cgroup now."""
    _add_mapped(tree, plan, mapped)
    mount_all(tree, plan.cgroup_mounts, plan.new_cgroup_namespace, lambda: Cgroup(plan.cgroup, plan.cgroup_places))
    with told(f"create the working directory {plan.process.cwd}"):
        os.close(make_directories(tree.root, plan.process.cwd))


def _cut_off() -> None:
    """Nothing that is mounted from here on shows on the host, where nobody asks for it."""
    with told("make the mounts of the host slaves"):
        m.mount("", "/", flags=m.MS_SLAVE | m.MS_REC)


def _root(plan: Plan) -> tuple[Tree, int]:
    """A mount of its own, detached yet, and a descriptor of where it belongs: pivot_root wants one, and no flag of it
    changes the host's."""
    with told(f"root.path {plan.root}"):
        host = os.open(plan.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        place = os.readlink(of_descriptor(host))
        if place == "/":
            raise InvalidArgument(f"root.path {plan.root} is the host's own root")
        root = m.open_tree("", recursive=True, directory=host)
        if not plan.root_propagation & m.MS_SLAVE:
            m.set_propagation(root, m.MS_PRIVATE | m.MS_REC)
    return Tree(root, place, plan.mount_label, plan.root_propagation), host


def _open_sources(plan: Plan) -> dict[MountStep, list[int]]:
    """The trees of the bind mounts."""
    opened: dict[MountStep, list[int]] = {}
    for step in (*plan.mounts, *plan.cgroup_mounts):
        if step.bind and not step.remount and step.id_map is None:
            opened.setdefault(step, []).append(open_source(step))
    return opened


def _add_mapped(tree: Tree, plan: Plan, mapped: Sequence[int]) -> None:
    if mapped:
        steps = (step for step in (*plan.mounts, *plan.cgroup_mounts) if step.id_map is not None)
        for step, descriptor in zip(steps, mapped, strict=True):
            tree.sources.setdefault(step, []).append(descriptor)


# --- The change of root -----------------------------------------------------------------------------------


def enter(tree: Tree, pivot: bool = True) -> None:
    """Make the container's root the root of this process's namespace, and the host's root unreachable.

    Without `pivot` by moving the mount: for a host whose own root is the boot's RAM file system, which can't be
    pivoted away.
    """
    if pivot:
        with told("pivot_root"):
            _pivot(tree.root)
    else:
        with told("move the root"):
            _move(tree)
    if tree.propagation & (m.MS_SHARED | m.MS_UNBINDABLE):
        with told("set the root's propagation"):
            # Not earlier: a mount that is shared can't become the root.
            m.set_propagation(tree.root, tree.propagation)
    os.close(tree.root)


def _pivot(root: int) -> None:
    old = os.open("/", os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
    os.fchdir(root)
    m.pivot_root(".", ".")
    # The old root lies over the new one now. Made a slave, its unmounting is not carried to the host.
    os.fchdir(old)
    m.mount("", ".", flags=m.MS_SLAVE | m.MS_REC)
    m.umount(".", m.MNT_DETACH)
    os.chdir("/")
    os.close(old)


def _move(tree: Tree) -> None:
    """The host's mounts stay in the namespace, below. Its proc and sysfs must not: whoever finds one that is mounted as
    a whole may mount others without what covers parts of the container's."""
    if tree.uncovered:
        cover = _empty_directory("")
        for mount in tree.uncovered:
            m.move_mount(cover, mount)
            cover = m.open_tree("", directory=cover)
    else:
        for point in _kernels_own(tree):
            with told(f"unmount the host's {point}"), contextlib.suppress(FileNotFoundError):
                # One that is not there went with another that it was mounted in.
                m.umount(point, m.MNT_DETACH)
    os.fchdir(tree.root)
    m.move_mount(tree.root, m.AT_FDCWD, "/")
    os.chroot(".")
    os.chdir("/")


def _kernels_own(tree: Tree) -> list[str]:
    """Where the host has proc and sysfs mounted as a whole."""
    inside = tree.place.rstrip("/") + "/"
    return [
        each.point
        for each in m.mounts()
        if each.root == "/" and each.kind in ("proc", "sysfs") and not each.point.startswith(inside)
    ]


# --- The terminal, kernel parameters ------------------------------------------------------------------------


def open_terminal(root: int) -> tuple[int, int]:
    """A terminal of the container's own devpts, as (master, slave).

    A container may have put anything in the place of /dev/pts. In the kernel's own file system of that kind nobody can
    make a name, so that ptmx in it is what it should be, unless something is mounted over it.
    """
    with told("open a terminal in /dev/pts"):
        way = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
        with closing(openat2(root, "/dev/pts", os.O_PATH | os.O_DIRECTORY, resolve=way)) as pts:
            if file_system(pts) != DEVPTS_SUPER_MAGIC:
                raise OSError(errno.ENODEV, "it is not the kernel's")
            way = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
            master = openat2(pts, "ptmx", os.O_RDWR | os.O_NOCTTY, resolve=way)
        try:
            return master, open_slave(master)
        except BaseException:
            os.close(master)
            raise


def open_console(tree: Tree) -> tuple[int, int]:
    """A terminal, and its slave on /dev/console, which may be no link (CVE-2025-52565, CVE-2026-88264)."""
    master, slave = open_terminal(tree.root)
    with (
        told("make /dev/console"),
        closing(m.open_tree("", directory=slave)) as mount,
        closing(make_file(tree.root, "/dev/console", follow=False)) as console,
    ):
        m.move_mount(mount, console)
    return master, slave


def set_sysctls(tree: Tree, values: Iterable[tuple[str, str]]) -> None:
    """Write kernel parameters of the namespaces that this process is in: before /proc/sys is made read-only.

    Only to the kernel's: /proc is a whole procfs, and nothing is mounted in it on the way (CVE-2025-52881).
    """
    values = tuple(values)
    if not values:
        return
    with told("open /proc"):
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
        proc = openat2(tree.root, "/proc", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    with closing(proc):
        for name, value in values:
            with told(f"write sysctl {name} = {value}"):
                if not is_procfs(proc) or os.fstat(proc).st_ino != _PROC_ROOT:
                    raise OSError(errno.EXDEV, "/proc/sys is not the kernel's")
                _write(proc, "sys/" + name, value)


def _write(proc: int, path: str, value: str) -> None:
    try:
        descriptor = openat2(
            proc, path, os.O_WRONLY, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
        )  # fmt: skip
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EXDEV, "/proc/sys is not the kernel's") from error
        raise
    with os.fdopen(descriptor, "w") as file:
        file.write(value)


# --- Hidden and read-only -----------------------------------------------------------------------------------


def protect(tree: Tree, plan: Plan) -> None:
    """Hide and write-protect what the configuration lists, and at last the root itself."""
    for mount in tree.readonly:
        with told("make a mount read-only"), closing(mount):
            m.mount_setattr(mount, attributes=m.MOUNT_ATTR_RDONLY)
    for path in plan.readonly:
        with told(f"make {path} read-only"):
            _make_readonly(tree.root, path)
    _mask_all(tree, plan.masked)
    if plan.readonly_root:
        with told("make the root file system read-only"):
            m.mount_setattr(tree.root, attributes=m.MOUNT_ATTR_RDONLY)


def _existing(root: int, path: str) -> int | None:
    """What is at `path` in the container, or None: there need not be everything that is to be hidden."""
    try:
        return open_in_root(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _make_readonly(root: int, path: str) -> None:
    target = _existing(root, path)
    if target is None:
        return
    with closing(target), closing(m.open_tree("", recursive=True, directory=target)) as mount:
        m.mount_setattr(mount, attributes=m.MOUNT_ATTR_RDONLY)
        m.move_mount(mount, target)


def _mask_all(tree: Tree, paths: Sequence[str]) -> None:
    """A file is hidden by the null device, a directory by an empty tmpfs, of which there is one for all."""
    with contextlib.ExitStack() as held:
        covers: dict[bool, int] = {}
        for path in paths:
            with told(f"hide {path}"):
                target = _existing(tree.root, path)
                if target is None:
                    continue
                with closing(target):
                    directory = stat.S_ISDIR(os.fstat(target).st_mode)
                    if directory in covers:
                        with closing(m.open_tree("", directory=covers[directory])) as copy:
                            m.move_mount(copy, target)
                    else:
                        # Kept for the next: a mount can be copied from where it is attached (detached, since 6.15).
                        covers[directory] = _empty_directory(tree.label) if directory else _null_device()
                        held.callback(os.close, covers[directory])
                        m.move_mount(covers[directory], target)


def _empty_directory(label: str) -> int:
    own = (("context", label),) if label else ()
    options = (("source", "tmpfs"), ("ro", None), ("nr_inodes", "2"), ("mode", "755"), *own)
    return m.new_mount("tmpfs", options, m.MOUNT_ATTR_RDONLY)


def _null_device() -> int:
    """The host's. Bound in a file's place, anything else would show the container what lies there (CVE-2025-31133)."""
    null = m.open_tree("/dev/null")
    found = os.fstat(null)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL:
        os.close(null)
        raise OSError(errno.ENODEV, "/dev/null is not the null device")
    return null
