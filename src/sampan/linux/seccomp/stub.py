"""The head of a program: system calls that are newer than its profile do not exist.

A profile is a list of what was known when it was written. For a newer call, the default action (EPERM, mostly) would be
the wrong answer: C libraries try new calls first, and fall back to old ones when they hear ENOSYS. So, as in runc, a
call whose number is higher than all that the profile names, for the caller's architecture, fails with ENOSYS. The
default action is for those in between.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

from sampan.linux.seccomp.profile import ACTIONS

_LOAD, _JUMP, _EQUAL, _GREATER, _BITS, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x45, 0x06
"""Classic BPF: ld [k], ja, jeq, jgt, jset and ret. linux/bpf_common.h"""
_NUMBER, _ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data."""
_NO_SUCH_CALL = ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS

X86_64, X32 = 0xC000003E, 0x4000003E
"""AUDIT_ARCH_X86_64, and libseccomp's name for x32. The kernel tells x32 by a bit of the call's number only."""
_X32_BIT = 0x40000000

_NEXT, _FILTER, _MISSING = "next", "filter", "missing"
_Line = tuple[int, int, str, str]
"""Operation, operand, and where to go if true and if false."""


def stub(highest: Mapping[int, int]) -> bytes:
    """Instructions to put before a program. `highest`: the last call that the profile names, by architecture
    (AUDIT_ARCH_* and X32); others are left to the program."""
    last = {token: number for token, number in highest.items() if number > 0}
    blocks = {token: _block(token, last) for token in ({X86_64 if token == X32 else token for token in last})}
    lines: list[_Line] = [(_LOAD, _ARCHITECTURE, _NEXT, _NEXT)]
    lines += [(_EQUAL, token, f"{token}", _NEXT) for token in blocks]
    lines.append((_JUMP, 0, _FILTER, _FILTER))
    places: dict[str, int] = {}
    for token, block in blocks.items():
        places[f"{token}"] = len(lines)
        lines += block
    places[_MISSING] = len(lines)
    lines.append((_RETURN, _NO_SUCH_CALL, _NEXT, _NEXT))
    places[_FILTER] = len(lines)
    return b"".join(_encoded(line, at, places) for at, line in enumerate(lines))


def _block(token: int, last: Mapping[int, int]) -> list[_Line]:
    load: _Line = (_LOAD, _NUMBER, _NEXT, _NEXT)
    if token != X86_64:
        return [load, (_GREATER, last[token], _MISSING, _FILTER)]
    # A filter without x32 ends the caller itself.
    native: list[_Line] = [(_GREATER, last[X86_64], _MISSING, _FILTER)] if X86_64 in last else []
    if X32 not in last:
        return [load, (_BITS, _X32_BIT, _FILTER, _NEXT), *native]
    x32: _Line = (_GREATER, last[X32], _MISSING, _FILTER)
    if not native:
        return [load, (_BITS, _X32_BIT, _NEXT, _FILTER), x32]
    return [load, (_BITS, _X32_BIT, "x32", _NEXT), *native, x32]


def _encoded(line: _Line, at: int, places: Mapping[str, int]) -> bytes:
    operation, operand, *targets = line
    # "x32" is the line after the next: its block has one comparison for each.
    true, false = (
        0 if each == _NEXT else 1 if each == "x32" else places[each] - at - 1 for each in targets
    )  # fmt: skip
    if operation == _JUMP:
        operand, true, false = true, 0, 0
    return struct.pack("=HBBI", operation, true, false, operand)
