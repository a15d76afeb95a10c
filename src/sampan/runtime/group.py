"""A container's cgroup: made for it, limited, and taken back; by ourselves or as a scope of systemd's."""

from __future__ import annotations

import contextlib
import os

import msgspec

from sampan.errors import InvalidArgument, SampanError
from sampan.linux.cgroup import Cgroup
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


def ordinary() -> bool:
    """Whether this process is an ordinary user's, in a user namespace or out of it."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="ascii") as maps:
        return maps.read().split() != ["0", "0", _ALL_IDS]


def start_scope(held: contextlib.ExitStack, what: Plan) -> None:
    """Have systemd make it; it is held until the stack is closed."""
    from sampan.runtime.scope import Scope, started

    try:
        held.enter_context(started(Scope(what.unit, what.slice, what.cgroup), what.resources))
    except (OSError, ValueError) as error:
        raise refused(error) from error


def refused(error: Exception) -> SampanError:
    """What the kernel, systemd or the plan said, in a line."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        note = "".join(f" ({each})" for each in getattr(error, "__notes__", ()))
        return InvalidArgument(f"cgroup: {place}{(error.strerror or str(error)).lower()}{note}")
    return InvalidArgument(f"cgroup: {error}")
