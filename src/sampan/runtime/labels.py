"""The security modules' labels of a process: an AppArmor profile, an SELinux context. For its next execve.

They are written early, while the host's /proc is there: what a container's /proc shows may be somebody else's
(CVE-2019-16884), and nothing changes before the execve.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import selinux
from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, is_procfs, openat2
from sampan.oci.runtime import Process
from sampan.runtime.tree import closing

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_UNCONFINED = "unconfined"
_ATTRIBUTES = "/proc/self/attr"


def apply(process: Process) -> None:
    """Raises Unsupported where the kernel's module is not there, InvalidArgument for a label that it does not know."""
    profile, label = process.apparmor_profile, process.selinux_label
    if profile:
        if _apparmor():
            # Since Linux 5.8 each module has files of its own; the old ones are the first module's.
            own = os.path.exists(f"{_ATTRIBUTES}/apparmor/exec")
            _write("apparmor/exec" if own else "exec", f"exec {profile}", f"process.apparmorProfile {profile!r}")
        elif profile != _UNCONFINED:
            raise Unsupported(f"process.apparmorProfile {profile!r}: AppArmor is not enabled in this kernel")
    if label:
        if not selinux.enabled():
            raise Unsupported(f"process.selinuxLabel {label!r}: SELinux is not enabled in this kernel")
        _write("exec", label, f"process.selinuxLabel {label!r}")


def _apparmor() -> bool:
    try:
        with open(_APPARMOR, "rb") as file:
            return file.read(1) == b"Y"
    except OSError:
        return False


def _write(name: str, text: str, what: str) -> None:
    """Only to the kernel's: no link and nothing mounted over it on the way (CVE-2025-52881)."""
    try:
        with closing(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as proc:
            if not is_procfs(proc):
                raise InvalidArgument(f"{what}: /proc is not the kernel's")
            way = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
            with closing(openat2(proc, f"self/attr/{name}", os.O_WRONLY, resolve=way)) as descriptor:
                os.write(descriptor, text.encode())
    except OSError as error:
        raise InvalidArgument(f"{what}: {(error.strerror or '').lower()}") from error
