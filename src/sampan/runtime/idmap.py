"""Mounts whose ids are translated: opened by the parent, as that takes the powers over the file system's own user
namespace, which a container's process may have given up. mount_setattr(2), MOUNT_ATTR_IDMAP"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from sampan.errors import InvalidArgument
from sampan.linux import mount as m
from sampan.runtime import sync
from sampan.runtime.identity import Maps, namespace_of
from sampan.runtime.mounts import IDMap, MountStep
from sampan.runtime.plan import Plan


@contextlib.contextmanager
def opened(plan: Plan, pid: int) -> Iterator[list[int]]:
    """The sources of the plan's id-mapped mounts, in its order, detached. `pid`: the process in the container's user
    namespace.

    Raises InvalidArgument for what can't be mapped.
    """
    steps = [step for step in (*plan.mounts, *plan.cgroup_mounts) if step.id_map is not None]
    if not steps:
        yield []
        return
    if len(steps) > sync.MAX_DESCRIPTORS:
        raise InvalidArgument(f"more than {sync.MAX_DESCRIPTORS} id-mapped mounts")
    with contextlib.ExitStack() as held:
        namespaces: dict[Maps | None, int] = {}
        trees: list[int] = []
        for step in steps:
            assert step.id_map is not None
            maps = step.id_map.maps
            if maps not in namespaces:
                namespaces[maps] = held.enter_context(_namespace(maps, pid))
            trees.append(_mapped(step, step.id_map, namespaces[maps]))
            held.callback(os.close, trees[-1])
        yield trees


@contextlib.contextmanager
def _namespace(maps: Maps | None, pid: int) -> Iterator[int]:
    if maps is not None:
        with namespace_of(maps) as made:
            yield made
        return
    descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mapped(step: MountStep, wanted: IDMap, namespace: int) -> int:
    where = f'error mounting "{step.source}" to rootfs at "{step.destination}"'
    try:
        tree = m.open_tree(step.source, recursive=bool(step.flags & m.MS_REC))
    except OSError as error:
        raise InvalidArgument(f"{where}: {(error.strerror or '').lower()}") from error
    try:
        m.mount_setattr(
            tree, attributes=m.MOUNT_ATTR_IDMAP, user_namespace=namespace, recursive=wanted.recursive
        )  # fmt: skip
    except OSError as error:
        os.close(tree)
        raise InvalidArgument(f"{where}: mapping its ids: {(error.strerror or '').lower()}") from error
    return tree
