"""What a seccomp profile may say, by the names of runtime-spec config-linux.md; and whether one makes sense. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from sampan.oci.runtime import Seccomp, Syscall

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
"""SECCOMP_RET_* by libseccomp's names. linux/seccomp.h"""

OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
"""libseccomp's enum scmp_compare."""

ARCHITECTURES = {
    f"SCMP_ARCH_{name.upper()}": name
    for name in (
        "x86", "x86_64", "x32", "arm", "aarch64", "mips", "mips64", "mips64n32", "mipsel", "mipsel64", "mipsel64n32",
        "ppc", "ppc64", "ppc64le", "s390", "s390x", "parisc", "parisc64", "riscv64", "loongarch64", "m68k", "sh",
        "sheb",
    )
}  # fmt: skip
"""libseccomp's names for them."""

NEW_LISTENER = 8
WAIT_KILLABLE_RECV = 32
FLAGS = {
    # All threads of the process: there is one.
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": WAIT_KILLABLE_RECV,
}
"""SECCOMP_FILTER_FLAG_*: bits of seccomp(2)."""

_LARGEST = {"SCMP_ACT_ERRNO": 4094, "SCMP_ACT_TRACE": 0xFFFF}
"""The actions that take a number, and how large it may be: libseccomp stays below MAX_ERRNO; a tracer reads 16 bits."""
_ARGUMENTS = 6
_WORD = 1 << 64
_LONGEST_PATH = 107
"""Of a unix socket: unix(7)."""


def check(profile: Seccomp) -> None:
    """Raises ValueError for what does not exist or makes no sense, before anything is made of it."""
    _check_action(profile.default_action, profile.default_errno_ret, "defaultErrnoRet")
    if profile.default_action == "SCMP_ACT_NOTIFY":
        # The runtime's own calls would wait for an agent that has not been told yet.
        raise ValueError("SCMP_ACT_NOTIFY cannot be used as default action")
    for architecture in profile.architectures:
        if architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {architecture!r}")
    for flag in profile.flags or ():
        if flag not in FLAGS:
            raise ValueError(f"unknown flag {flag!r}")
    for rule in profile.syscalls:
        _check_rule(rule)
    if notifies(profile):
        _check_listener(profile)
    elif "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in (profile.flags or ()):
        raise ValueError("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")


def _check_action(action: str, value: int | None, name: str) -> None:
    if action not in ACTIONS:
        raise ValueError(f"unknown action {action!r}")
    if value is None:
        return
    if action not in _LARGEST:
        raise ValueError(f"{name} {value} is given for {action}, which takes none")
    if not 0 <= value <= _LARGEST[action]:
        raise ValueError(f"{name} {value} is not between 0 and {_LARGEST[action]}")


def _check_rule(rule: Syscall) -> None:
    _check_action(rule.action, rule.errno_ret, "errnoRet")
    if "" in rule.names:
        raise ValueError("a system call's name is empty")
    for each in rule.args:
        if each.op not in OPERATORS:
            raise ValueError(f"unknown operator {each.op!r}")
        if not 0 <= each.index < _ARGUMENTS:
            raise ValueError(f"argument index {each.index}: a system call has {_ARGUMENTS} arguments, from 0 on")
        if not (0 <= each.value < _WORD and 0 <= each.value_two < _WORD):
            raise ValueError(f"the value that argument {each.index} is compared to does not fit into 64 bits")


def _check_listener(profile: Seccomp) -> None:
    if intercepts(profile, "write"):
        # The process says by a write that there is a listener now.
        raise ValueError("SCMP_ACT_NOTIFY cannot be used for the write syscall")
    path = profile.listener_path
    if not path:
        raise ValueError("SCMP_ACT_NOTIFY is used and listenerPath is not set")
    if not path.startswith("/") or "\0" in path or len(path.encode("utf-8", "replace")) > _LONGEST_PATH:
        raise ValueError(f"listenerPath {path!r} is not an absolute path of at most {_LONGEST_PATH} bytes")


def notifies(profile: Seccomp) -> bool:
    """Whether an agent decides about some calls: loading the program makes a listener."""
    return any(True for _ in _intercepted(profile))


def intercepts(profile: Seccomp, name: str) -> bool:
    """Whether an agent decides about this call."""
    return any(name in names for names in _intercepted(profile))


def _intercepted(profile: Seccomp) -> Iterator[tuple[str, ...]]:
    return (rule.names for rule in profile.syscalls if rule.action == "SCMP_ACT_NOTIFY")


def flag_bits(profile: Seccomp) -> int:
    """For `load`. Where no flags are given, not even none, speculation is left alone, as runc (from 1.2 on) and crun
    do: kernels before 5.16 would slow the program down."""
    if profile.flags is None:
        bits = FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    else:
        bits = sum({FLAGS[flag] for flag in profile.flags})
    return bits | NEW_LISTENER if notifies(profile) else bits


def action_code(action: str, value: int | None) -> int:
    """What the program returns. Without a `value`: EPERM, where one is taken."""
    if action not in _LARGEST:
        return ACTIONS[action]
    return ACTIONS[action] | (errno.EPERM if value is None else value)
