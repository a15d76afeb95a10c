"""What a container's `--security-opt`, `--privileged` and defaults mean together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from sampan.engine.security.capabilities import effective
from sampan.engine.security.seccomp import default_profile
from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.runtime import DeviceCgroup, Seccomp, Syscall, SyscallArg

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICE_RULES = (
    DeviceCgroup(allow=False, access="rwm"),
    DeviceCgroup(allow=True, type="c", major=10, minor=200, access="rwm"),  # /dev/net/tun, if it is given
)
ALL_DEVICES = (DeviceCgroup(allow=True, access="rwm"),)


class _ProfileRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A rule of Docker's profile format: OCI's, with conditions on capabilities."""

    names: tuple[str, ...] = ()
    name: str = ""
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] | None = None
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _Condition(msgspec.Struct, frozen=True, kw_only=True):
    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None


class _Profile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] | None = None
    syscalls: tuple[_ProfileRule, ...] | None = None


@dataclass(frozen=True)
class Confinement:
    """`seccomp` None: unconfined."""

    capabilities: tuple[str, ...]
    seccomp: Seccomp | None
    no_new_privileges: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]


def confine(
    options: Sequence[str],
    *,
    privileged: bool,
    add: Sequence[str],
    drop: Sequence[str],
    masked_paths: Sequence[str] | None = None,
    readonly_paths: Sequence[str] | None = None,
) -> Confinement:
    """Raises InvalidArgument for an option that makes no sense, Unsupported for a label or profile of a module that is
    not there."""
    capabilities = effective(add, drop, privileged=privileged)
    seccomp = None if privileged else default_profile(capabilities)
    no_new_privileges = False
    masked: tuple[str, ...] = () if privileged else MASKED_PATHS
    readonly: tuple[str, ...] = () if privileged else READONLY_PATHS
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        match key:
            case "no-new-privileges":
                if value.lower() not in ("", "true", "false", "1", "0"):
                    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
                no_new_privileges = value.lower() not in ("false", "0")
            case "seccomp":
                seccomp = _seccomp(value, capabilities)
            case "apparmor":
                if value not in ("unconfined", ""):
                    raise Unsupported(f"security option apparmor={value} is not supported: AppArmor is not used")
            case "label":
                if value != "disable":
                    raise Unsupported(f"security option label={value} is not supported: SELinux is not used")
            case "systempaths":
                if value != "unconfined":
                    raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
                masked = readonly = ()
            case "writable-cgroups":
                raise Unsupported("security option writable-cgroups is not supported")
            case _:
                raise InvalidArgument(f'invalid --security-opt {2 if separator else 1}: "{option}"')
    return Confinement(
        capabilities=capabilities,
        seccomp=seccomp,
        no_new_privileges=no_new_privileges,
        masked_paths=masked if masked_paths is None else tuple(masked_paths),
        readonly_paths=readonly if readonly_paths is None else tuple(readonly_paths),
    )


def _seccomp(value: str, capabilities: Sequence[str]) -> Seccomp | None:
    """`unconfined`, `builtin`, or a profile's text: clients send a file's content."""
    if value == "unconfined":
        return None
    if value in ("builtin", ""):
        return default_profile(capabilities)
    try:
        profile = msgspec.json.decode(value, type=_Profile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"decoding seccomp profile failed: {error}") from error
    default = default_profile(capabilities)
    rules = [
        Syscall(
            names=rule.names or (rule.name,), action=rule.action, errno_ret=rule.errno_ret, args=rule.args or ()
        )
        for rule in profile.syscalls or ()
        if _applies(rule, capabilities)
    ]  # fmt: skip
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=profile.default_errno_ret,
        architectures=profile.architectures or default.architectures,
        syscalls=tuple(rules),
    )


def _applies(rule: _ProfileRule, capabilities: Sequence[str]) -> bool:
    included = rule.includes.caps if rule.includes else None
    excluded = rule.excludes.caps if rule.excludes else None
    if included and not all(each in capabilities for each in included):
        return False
    return not (excluded and any(each in capabilities for each in excluded))
