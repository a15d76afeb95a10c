"""Seccomp: a profile is compiled by the system's libseccomp once, and its program is loaded directly.

Compiling Docker's profile takes several milliseconds, loading it microseconds: so the program is kept by the profile's
checksum, and only who meets a profile for the first time loads the library.
"""

from __future__ import annotations

import binascii
import contextlib
import ctypes
import os
import struct

import msgspec

from sampan.linux.libc import syscall
from sampan.oci.runtime import Seccomp

_SET_MODE_FILTER = 1
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}  # fmt: skip
_INSTRUCTION = 8
_HEAD = struct.Struct("<I")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(profile: Seccomp, cache: str) -> bytes:
    """The profile's BPF program: from the directory `cache`, or compiled now and kept there.

    Raises ValueError for a profile that makes no sense, OSError (ENOSYS) where libseccomp is missing.
    """
    text = msgspec.json.encode(profile)
    # The file holds the profile too: a checksum finds it, the comparison decides. (A digest would bring libcrypto
    # into every shim.)
    head = _HEAD.pack(len(text)) + text
    path = f"{cache}/{binascii.crc32(text):08x}.bpf"
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        kept = file.read()
        if kept.startswith(head):
            return kept[len(head) :]
    from sampan.linux.seccomp.compiler import compile_profile

    code = compile_profile(profile)
    with contextlib.suppress(OSError):  # A cache that can't be written is only slower.
        os.makedirs(cache, mode=0o700, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "xb") as file:
            file.write(head + code)
        os.rename(temporary, path)
    return code


def load(code: bytes, flags: tuple[str, ...] = ()) -> None:
    """seccomp(2): from here on this process and its children obey the program.

    Takes no_new_privs or CAP_SYS_ADMIN. KeyError for an unknown flag.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = _Program(len(code) // _INSTRUCTION, ctypes.addressof(buffer))
    bits = 0
    for flag in flags:
        bits |= _FLAGS[flag]
    syscall("seccomp", _SET_MODE_FILTER, bits, ctypes.byref(filter_program))
