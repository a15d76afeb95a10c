"""Making the container's file system: mounts, devices, the change of root, hidden and read-only paths.

Runs in the child, in its own mount namespace, still with the host's root: nothing of the image's
content is trusted. Every destination is resolved by openat2 inside the container's root, and mounted on by descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from sampan.errors import Internal
from sampan.linux import mount as m
from sampan.linux.cgroup import Cgroup, hierarchies
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
from sampan.oci.runtime import Device
from sampan.runtime import identity
from sampan.runtime.mounts import MountStep
from sampan.runtime.plan import DEVICE_LINKS, Plan

_CLONE_ALL = m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_RECURSIVE
_NULL = os.makedev(1, 3)
_PLAIN = ("/proc", "/sys", "/dev")
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """An OSError as an error that says what was being done."""
    try:
        yield
    except OSError as error:
        raise Internal(f"{what}: {(error.strerror or str(error)).lower()}") from error


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def build(plan: Plan) -> int:
    """Mount what does not need the cgroup below the root directory; returns the root's descriptor."""
    with _told("make the mounts of the host private"):
        m.mount("", "/", flags=plan.root_propagation)
    with _told(f"error mounting the root file system {plan.root}"):
        # A mount of its own: pivot_root wants one, and no flag of it changes the host's.
        m.mount(plan.root, plan.root, flags=m.MS_BIND | m.MS_REC)
    root = os.open(plan.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    trees: dict[MountStep, int] = {}
    if plan.user_namespace:
        # What only the host's ids may reach is opened before they are given up.
        trees = _open_sources(plan)
        identity.become_root()
    _mount_all(root, plan, plan.mounts, trees)
    _make_devices(root, plan)
    return root


def finish(root: int, plan: Plan) -> None:
    """Mount the rest: this process is in its cgroup now."""
    _mount_all(root, plan, plan.cgroup_mounts, {})
    with _told(f"create the working directory {plan.process.cwd}"):
        os.close(make_directories(root, plan.process.cwd))


def _mount_all(root: int, plan: Plan, steps: Iterable[MountStep], trees: dict[MountStep, int]) -> None:
    """`trees`: the sources of bind mounts that are open already; they are used up."""
    for step in steps:
        with _told(f'error mounting "{step.source}" to rootfs at "{step.destination}"'):
            if step.bind:
                _bind(root, step, trees.pop(step, None))
            else:
                _mount(root, step, plan)


def _target(root: int, step: MountStep, source_is_directory: bool) -> int:
    """The destination, made if it is missing. As O_PATH: nothing is opened, only named.

    /proc, /sys and /dev may not be links: what is written there later would be written elsewhere (CVE-2019-19921).
    """
    if step.destination.rstrip("/") in _PLAIN:
        with contextlib.suppress(FileNotFoundError):
            os.close(openat2(root, step.destination, os.O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS))
    if source_is_directory:
        return make_directories(root, step.destination)
    return make_file(root, step.destination)


def _mount(root: int, step: MountStep, plan: Plan) -> None:
    with _closing(_target(root, step, True)) as target:
        if step.kind == "cgroup":
            group = Cgroup(plan.cgroup, plan.cgroup_places)
            _mount_cgroups(root, target, step, plan.new_cgroup_namespace, group)
            return
        m.mount(step.source or step.kind, of_descriptor(target), step.kind, step.flags, step.data)
    if step.propagation:
        with _closing(open_in_root(root, step.destination)) as mounted:
            m.mount_setattr(
                mounted, propagation=step.propagation & ~m.MS_REC, recursive=bool(step.propagation & m.MS_REC)
            )


def _open_sources(plan: Plan) -> dict[MountStep, int]:
    """The trees of the bind mounts."""
    trees: dict[MountStep, int] = {}
    for step in plan.mounts:
        if step.bind and step not in trees:
            with _told(f'error mounting "{step.source}" to rootfs at "{step.destination}"'):
                trees[step] = _clone_tree(step)
    return trees


def _clone_tree(step: MountStep) -> int:
    recursive = bool(step.flags & m.MS_REC)
    return m.open_tree(step.source, m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | (m.AT_RECURSIVE if recursive else 0))


def _bind(root: int, step: MountStep, tree: int | None = None) -> None:
    with _closing(_clone_tree(step) if tree is None else tree) as tree:
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        if step.attributes:
            m.mount_setattr(tree, attributes=step.attributes)
        if step.recursive_attributes:
            m.mount_setattr(tree, attributes=step.recursive_attributes, recursive=True)
        # What the clone would hand on to its peers on the host is cut first, unless it is asked for.
        propagation = step.propagation or m.MS_PRIVATE | m.MS_REC
        m.mount_setattr(tree, propagation=propagation & ~m.MS_REC, recursive=bool(propagation & m.MS_REC))
        with _closing(_target(root, step, directory)) as target:
            if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
                number = errno.ENOTDIR if directory else errno.EISDIR
                raise OSError(number, os.strerror(number), step.destination)
            m.move_mount(tree, target)


def _mount_cgroups(root: int, target: int, step: MountStep, own: bool, group: Cgroup) -> None:
    """The cgroup file system as the container's own group is its root: v2 in one mount, v1 as a directory of trees."""
    trees = hierarchies()
    if trees.unified:
        if own:
            m.mount("cgroup", of_descriptor(target), "cgroup2", step.flags, step.data)
        else:
            _bind_directory(trees.roots[""], target, step.flags)
        return
    m.mount("tmpfs", of_descriptor(target), "tmpfs", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC, "mode=755")
    # `target` still names what lies below the new mount: the way into it is a look-up.
    with _closing(open_in_root(root, step.destination)) as inside:
        mounted: set[str] = set()
        for controller, host in trees.roots.items():
            name = os.path.basename(host)
            if controller and name not in mounted:  # Not v2's beside v1's.
                mounted.add(name)
                os.mkdir(name, 0o755, dir_fd=inside)
                with _closing(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=inside)) as directory:
                    if own:
                        options = ",".join(each for each, where in trees.roots.items() if where == host)
                        options = options.replace("name=systemd", "none,name=systemd")
                        m.mount("cgroup", of_descriptor(directory), "cgroup", step.flags, options)
                    else:
                        _bind_directory(group.shown(host), directory, step.flags)
            if controller and controller != name and not controller.startswith("name="):
                os.symlink(name, controller, dir_fd=inside)
        if step.flags & m.MS_RDONLY:
            m.mount_setattr(inside, attributes=m.MOUNT_ATTR_RDONLY)


def _bind_directory(source: str, target: int, flags: int) -> None:
    with _closing(m.open_tree(source)) as tree:
        m.mount_setattr(tree, attributes=flags & (m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC))
        m.move_mount(tree, target)


def _make_devices(root: int, plan: Plan) -> None:
    if any(step.bind and step.destination.rstrip("/") == "/dev" for step in plan.mounts):
        return  # Somebody's own directory, such as the host's: it stays as it is.
    with _told("create /dev"), _closing(make_directories(root, "/dev")) as dev:
        for name, target in DEVICE_LINKS:
            with contextlib.suppress(FileExistsError):
                os.symlink(target, name, dir_fd=dev)
    umask = os.umask(0)
    try:
        for device in plan.devices:
            with _told(f"create device {device.path}"):
                _make_device(root, device)
    finally:
        os.umask(umask)


def _make_device(root: int, device: Device) -> None:
    if device.type not in _KINDS:
        raise OSError(errno.EINVAL, f"unknown device type {device.type!r}")
    parent, name = os.path.split(device.path)
    mode = _KINDS[device.type] | (0o666 if device.file_mode is None else device.file_mode & 0o7777)
    with _closing(make_directories(root, parent)) as directory:
        try:
            os.mknod(name, mode, os.makedev(device.major, device.minor), dir_fd=directory)
        except FileExistsError:
            return
        except PermissionError:
            # Where devices can't be made (a user namespace, a sandbox), the host's own is bound.
            os.close(make_file(root, device.path))
            with _closing(m.open_tree(device.path)) as tree, _closing(open_in_root(root, device.path)) as target:
                m.move_mount(tree, target)
            return
        if device.uid or device.gid:
            os.chown(name, device.uid or 0, device.gid or 0, dir_fd=directory, follow_symlinks=False)


def enter(root: int) -> None:
    """Make the descriptor's directory the root of this process's namespace, and the host's root unreachable."""
    with _told("pivot_root"):
        old = os.open("/", os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        os.fchdir(root)
        m.pivot_root(".", ".")
        # The old root lies over the new one now. Made a slave, its unmounting is not carried to the host.
        os.fchdir(old)
        m.mount("", ".", flags=m.MS_SLAVE | m.MS_REC)
        m.umount(".", m.MNT_DETACH)
        os.chdir("/")
        os.close(old)
        os.close(root)


def open_terminal(root: int) -> tuple[int, int]:
    """A terminal of the container's own devpts, as (master, slave).

    A container may have put anything in the place of /dev/pts. In the kernel's own file system of that kind nobody can
    make a name, so that ptmx in it is what it should be, unless something is mounted over it.
    """
    with _told("open a terminal in /dev/pts"):
        way = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
        with _closing(openat2(root, "/dev/pts", os.O_PATH | os.O_DIRECTORY, resolve=way)) as pts:
            if file_system(pts) != DEVPTS_SUPER_MAGIC:
                raise OSError(errno.ENODEV, "it is not the kernel's")
            way = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
            master = openat2(pts, "ptmx", os.O_RDWR | os.O_NOCTTY, resolve=way)
        try:
            return master, open_slave(master)
        except BaseException:
            os.close(master)
            raise


def open_console(root: int) -> tuple[int, int]:
    """A terminal, and its slave on /dev/console, which may be no link (CVE-2025-52565, CVE-2026-88264)."""
    master, slave = open_terminal(root)
    with _told("make /dev/console"):
        with contextlib.suppress(FileNotFoundError):
            os.close(openat2(root, "/dev/console", os.O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS))
        with _closing(m.open_tree(of_descriptor(slave))) as tree, _closing(make_file(root, "/dev/console")) as console:
            m.move_mount(tree, console)
    return master, slave


def set_sysctls(root: int, values: Iterable[tuple[str, str]]) -> None:
    """Write kernel parameters of the namespaces that this process is in: before /proc/sys is made read-only."""
    for name, value in values:
        with _told(f"write sysctl {name} = {value}"):
            # No link and no other mount on the way: an image's or a volume's look-alike is not written to.
            resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
            descriptor = openat2(root, "/proc/sys/" + name, os.O_WRONLY, resolve=resolve)
            with os.fdopen(descriptor, "w") as file:
                if not is_procfs(descriptor):
                    raise OSError(errno.EXDEV, "/proc/sys is not the kernel's")
                file.write(value)


def protect(root: int, plan: Plan) -> None:
    """Hide and write-protect what the configuration lists, and at last the root itself."""
    for path in plan.readonly:
        with _told(f"make {path} read-only"):
            _make_readonly(root, path)
    for path in plan.masked:
        with _told(f"hide {path}"):
            _mask(root, path)
    if plan.readonly_root:
        with _told("make the root file system read-only"):
            m.mount_setattr(root, attributes=m.MOUNT_ATTR_RDONLY)


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
    with _closing(target), _closing(m.open_tree(of_descriptor(target), _CLONE_ALL)) as tree:
        m.mount_setattr(tree, attributes=m.MOUNT_ATTR_RDONLY)
        m.move_mount(tree, target)


def _mask(root: int, path: str) -> None:
    target = _existing(root, path)
    if target is None:
        return
    with _closing(target):
        if stat.S_ISDIR(os.fstat(target).st_mode):
            m.mount("tmpfs", of_descriptor(target), "tmpfs", m.MS_RDONLY, "nr_inodes=2")
            return
        with _closing(m.open_tree("/dev/null")) as null:
            found = os.fstat(null)
            # Bound in its place, anything else would show the container what lies there (CVE-2025-31133).
            if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL:
                raise OSError(errno.ENODEV, "/dev/null is not the null device")
            m.move_mount(null, target)
