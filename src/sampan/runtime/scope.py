"""The systemd cgroup driver: a container's group is a transient scope that systemd makes and knows the limits of.

A scope is born of a process that is in it. The container's does not exist yet and is to be born in the group, so that a
placeholder, which does nothing, holds the scope until then:

    runtime ── fork ──▶ placeholder ── pause
       │ StartTransientUnit(PIDs=[placeholder], Delegate, limits) ──▶ systemd makes the group
       │ write what systemd has no property for
       │ clone(CLONE_INTO_CGROUP) ──▶ the container's process
       └─ kill the placeholder; systemd forgets the scope when its last process has ended
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import namespaces, process
from sampan.linux.cgroup import hierarchies, v2
from sampan.linux.systemd import Property, Systemd
from sampan.oci.runtime import LinuxResources

_PART = re.compile(r"[A-Za-z0-9:_.\\@-]*")
_NO_LIMIT = (1 << 64) - 1


@dataclass(frozen=True)
class Scope:
    """`path`: the group's, below the cgroup root."""

    unit: str
    slice: str
    path: str


def scope(cgroups_path: str, container_id: str) -> Scope:
    """From config.json's `slice:prefix:name`; "" is `system.slice:sampan:ID`. Raises InvalidArgument."""
    parts = (cgroups_path or f":sampan:{container_id}").split(":")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts) or not parts[2]:
        raise InvalidArgument(f'expected cgroupsPath to be of format "slice:prefix:name", got {cgroups_path!r}')
    parent, prefix, name = parts
    parent = parent or "system.slice"
    if name.endswith(".slice"):
        raise Unsupported(f"cgroupsPath {cgroups_path!r}: a slice as the container's group is not supported")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return Scope(unit, parent, f"{_slice_path(parent)}/{unit}")


def _slice_path(name: str) -> str:
    """systemd.slice(5): a-b.slice lies in a.slice, and -.slice is the root."""
    if name == "-.slice":
        return ""
    stem = name.removesuffix(".slice")
    words = stem.split("-")
    if stem == name or not all(words):
        raise InvalidArgument(f"invalid slice name {name!r}")
    return "".join(f"/{'-'.join(words[: count + 1])}.slice" for count in range(len(words)))


def properties(resources: LinuxResources) -> list[Property]:
    """What systemd has a property for: it would else write its own value over ours when it is reloaded. Pure."""
    result: list[Property] = []
    for write in v2.writes(resources):
        match write.file:
            case "memory.max":
                result.append(("MemoryMax", "t", _amount(write.value)))
            case "memory.low":
                result.append(("MemoryLow", "t", _amount(write.value)))
            case "memory.swap.max":
                result.append(("MemorySwapMax", "t", _amount(write.value)))
            case "pids.max":
                result.append(("TasksMax", "t", _amount(write.value)))
            case "cpu.weight":
                result.append(("CPUWeight", "t", int(write.value)))
            case "cpu.max":
                quota, period = write.value.split()
                each_second = _NO_LIMIT if quota == "max" else int(quota) * 1_000_000 // int(period)
                result += [("CPUQuotaPerSecUSec", "t", each_second), ("CPUQuotaPeriodUSec", "t", int(period))]
    return result


def _amount(value: str) -> int:
    return _NO_LIMIT if value == "max" else int(value)


@contextlib.contextmanager
def started(wanted: Scope, resources: LinuxResources) -> Iterator[None]:
    """The scope, held by the placeholder for as long as the context lasts. Raises OSError, Unsupported."""
    if not hierarchies().unified:
        raise Unsupported("the systemd cgroup driver is supported on cgroup v2 only")
    pid, pidfd = namespaces.clone(0, None)
    if pid == 0:
        _hold()
    try:
        with Systemd() as manager:
            manager.start_scope(
                wanted.unit,
                [
                    ("Description", "s", "sampan container"), ("Slice", "s", wanted.slice), ("Delegate", "b", 1),
                    ("CollectMode", "s", "inactive-or-failed"), ("DefaultDependencies", "b", 0),
                    ("PIDs", "au", (pid,)), *properties(resources),
                ],
            )  # fmt: skip
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _hold() -> None:
    """The placeholder: it keeps nothing of its parent's and does not outlive it."""
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.close_from(0)
        while True:
            signal.pause()
    finally:
        os._exit(1)


def update(unit: str, resources: LinuxResources) -> None:
    """Tell systemd of new limits, which it applies. Raises OSError."""
    changed = properties(resources)
    if changed:
        with Systemd() as manager:
            manager.set_properties(unit, changed)
