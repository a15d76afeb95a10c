"""From a profile to a BPF program, by libseccomp (2.4 and later; part of every distribution's base system)."""

from __future__ import annotations

import ctypes
import errno
import os

from sampan.oci.runtime import Seccomp, Syscall

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
_WITH_VALUE = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_ATTRIBUTE_NO_NEW_PRIVS = 3
_ATTRIBUTE_OPTIMIZE = 8
_BINARY_TREE = 2
_UNKNOWN_SYSCALL = -1


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise OSError(errno.ENOSYS, "seccomp profiles need the library libseccomp.so.2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_release.restype = None
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    )  # fmt: skip
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def _check(result: int, what: str) -> None:
    if result < 0:
        raise ValueError(f"seccomp: {what}: {os.strerror(-result)}")


def _action(name: str, value: int | None) -> int:
    """libseccomp's number. ValueError for an unknown name; SCMP_ACT_NOTIFY needs a listener, which we have none for."""
    if name not in _ACTIONS:
        raise ValueError(f"seccomp action {name!r} is not supported")
    if name in _WITH_VALUE:
        return _ACTIONS[name] | ((errno.EPERM if value is None else value) & 0xFFFF)
    return _ACTIONS[name]


def compile_profile(profile: Seccomp) -> bytes:
    """The program, for the machine's own architecture and those the profile names. ValueError, OSError (ENOSYS)."""
    library = _library()
    default = _action(profile.default_action, profile.default_errno_ret)
    context = library.seccomp_init(default)
    if not context:
        raise ValueError(f"seccomp: invalid default action {profile.default_action}")
    try:
        for architecture in profile.architectures:
            token = library.seccomp_arch_resolve_name(architecture.removeprefix("SCMP_ARCH_").lower().encode())
            if not token:
                raise ValueError(f"seccomp architecture {architecture!r} is not supported")
            result = library.seccomp_arch_add(context, token)
            if result != -errno.EEXIST:
                _check(result, architecture)
        # Loading decides about no_new_privs, not the library.
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_NO_NEW_PRIVS, 0), "no_new_privs")
        # A tree instead of a chain: the kernel walks the program once for every system call's number when it is loaded.
        # Before libseccomp 2.5 it stays a chain.
        library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)
        for rule in profile.syscalls:
            _add(library, context, rule, default)
        descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _check(library.seccomp_export_bpf(context, descriptor), "export")
            size = os.lseek(descriptor, 0, os.SEEK_END)
            return os.pread(descriptor, size, 0)
        finally:
            os.close(descriptor)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: Syscall, default: int) -> None:
    action = _action(rule.action, rule.errno_ret)
    if action == default:
        return  # libseccomp refuses a rule that changes nothing.
    comparisons: list[tuple[int, int, int, int]] = []
    for each in rule.args:
        if each.op not in _OPERATORS:
            raise ValueError(f"seccomp operator {each.op!r} is not supported")
        comparisons.append((each.index, _OPERATORS[each.op], each.value, each.value_two))
    # All conditions of a rule must hold; but two on one argument can't be one rule: they are alternatives, as in runc.
    several = len({each[0] for each in comparisons}) < len(comparisons)
    groups = [[each] for each in comparisons] if several else [comparisons]
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN_SYSCALL:
            continue  # A profile names the calls of kernels and architectures to come.
        for group in groups:
            array = (_Comparison * len(group))(*(_Comparison(*each) for each in group))
            result = library.seccomp_rule_add_array(context, action, number, len(group), array)
            if result != -errno.EEXIST:
                _check(result, name)
