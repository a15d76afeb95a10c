"""Which trees of control groups this machine has, and where this process is in them. cgroups(7)"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

import msgspec

_SYSTEMD = "/run/systemd/system"


class Hierarchies(msgspec.Struct, frozen=True):
    """`roots`: where each controller's tree is mounted. The entry "" is the tree of version 2: on v2 the only one.

    `bases`: by mount point, the group that a mount shows as its root where that is not the tree's own root.
    """

    unified: bool
    roots: dict[str, str]
    bases: dict[str, str] = {}

    def root(self, controller: str) -> str | None:
        """The tree that has the controller; None if it is not mounted. cpuacct goes with cpu on v1 by its own entry."""
        return self.roots.get("" if self.unified else controller)


@cache
def hierarchies() -> Hierarchies:
    """What is mounted, by /proc/self/mountinfo. Read once: a spawner's children inherit the answer.

    A machine with v1 may have v2's tree beside it, without controllers. systemd keeps account of processes by it, so
    that there a container is in it too; elsewhere nobody looks at it, and it is left alone.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return found(table, systemd=os.path.isdir(_SYSTEMD))


def found(mounts: Iterable[str], *, systemd: bool) -> Hierarchies:
    """From the lines of a mountinfo. Pure."""
    roots: dict[str, str] = {}
    bases: dict[str, str] = {}
    unified = ""
    for line in mounts:
        fields, _, rest = line.rstrip("\n").partition(" - ")
        kind, _, options = rest.split(" ", 2)
        _, _, _, base, point, *_ = fields.split(" ")
        if kind == "cgroup":
            for option in options.split(","):
                if option not in ("rw", "ro", "noprefix", "xattr", "clone_children"):
                    roots.setdefault(option, point)
        elif kind == "cgroup2":
            unified = unified or point
        if kind in ("cgroup", "cgroup2") and base != "/":
            bases.setdefault(point, base)
    roots = {each: point for each, point in roots.items() if not each.startswith(("release_agent=", "cpuset_v2_mode"))}
    if unified and all(each.startswith("name=") for each in roots):
        return Hierarchies(True, {"": unified}, bases)
    if unified and systemd:
        roots[""] = unified
    return Hierarchies(False, roots, bases)


def groups_of(trees: Hierarchies, pid: int | str = "self") -> dict[str, str]:
    """A process's group in each tree, by the tree's mount point, as it is seen from there."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as table:
        return listed(table, trees)


def listed(lines: Iterable[str], trees: Hierarchies) -> dict[str, str]:
    """From the lines of a /proc/PID/cgroup. Pure."""
    paths: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.rstrip("\n").split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    return {
        root: _seen(paths.get(controller, "/"), trees.bases.get(root, "/")) for controller, root in trees.roots.items()
    }


def _seen(path: str, base: str) -> str:
    base = base.rstrip("/")
    inside = path[len(base) :] if (path + "/").startswith(base + "/") else path
    # Outside of its cgroup namespace's root a process is shown as /../..: that leads to the root from there.
    return os.path.normpath("/" + inside.lstrip("/"))
