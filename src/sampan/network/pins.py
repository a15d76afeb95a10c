"""Pins: files that keep a network namespace alive by a bind mount. The spawner makes them, this removes them."""

from __future__ import annotations

import errno
import os

from sampan.linux.mount import MNT_DETACH, umount


def unpin(path: str) -> None:
    """Unmount all that is mounted there and remove the file; no error if it is gone. The namespace ends when the last
    process and the last descriptor in it do. Raises OSError."""
    while True:
        try:
            umount(path, MNT_DETACH)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.EINVAL:  # Not a mount point (any more).
                break
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
