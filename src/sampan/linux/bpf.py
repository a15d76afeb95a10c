"""bpf(2), as far as guarding a cgroup's devices needs it."""

from __future__ import annotations

import ctypes
import os

from sampan.linux.libc import syscall

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_QUERY = 16
_PROG_GET_FD_BY_ID = 13
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2


class _Load(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32), ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64), ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64), ("kern_version", ctypes.c_uint32), ("prog_flags", ctypes.c_uint32),
    )  # fmt: skip


class _Attach(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("target", "program", "attach_type", "attach_flags"))


class _Query(ctypes.Structure):
    _fields_ = (
        ("target", ctypes.c_uint32), ("attach_type", ctypes.c_uint32), ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32), ("prog_ids", ctypes.c_uint64), ("prog_cnt", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )  # fmt: skip


class _ById(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32))


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    return syscall("bpf", command, ctypes.byref(attributes), ctypes.sizeof(attributes))


def attach_device_program(group: int, code: bytes) -> None:
    """Load the program and make it the only one of its kind on the cgroup that the descriptor is open on."""
    old = attached(group)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    program = _bpf(
        _PROG_LOAD,
        _Load(
            prog_type=_TYPE_CGROUP_DEVICE, insn_cnt=len(code) // 8, insns=ctypes.addressof(instructions),
            license=ctypes.addressof(licence),
        ),
    )  # fmt: skip
    try:
        # The new one stands before the old one goes, so that no device is open to all in between.
        _bpf(_PROG_ATTACH, _Attach(group, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
    finally:
        os.close(program)
    for identifier in old:
        descriptor = _bpf(_PROG_GET_FD_BY_ID, _ById(identifier, 0, 0))
        try:
            _bpf(_PROG_DETACH, _Attach(group, descriptor, _ATTACH_CGROUP_DEVICE, 0))
        finally:
            os.close(descriptor)


def attached(group: int) -> list[int]:
    """The ids of the device programs on the cgroup itself, without those of the groups above."""
    identifiers = (ctypes.c_uint32 * 64)()
    query = _Query(target=group, attach_type=_ATTACH_CGROUP_DEVICE, prog_ids=ctypes.addressof(identifiers), prog_cnt=64)
    _bpf(_PROG_QUERY, query)
    return list(identifiers[: query.prog_cnt])
