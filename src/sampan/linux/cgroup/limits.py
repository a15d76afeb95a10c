"""Carrying out what `v1` or `v2` planned: the one applier of limits."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Protocol

import msgspec

from sampan.linux.cgroup import v1, v2
from sampan.linux.cgroup.files import read, write
from sampan.linux.cgroup.write import Write
from sampan.oci.runtime import LinuxResources, Memory

_REFUSED_FOR_NOW = (errno.EINVAL, errno.EBUSY, errno.ERANGE)
_CPUSET = ("cpuset.cpus", "cpuset.mems")


class Group(Protocol):
    """What is to be limited."""

    @property
    def unified(self) -> bool: ...

    def directory(self, controller: str) -> str | None: ...

    def no_place(self, controller: str) -> OSError: ...


def apply(group: Group, resources: LinuxResources, *, update: bool) -> None:
    """All limits but those of devices. `update`: of a live group, which gets its old values back where a new one is
    refused. OSError names the file and the value, ValueError what this cgroup version lacks."""
    resources = completed(group, resources)
    plan = v2.writes(resources) if group.unified else v1.writes(resources)
    before: list[tuple[str, str]] = []
    try:
        while plan:
            plan = _apply_some(group, plan, before if update else None)
    except OSError:
        for path, value in reversed(before):
            with contextlib.suppress(OSError):
                write(path, value)
        raise
    if not group.unified and not update and (directory := group.directory("cpuset")) is not None:
        _inherit_cpuset(directory)


def completed(group: Group, resources: LinuxResources) -> LinuxResources:
    """With what the group has now, where the one can't be said without the other. OSError (EBUSY) for a limit that is
    exceeded already, where that is to be checked."""
    if resources.memory is None:
        return resources
    return msgspec.structs.replace(resources, memory=_against_usage(group, resources.memory))


def _apply_some(group: Group, plan: list[Write], before: list[tuple[str, str]] | None) -> list[Write]:
    """What has to be tried again. Raises OSError when nothing went."""
    refused: list[Write] = []
    first: OSError | None = None
    for each in plan:
        try:
            _apply(group, each, before)
        except OSError as error:
            if error.errno not in _REFUSED_FOR_NOW:
                raise
            refused.append(each)
            first = first or error
    if first is not None and len(refused) == len(plan):
        raise first
    return refused


def _apply(group: Group, wanted: Write, before: list[tuple[str, str]] | None) -> None:
    directory = group.directory(wanted.controller)
    if directory is None:
        if wanted.optional:
            return
        raise group.no_place(wanted.controller)
    path, value = f"{directory}/{wanted.file}", wanted.value
    if wanted.instead is not None and not os.path.exists(path):
        path, value = f"{directory}/{wanted.instead[0]}", wanted.instead[1]
    try:
        if wanted.keeps_first:
            value = f"{read(path).split()[0]} {value}"
        if before is not None and (old := _single_value(path)) is not None:
            before.append((path, old))
        write(path, value)
        if wanted.checked and not _in_force(value, read(path)):
            raise OSError(errno.EOPNOTSUPP, "this kernel has no such limit any more", path)
    except FileNotFoundError:
        if wanted.optional:
            return
        if group.unified and _without(directory, wanted.controller):
            # A group above has processes of its own, and so may not pass the controller on.
            raise FileNotFoundError(
                errno.ENOENT, f"the {wanted.controller} controller is not available to the group", directory
            ) from None
        raise
    except OSError as error:
        _explain(error, directory, wanted)
        raise


def _in_force(value: str, found: str) -> bool:
    """To the page: the kernel cuts what is below."""
    page = os.sysconf("SC_PAGE_SIZE")
    return int(value) < 0 or int(value) // page == int(found) // page


def _without(directory: str, controller: str) -> bool:
    return controller != "cgroup" and controller not in read(f"{directory}/cgroup.controllers").split()


def _explain(error: OSError, directory: str, wanted: Write) -> None:
    """The kernel's EBUSY for a limit below what is in use."""
    if error.errno == errno.EBUSY and wanted.file == "memory.limit_in_bytes":
        with contextlib.suppress(OSError):
            usage = read(f"{directory}/memory.usage_in_bytes").strip()
            peak = read(f"{directory}/memory.max_usage_in_bytes").strip()
            error.add_note(f"current usage: {usage}, peak usage: {peak}")


def _single_value(path: str) -> str | None:
    """What can be written back as it was read; None for tables."""
    lines = read(path).splitlines()
    if len(lines) != 1 or "=" in lines[0] or ":" in lines[0]:
        return None
    return lines[0]


def _against_usage(group: Group, memory: Memory) -> Memory:
    directory = group.directory("memory")
    if directory is None:
        return memory
    if group.unified and memory.swap is not None and memory.swap > 0 and not memory.limit:
        # v2 has no limit on both together: it takes the one on memory that is in force.
        with contextlib.suppress(OSError, ValueError):
            memory = msgspec.structs.replace(memory, limit=int(read(f"{directory}/memory.max")))
    if memory.check_before_update:  # Or the kernel would begin to kill.
        _check(directory, "memory.current" if group.unified else "memory.usage_in_bytes", "memory", memory.limit)
        if group.unified:
            _check(directory, "memory.current", "memory+swap", memory.swap)
        else:
            _check(directory, "memory.memsw.usage_in_bytes", "memory+swap", memory.swap)
    return memory


def _check(directory: str, file: str, what: str, limit: int | None) -> None:
    try:
        usage = int(read(f"{directory}/{file}"))
    except (OSError, ValueError):
        return
    if limit is not None and 0 < limit <= usage:
        raise OSError(errno.EBUSY, f"rejecting {what} limit {limit} <= usage {usage}", directory)


def _inherit_cpuset(directory: str) -> None:
    """A cpuset of v1 is born empty, and takes no process before it has CPUs and memory nodes."""
    for file in _CPUSET:
        _inherit(directory, file)


def _inherit(directory: str, file: str) -> str:
    """From the group above, which may be as new."""
    values = read(f"{directory}/{file}").strip()
    if not values:
        values = _inherit(os.path.dirname(directory), file)
        write(f"{directory}/{file}", values)
    return values
