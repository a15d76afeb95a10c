"""The systemd cgroup driver: a container's group is a transient scope that systemd makes and knows the limits of.

A scope is born of a process that is in it. The container's does not exist yet and is to be born in the group, so that a
placeholder, which does nothing, holds the scope until then:

    runtime ── fork ──▶ placeholder ── pause
       │ StartTransientUnit(PIDs=[placeholder], Delegate, limits) ──▶ systemd makes the group
       │ write what systemd has no property for
       │ clone(CLONE_INTO_CGROUP) ──▶ the container's process
       │ (an ordinary user in a login session: clone, AttachProcessesToUnit)
       └─ kill the placeholder; `delete` stops the scope
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator, Mapping

import msgspec

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import namespaces, process
from sampan.linux.cgroup import Cgroup, hierarchies, v2
from sampan.linux.cgroup.counters import listed
from sampan.linux.dbus import Property
from sampan.linux.systemd import Systemd, system_sockets, user_sockets
from sampan.oci.runtime import LinuxResources

_PART = re.compile(r"[A-Za-z0-9:_.\\@-]*")
_LONGEST = 255
_NO_LIMIT = (1 << 64) - 1
_PERIOD = 100_000
_PERCENT = 10_000
"""Microseconds in a second: systemd keeps quotas in whole percents."""


class Scope(msgspec.Struct, frozen=True):
    """`path`: the group's, below the group that the manager keeps its units in."""

    unit: str
    slice: str
    path: str


def scope(cgroups_path: str, container_id: str, rootless: bool = False) -> Scope:
    """From config.json's `slice:prefix:name`; "" is `system.slice:sampan:ID`, and `user.slice` for an ordinary user.

    Raises InvalidArgument, Unsupported.
    """
    parts = (cgroups_path or f":sampan:{container_id}").split(":")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts) or not parts[2]:
        raise InvalidArgument(f'expected cgroupsPath to be of format "slice:prefix:name", got {cgroups_path!r}')
    parent, prefix, name = parts
    parent = parent or ("user.slice" if rootless else "system.slice")
    if name.endswith(".slice"):
        raise Unsupported(f"cgroupsPath {cgroups_path!r}: a slice as the container's group is not supported")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if len(unit) > _LONGEST:
        raise InvalidArgument(f"cgroupsPath: a unit's name has at most {_LONGEST} letters")
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


def manager(rootless: bool) -> Systemd:
    """The machine's systemd, or the user's own. Raises OSError."""
    return Systemd(user_sockets() if rootless else system_sockets())


def located(wanted: Scope, rootless: bool) -> Scope:
    """With the path from the root: a user's systemd has its units below a group of its own. Raises OSError."""
    if not hierarchies().unified:
        raise Unsupported("the systemd cgroup driver is supported on cgroup v2 only")
    if not rootless:
        return wanted
    with manager(rootless) as systemd:
        return msgspec.structs.replace(wanted, path=systemd.control_group().rstrip("/") + wanted.path)


# --- Properties ----------------------------------------------------------------------------------------------

_AMOUNTS = {
    "memory.max": "MemoryMax", "memory.low": "MemoryLow", "memory.min": "MemoryMin", "memory.high": "MemoryHigh",
    "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax",
}  # fmt: skip
_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_POLICY_SINCE, _IDLE_SINCE, _LISTS_SINCE, _PERIOD_SINCE = 253, 252, 244, 242
_KNOWN = (*_AMOUNTS, *_LISTS, "cpu.weight", "cpu.max", "cpu.idle")


def values(resources: LinuxResources) -> dict[str, str]:
    """What is written where, into files of one value. Pure."""
    found: dict[str, str] = {}
    for write in v2.writes(resources):
        if write.file == "cpu.max":
            # Quota and period may come alone.
            quota, _, period = found.get("cpu.max", "max").partition(" ")
            if write.keeps_first:
                period = write.value
            else:
                quota, _, new = write.value.partition(" ")
                period = new or period
            found["cpu.max"] = f"{quota} {period}".strip()
        else:
            found[write.file] = write.value
    return found


def properties(files: Mapping[str, str], version: int) -> list[Property]:
    """What systemd has a property for: it would else write its own value over ours when it is reloaded. Pure.

    The table is runc's. `version`: systemd's.
    """
    result: list[Property] = []
    idle = files.get("cpu.idle", "").strip() == "1" and version >= _IDLE_SINCE
    for file, text in files.items():
        value = text.strip()
        if file in _AMOUNTS:
            result.append((_AMOUNTS[file], "t", _amount(value)))
        elif file in _LISTS and version >= _LISTS_SINCE:
            result.append((_LISTS[file], "ay", bits(value)))
        elif file == "cpu.weight" and not idle:
            result.append(("CPUWeight", "t", int(value)))
        elif file == "cpu.max":
            result += _quota(value, version)
    if idle:
        result.append(("CPUWeight", "t", 0))
    return result


def _amount(value: str) -> int:
    return _NO_LIMIT if value == "max" else int(value)


def _quota(value: str, version: int) -> list[Property]:
    quota, _, given = value.partition(" ")
    period = int(given or _PERIOD)
    each_second = _NO_LIMIT
    if quota != "max":
        # Rounded up: it must leave room for what is written to the file.
        each_second = -(-int(quota) * 1_000_000 // period // _PERCENT) * _PERCENT
    result: list[Property] = [("CPUQuotaPerSecUSec", "t", each_second)]
    if version >= _PERIOD_SINCE:
        result.append(("CPUQuotaPeriodUSec", "t", period))
    return result


def bits(ranges: str) -> bytes:
    """`0-2,9` as systemd takes it: bit n of byte n/8."""
    numbers = listed(ranges)
    if not numbers:
        raise ValueError(f"invalid list {ranges!r}")
    return sum(1 << number for number in set(numbers)).to_bytes(max(numbers) // 8 + 1, "little")


# --- Annotations ---------------------------------------------------------------------------------------------

_ANNOTATION = "org.systemd.property."
_NAME = re.compile(r"[A-Za-z]{3,}")
_TYPED = re.compile(r"(byte|int16|uint16|int32|uint32|int64|uint64|double) (\S+)")
_TYPES = {
    "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t", "double": "d",
}  # fmt: skip
_QUOTED = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")


def annotated(annotations: Mapping[str, str]) -> list[Property]:
    """runc's annotations `org.systemd.property.NAME`, with values as GVariant writes them: `uint64 5`, `true`,
    `'text'`, `['a', 'b']`. A NAME in seconds (TimeoutStopSec) becomes one in microseconds. Raises InvalidArgument."""
    result: list[Property] = []
    for annotation, text in annotations.items():
        if not annotation.startswith(_ANNOTATION):
            continue
        name = annotation.removeprefix(_ANNOTATION)
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"annotation {annotation}: invalid property name")
        try:
            signature, value = _variant(text.strip())
        except ValueError as error:
            raise InvalidArgument(f"annotation {annotation}={text}: {error}") from error
        if name.endswith("Sec") and name[-4:-3].islower():
            if not isinstance(value, int | float) or value < 0:
                raise InvalidArgument(f"annotation {annotation}={text}: not a number of seconds")
            name, signature, value = f"{name[:-3]}USec", "t", int(value * 1_000_000)
        result.append((name, signature, value))
    return result


def _variant(text: str) -> tuple[str, object]:
    if text in ("true", "false"):
        return "b", int(text == "true")
    if match := _QUOTED.fullmatch(text):
        return "s", match[1] or match[2] or ""
    if text.startswith("[") and text.endswith("]"):
        words = [word for word in text[1:-1].split(",") if word.strip()]
        found = [_QUOTED.fullmatch(word.strip()) for word in words]
        if not all(found):
            raise ValueError("only arrays of strings are understood")
        return "as", tuple(match[1] or match[2] or "" for match in found if match)
    if match := _TYPED.fullmatch(text):
        signature, number = _TYPES[match[1]], match[2]
    else:
        signature, number = "d" if "." in text else "i", text
    try:
        return signature, float(number) if signature == "d" else int(number, 0)
    except ValueError:
        raise ValueError("not a value that is understood") from None


# --- The scope's life ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(wanted: Scope, resources: LinuxResources, annotations: Mapping[str, str], rootless: bool) -> Iterator[None]:
    """The scope, held by the placeholder for as long as the context lasts. Raises OSError, ValueError,
    InvalidArgument."""
    given, extra = values(resources), annotated(annotations)
    pid, pidfd = namespaces.clone(0, None)
    if pid == 0:
        _hold()
    try:
        with manager(rootless) as systemd:
            version = systemd.version()
            systemd.start_scope(
                wanted.unit,
                [
                    ("Description", "s", f"sampan container {wanted.unit}"), ("Slice", "s", wanted.slice),
                    ("Delegate", "b", 1), ("CollectMode", "s", "inactive-or-failed"), ("DefaultDependencies", "b", 0),
                    ("PIDs", "au", (pid,)),
                    # What is counted without a limit too, as where we make the group.
                    *((f"{each}Accounting", "b", 1) for each in ("CPU", "Memory", "IO", "Tasks")),
                    *properties(given, version), *_oom_policy(given, version), *extra,
                ],
            )  # fmt: skip
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _oom_policy(given: Mapping[str, str], version: int) -> list[Property]:
    """Of memory.oom.group, which can be told at the start only."""
    policy = {"0": "continue", "1": "kill"}.get(given.get("memory.oom.group", "").strip())
    return [("OOMPolicy", "s", policy)] if policy and version >= _POLICY_SINCE else []


def _hold() -> None:
    """The placeholder: it keeps nothing of its parent's and does not outlive it."""
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.close_from(0)
        while True:
            signal.pause()
    finally:
        os._exit(1)


def update(unit: str, group: Cgroup, resources: LinuxResources, rootless: bool) -> None:
    """Tell systemd of the limits that have just been written to the group's files. Raises OSError.

    It writes them again, in its own rounding.
    """
    directory = group.directories[0]
    files: dict[str, str] = {}
    for file in values(resources):
        if file in _KNOWN:
            with contextlib.suppress(FileNotFoundError), open(f"{directory}/{file}", encoding="utf-8") as opened:
                files[file] = opened.read()
    with manager(rootless) as systemd:
        changed = properties(files, systemd.version())
        if changed:
            systemd.set_properties(unit, changed)


def attach(unit: str, pid: int, rootless: bool) -> None:
    """Move a process into the scope. Raises OSError."""
    with manager(rootless) as systemd:
        systemd.attach(unit, pid)


def stop(unit: str, rootless: bool) -> None:
    """End the scope, and whoever is in it. Where systemd can't be reached, the group is all there is to remove."""
    with contextlib.suppress(OSError), manager(rootless) as systemd:
        systemd.stop(unit)
