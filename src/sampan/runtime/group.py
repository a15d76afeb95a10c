"""A container's cgroup: made for it, limited, and taken back; by ourselves or as a scope of systemd's."""

from __future__ import annotations

import contextlib

from sampan.errors import InvalidArgument, SampanError
from sampan.linux.cgroup import Cgroup
from sampan.oci.runtime import LinuxResources
from sampan.runtime.plan import Plan


def named(path: str) -> Cgroup:
    """Raises InvalidArgument for a path that can be no group's."""
    try:
        return Cgroup(path)
    except ValueError as error:
        raise refused(error) from error


def make(group: Cgroup, resources: LinuxResources, undo: contextlib.ExitStack, made: bool) -> None:
    """Make it, unless it is `made` already, and limit it."""
    try:
        if not made:
            group.create()
        undo.callback(remove, group)
        group.apply(resources)
    except (OSError, ValueError) as error:
        raise refused(error) from error


def start_scope(held: contextlib.ExitStack, what: Plan) -> None:
    """Have systemd make it; it is held until the stack is closed."""
    from sampan.runtime.scope import Scope, started

    try:
        held.enter_context(started(Scope(what.unit, what.slice, what.cgroup), what.resources))
    except (OSError, ValueError) as error:
        raise refused(error) from error


def remove(group: Cgroup) -> None:
    """With everybody in it, as far as that goes."""
    with contextlib.suppress(OSError):
        group.kill()
        group.delete()


def refused(error: Exception) -> SampanError:
    """What the kernel, systemd or the plan said, in a line."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        note = "".join(f" ({each})" for each in getattr(error, "__notes__", ()))
        return InvalidArgument(f"cgroup: {place}{(error.strerror or str(error)).lower()}{note}")
    return InvalidArgument(f"cgroup: {error}")
