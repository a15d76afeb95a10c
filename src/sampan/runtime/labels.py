"""The security modules' labels of a process: an AppArmor profile, an SELinux context. For its next execve.

They are written early, while the host's /proc is there: what a container's /proc shows may be somebody else's
(CVE-2019-16884), and nothing changes before the execve.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import selinux
from sampan.linux.fs import is_procfs
from sampan.oci.runtime import Process

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_UNCONFINED = "unconfined"
_ATTRIBUTES = "/proc/self/attr"


def apply(process: Process) -> None:
    """Raises Unsupported where the kernel's module is not there, InvalidArgument for a label that it does not know."""
    profile, label = process.apparmor_profile, process.selinux_label
    if profile:
        if _apparmor():
            # Since Linux 5.8 each module has files of its own; the old ones are the first module's.
            own = f"{_ATTRIBUTES}/apparmor/exec"
            path = own if os.path.exists(own) else f"{_ATTRIBUTES}/exec"
            _write(path, f"exec {profile}", f"process.apparmorProfile {profile!r}")
        elif profile != _UNCONFINED:
            raise Unsupported(f"process.apparmorProfile {profile!r}: AppArmor is not enabled in this kernel")
    if label:
        if not selinux.enabled():
            raise Unsupported(f"process.selinuxLabel {label!r}: SELinux is not enabled in this kernel")
        _write(f"{_ATTRIBUTES}/exec", label, f"process.selinuxLabel {label!r}")


def _apparmor() -> bool:
    try:
        with open(_APPARMOR, "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def _write(path: str, text: str, what: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not is_procfs(descriptor):
                raise InvalidArgument(f"{what}: {path} is not the kernel's")
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidArgument(f"{what}: {(error.strerror or '').lower()}") from error
