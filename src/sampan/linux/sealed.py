"""A copy of a program in memory that nobody can write to: memfd_create(2), F_ADD_SEALS.

A process in a container may reach the file that another process there executes, by /proc/PID/exe, and write to it
once it is no longer executed. It must not be one of the host's (CVE-2019-5736).
"""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_copy(path: str) -> int:
    """A descriptor of the copy (close-on-exec), the caller's to close."""
    descriptor = os.memfd_create("sampan-python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as source:
            left = os.fstat(source.fileno()).st_size
            while left:
                sent = os.sendfile(descriptor, source.fileno(), None, left)
                if not sent:
                    break
                left -= sent
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_sealed() -> bool:
    """Whether this process executes such a copy."""
    descriptor = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:  # Only a file in memory has seals.
        return False
    finally:
        os.close(descriptor)
