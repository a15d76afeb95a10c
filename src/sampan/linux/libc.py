"""The C library by ctypes: prototypes declared once, one check of the result.

System calls that the C library has no wrapper for go by number through `syscall(2)`. Only this package imports ctypes.
"""

from __future__ import annotations

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)

# Since Linux 5.1 new calls have one number on every architecture; older ones differ.
_X86_64 = {
    "pivot_root": 155, "capget": 125, "capset": 126, "seccomp": 317, "keyctl": 250, "bpf": 321, "unshare": 272,
    "renameat2": 316,
}  # fmt: skip
_AARCH64 = {
    "pivot_root": 41, "capget": 90, "capset": 91, "seccomp": 277, "keyctl": 219, "bpf": 280, "unshare": 97,
    "renameat2": 276,
}  # fmt: skip
_COMMON = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
}  # fmt: skip
NUMBERS: dict[str, int] = {**_COMMON, **(_AARCH64 if os.uname().machine == "aarch64" else _X86_64)}
"""System call numbers by name, for this machine."""

libc.syscall.restype = ctypes.c_long
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
libc.unshare.argtypes = (ctypes.c_int,)
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
libc.setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
libc.personality.argtypes = (ctypes.c_ulong,)
libc.setgroups.argtypes = (ctypes.c_size_t, ctypes.c_void_p)


def check(result: int, call: str, path: str | None = None) -> int:
    """The result, or the OSError that errno tells, with the path and a note that names the call."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    error = OSError(number, os.strerror(number), path) if path is not None else OSError(number, os.strerror(number))
    error.add_note(f"in {call}(2)")
    raise error


def syscall(name: str, *arguments: object, path: str | None = None) -> int:
    """A system call by its name. Plain integers go as 64 bits: varargs would cut them to 32."""
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    return check(int(libc.syscall(ctypes.c_long(NUMBERS[name]), *words)), name, path)


def encode(path: str) -> bytes:
    """A path for the kernel; ValueError where it holds a NUL, which would end it early."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"embedded null byte in {path!r}")
    return encoded
