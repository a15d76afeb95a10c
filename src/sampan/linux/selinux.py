"""SELinux: security contexts exist where it is enabled only."""

from __future__ import annotations

import os


def enabled() -> bool:
    """Whether the kernel enforces, or would, a policy that is loaded: selinuxfs is mounted then. selinux(8)"""
    return os.path.exists("/sys/fs/selinux/enforce")
