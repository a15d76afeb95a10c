"""The kernel's machine for system call filters, as linux/filter.h describes it: what a program says of a call."""

from __future__ import annotations

import struct

X86_64, I386, X32_BIT = 0xC000003E, 0x40000003, 0x40000000
AARCH64, ARM = 0xC00000B7, 0x40000028

KILL, ALLOW, ERRNO = 0x00000000, 0x7FFF0000, 0x00050000


def answer(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """The value that the program returns for a call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *padded)
    lines = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    memory = [0] * 16
    x = 0
    while True:
        code, true, false, k = lines[at]
        at += 1
        match code:
            case 0x20:  # ld [k]
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x05:  # ja
                at += k
            case 0x15:  # jeq
                at += true if accumulator == k else false
            case 0x25:  # jgt
                at += true if accumulator > k else false
            case 0x35:  # jge
                at += true if accumulator >= k else false
            case 0x45:  # jset
                at += true if accumulator & k else false
            case 0x54:  # and
                accumulator &= k
            case 0x02:  # st
                memory[k] = accumulator
            case 0x60:  # ld M[k]
                accumulator = memory[k]
            case 0x07:  # tax
                x = accumulator
            case 0x87:  # txa
                accumulator = x
            case 0x06:  # ret
                return int(k)
            case _:
                raise AssertionError(f"an instruction that the test does not know: {code:#x}")
