"""Reading and writing a cgroup's files."""

from __future__ import annotations

import errno
import os

_PERMISSION = (errno.EPERM, errno.EACCES, errno.EROFS)


def is_permission(error: OSError) -> bool:
    """Whether it failed for who this process is: a cgroup file system mounted read-only is no different to a user."""
    return error.errno in _PERMISSION


def read(path: str) -> str:
    """The file's text. Raises OSError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def write(path: str, value: str) -> None:
    """Write the value by one call, as the kernel wants it. Raises OSError with the path and a note of the value."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        error.filename = path
        error.add_note(f"writing {value!r}")
        raise
    finally:
        os.close(descriptor)
