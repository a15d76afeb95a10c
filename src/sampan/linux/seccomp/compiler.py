"""From a profile to a BPF program, by libseccomp (2.4 and later, 2.5 for listeners; part of every distribution's base
system)."""

from __future__ import annotations

import ctypes
import errno
import os

from sampan.linux.seccomp.profile import ARCHITECTURES, OPERATORS, action_code
from sampan.linux.seccomp.stub import stub
from sampan.oci.runtime import Seccomp, Syscall

_ATTRIBUTE_NO_NEW_PRIVS = 3
_ATTRIBUTE_OPTIMIZE = 8
_BINARY_TREE = 2
_UNKNOWN_SYSCALL = -1
_FEW = 32
"""Calls that a chain is as good for. (Up to libseccomp 2.5.4 a tree of none is wrong.)"""
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_INSTRUCTION = 8
_MOST_INSTRUCTIONS = 4096
"""BPF_MAXINSNS: what the kernel takes."""


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
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    )  # fmt: skip
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def _check(result: int, what: str) -> None:
    if result < 0:
        raise ValueError(f"{what}: {os.strerror(-result).lower()}")


def compile_profile(profile: Seccomp) -> bytes:
    """The program, for the machine's own architecture and those the profile names.

    The profile has been checked. ValueError for what the library does not take, OSError (ENOSYS) where it is missing.
    """
    library = _library()
    default = action_code(profile.default_action, profile.default_errno_ret)
    context = library.seccomp_init(default)
    if not context:
        raise ValueError(f"invalid default action {profile.default_action}")
    try:
        tokens = {library.seccomp_arch_native()}
        tokens.update(_add_architecture(library, context, each) for each in profile.architectures)
        # Loading decides about no_new_privs, not the library.
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_NO_NEW_PRIVS, 0), "no_new_privs")
        if sum(len(rule.names) for rule in profile.syscalls) > _FEW:
            # A tree instead of a chain: the kernel walks the program once for every system call's number when it is
            # loaded. Before libseccomp 2.5 it stays a chain.
            library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)
        for rule in profile.syscalls:
            _add(library, context, rule, default)
        head = b""
        if profile.default_action not in _PERMISSIVE:
            head = stub({token: _highest(library, token, profile) for token in tokens})
        program = head + _exported(library, context)
    finally:
        library.seccomp_release(context)
    if len(program) > _MOST_INSTRUCTIONS * _INSTRUCTION:
        raise ValueError(
            f"the program has {len(program) // _INSTRUCTION} instructions: the kernel takes {_MOST_INSTRUCTIONS}"
        )
    return program


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, descriptor), "export")
        return os.pread(descriptor, os.lseek(descriptor, 0, os.SEEK_END), 0)
    finally:
        os.close(descriptor)


def _add_architecture(library: ctypes.CDLL, context: int, name: str) -> int:
    token = int(library.seccomp_arch_resolve_name(ARCHITECTURES[name].encode()))
    if not token:
        raise ValueError(f"architecture {name}: this machine's libseccomp does not know it")
    result = library.seccomp_arch_add(context, token)
    if result == -errno.EDOM:
        raise ValueError(f"architecture {name}: its byte order is not this machine's")
    if result != -errno.EEXIST:
        _check(result, f"architecture {name}")
    return token


def _highest(library: ctypes.CDLL, token: int, profile: Seccomp) -> int:
    """The highest number of the calls that the profile names; not positive if there is none. Calls that the
    architecture does not have get negative ones."""
    numbers = (
        library.seccomp_syscall_resolve_name_arch(token, encoded)
        for rule in profile.syscalls
        for name in rule.names
        if (encoded := _encoded(name)) is not None
    )
    return max(numbers, default=0)


def _encoded(name: str) -> bytes | None:
    """None for what can be no call's name: a NUL would end it early."""
    return name.encode() if name.isascii() and "\0" not in name else None


def _add(library: ctypes.CDLL, context: int, rule: Syscall, default: int) -> None:
    action = action_code(rule.action, rule.errno_ret)
    if action == default:
        return  # libseccomp refuses a rule that changes nothing.
    comparisons = [(each.index, OPERATORS[each.op], each.value, each.value_two) for each in rule.args]
    # All conditions of a rule must hold; but two on one argument can't be one rule: they are alternatives, as in runc.
    several = len({each[0] for each in comparisons}) < len(comparisons)
    groups = [[each] for each in comparisons] if several else [comparisons]
    for name in rule.names:
        encoded = _encoded(name)
        number = _UNKNOWN_SYSCALL if encoded is None else library.seccomp_syscall_resolve_name(encoded)
        if number == _UNKNOWN_SYSCALL:
            continue  # A profile names the calls of kernels and architectures to come.
        for group in groups:
            array = (_Comparison * len(group))(*(_Comparison(*each) for each in group))
            result = library.seccomp_rule_add_array(context, action, number, len(group), array)
            if result != -errno.EEXIST:
                _check(result, f"{name}: {rule.action}")
