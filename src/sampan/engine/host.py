"""This host, as `/version` and `/info` tell of it: kernel, system, cgroups, memory. Reads files only."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator

_CGROUPS = "/sys/fs/cgroup"
_SUPER_MAGIC = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "fuse": "fuse", "nfs4": "nfs"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def go_architecture() -> str:
    """The processor's name in Go's words, as images have it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def kernel_version() -> str:
    return os.uname().release


@functools.cache
def operating_system() -> tuple[str, str]:
    """The distribution's pretty name and version id (os-release(5))."""
    values: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    key, _, value = line.strip().partition("=")
                    values[key] = value.strip("\"'")
            break
        except FileNotFoundError:
            continue
    return values.get("PRETTY_NAME", "Linux"), values.get("VERSION_ID", "")


def memory_total() -> int:
    """Bytes of RAM."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int:
    """How many this process has open, but for the one that counts."""
    return len(os.listdir("/proc/self/fd")) - 1


def flag(path: str) -> bool:
    """Whether a sysctl or the like says 1."""
    try:
        with open(path) as file:
            return file.read(1) == "1"
    except OSError:
        return False


def cgroup_version() -> str:
    return "2" if os.path.exists(f"{_CGROUPS}/cgroup.controllers") else "1"


def cgroup_has(controller: str, name: str) -> bool:
    """Whether a controller is there, and (version 1 alone shows it at the root) a file of it."""
    if cgroup_version() == "2":
        with open(f"{_CGROUPS}/cgroup.controllers") as file:
            return controller in file.read().split()
    return os.path.exists(f"{_CGROUPS}/{controller}/{name}" if name else f"{_CGROUPS}/{controller}")


def backing_filesystem(path: str) -> str:
    """The type of the file system that holds `path`, in Docker's words."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for fields in _mounts():
        if fields[2] == wanted:
            kind = fields[fields.index("-") + 1]
            return _SUPER_MAGIC.get(kind, kind)
    return "<unknown>"


def _mounts() -> Iterator[list[str]]:
    with open("/proc/self/mountinfo") as file:
        for line in file:
            yield line.split()


def security_options() -> tuple[str, ...]:
    """What confines a container here by default, as `name=value` lists."""
    options: list[str] = []
    if os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        options.append("name=seccomp,profile=builtin")
    if cgroup_version() == "2":
        options.append("name=cgroupns")
    return tuple(options)
