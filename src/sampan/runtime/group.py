"""A container's cgroup: made for it, limited, and taken back; by ourselves or as a scope of systemd's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import msgspec

from sampan.errors import Internal, InvalidArgument, SampanError
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import LinuxResources
from sampan.runtime.plan import Plan

_ALL_IDS = "4294967295"


def named(what: Plan) -> Cgroup:
    """Raises InvalidArgument for a path that can be no group's."""
    try:
        return Cgroup(what.cgroup) if what.unit else Cgroup.named(what.cgroup, what.subject.id)
    except (OSError, ValueError) as error:
        raise refused(error) from error


def make(group: Cgroup, what: Plan, undo: contextlib.ExitStack) -> Plan:
    """Make it, unless systemd has, and limit it. The plan with the places that it has.

    Without the right to make it, an ordinary user's container goes without, as long as nobody asked for its place or
    for limits.
    """
    try:
        if not what.unit:
            group.create(lenient=what.options.rootless and not what.cgroup)
        undo.callback(group.undo)
        group.apply(what.resources, lenient=what.options.rootless)
    except (OSError, ValueError) as error:
        raise refused(error) from error
    return placed(what, group)


def placed(what: Plan, group: Cgroup) -> Plan:
    """The plan, for the process that is to join the group."""
    return msgspec.structs.replace(what, cgroup=group.path, cgroup_places=group.places)


@contextlib.contextmanager
def blamed(group: Cgroup) -> Iterator[None]:
    """A process that dies while its container is being set up: because of the container's own limit?"""
    try:
        yield
    except Internal as error:
        if group.oom_kills():
            raise InvalidArgument("container init was OOM-killed (memory limit too low?)") from error
        raise


def ordinary() -> bool:
    """Whether this process is an ordinary user's, in a user namespace or out of it."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="utf-8") as maps:
        return maps.read().split() != ["0", "0", _ALL_IDS]


def located(what: Plan) -> Plan:
    """With the place that systemd will give the scope. Raises InvalidArgument, Unsupported."""
    from sampan.runtime.scope import Scope, located

    try:
        wanted = located(Scope(what.unit, what.slice, what.cgroup), what.options.rootless)
    except OSError as error:
        raise refused(error) from error
    return msgspec.structs.replace(what, cgroup=wanted.path)


def start_scope(held: contextlib.ExitStack, what: Plan) -> None:
    """Have systemd make it; it is held until the stack is closed."""
    from sampan.runtime.scope import Scope, started

    scope = Scope(what.unit, what.slice, what.cgroup)
    try:
        held.enter_context(started(scope, what.resources, what.subject.annotations, what.options.rootless))
    except (OSError, ValueError) as error:
        raise refused(error) from error


def birthplace(group: Cgroup, unit: str) -> int | None:
    """What a process is to be born in, the caller's to close; None where it is moved later: by itself with v1, by
    systemd where only that may. Raises InvalidArgument where nobody can."""
    try:
        if group.reachable():
            return group.open()
    except OSError as error:
        raise refused(error) from error
    if not unit:
        raise InvalidArgument(
            f"cgroup: {group.path}: no permission to put processes there from this process's own group"
        )
    return None


def attach(unit: str, pid: int, rootless: bool) -> None:
    """Have systemd move a process into the scope, which this one has no right to."""
    from sampan.runtime import scope

    try:
        scope.attach(unit, pid, rootless)
    except OSError as error:
        raise refused(error) from error


def update(group: Cgroup, resources: LinuxResources, unit: str, rootless: bool) -> None:
    """Change the limits, and tell systemd if the group is its. Raises InvalidArgument."""
    try:
        resources = group.completed(resources)
        group.apply(resources, update=True)
        if unit:
            from sampan.runtime import scope

            scope.update(unit, group, resources, rootless)
            group.apply(msgspec.structs.replace(resources, devices=()), update=True)
    except (OSError, ValueError) as error:
        raise refused(error) from error


def remove(group: Cgroup, unit: str, rootless: bool) -> None:
    """With everybody in it. Raises InvalidArgument. Idempotent."""
    try:
        if group.exists():
            group.kill()
        if unit:
            from sampan.runtime import scope

            scope.stop(unit, rootless)
        group.delete()
    except OSError as error:
        raise refused(error) from error


def refused(error: Exception) -> SampanError:
    """What the kernel, systemd or the plan said, in a line."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        note = "".join(f" ({each})" for each in getattr(error, "__notes__", ()))
        words = error.strerror or str(error)
        return InvalidArgument(f"cgroup: {place}{words[:1].lower()}{words[1:]}{note}")
    return InvalidArgument(f"cgroup: {error}")
