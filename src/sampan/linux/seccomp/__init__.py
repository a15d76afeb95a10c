"""Seccomp: a profile is compiled by the system's libseccomp once, and its program is loaded directly.

Compiling Docker's profile takes several milliseconds, loading it microseconds: so the program is kept by the profile's
checksum, and only who meets a profile for the first time loads the library.
"""

from __future__ import annotations

import binascii
import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterator

import msgspec

from sampan.linux.libc import syscall
from sampan.oci.runtime import Seccomp

_SET_MODE_FILTER = 1
_INSTRUCTION = 8
_HEAD = struct.Struct("<4sII")
"""Of a kept program: what it is, and the lengths of the profile and of the program that follow."""
_MAGIC = b"SC2\n"
"""Counts up when the compiler makes something else of a profile."""
_MOST_KEPT = 64


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def program(profile: Seccomp, cache: str) -> bytes:
    """The profile's BPF program: from the directory `cache`, or compiled now and kept there.

    The profile has been checked (`profile.check`). ValueError for what libseccomp does not take, OSError (ENOSYS)
    where it is missing.
    """
    # What does not change the program would only make more of them.
    same = msgspec.structs.replace(profile, flags=None, listener_path="", listener_metadata="")
    text = msgspec.json.encode(same)
    # The file holds the profile too: a checksum finds it, the comparison decides. (A digest would bring libcrypto
    # into every shim.)
    name = f"{binascii.crc32(text):08x}.bpf"
    with _opened(cache) as directory:
        code = None if directory is None else _kept(directory, name, text)
        if code is None:
            from sampan.linux.seccomp.compiler import compile_profile

            code = compile_profile(profile)
            if directory is not None:
                with contextlib.suppress(OSError):  # A cache that can't be written is only slower.
                    _keep(directory, name, text, code)
    return code


@contextlib.contextmanager
def _opened(cache: str) -> Iterator[int | None]:
    """The directory, made if it is missing; None if it is not to be trusted: who can write to it decides about the
    system calls of containers to come."""
    directory = None
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileExistsError):
            os.makedirs(cache, mode=0o700)
        directory = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if directory is not None:
            found = os.fstat(directory)
            yield directory if found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077 else None
        else:
            yield None
    finally:
        if directory is not None:
            os.close(directory)


def _kept(directory: int, name: str, text: bytes) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = file.read()
    start = _HEAD.size + len(text)
    code = content[start:]
    return code if code and content[:start] == _HEAD.pack(_MAGIC, len(text), len(code)) + text else None


def _keep(directory: int, name: str, text: bytes, code: bytes) -> None:
    kept = os.listdir(directory)
    if len(kept) >= _MOST_KEPT:
        for each in kept:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each, dir_fd=directory)
    # Not by the process's id: another pid namespace has the same.
    temporary = f"{name}.{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_HEAD.pack(_MAGIC, len(text), len(code)) + text + code)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def load(code: bytes, flags: int = 0) -> int:
    """seccomp(2): from here on this process and its children obey the program. `flags`: `profile.flag_bits`.

    Takes no_new_privs or CAP_SYS_ADMIN. Returns the listener's descriptor (close-on-exec) if one was asked for, or 0.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = _Program(len(code) // _INSTRUCTION, ctypes.addressof(buffer))
    return syscall("seccomp", _SET_MODE_FILTER, flags, ctypes.byref(filter_program))
