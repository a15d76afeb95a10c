"""An example of a configuration: a shell in namespaces of its own. What `sampan-runtime spec` writes."""

from __future__ import annotations

import msgspec

from sampan.oci.runtime import (
    OCI_VERSION,
    Capabilities,
    DeviceCgroup,
    IDMapping,
    Linux,
    LinuxResources,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    Spec,
)

_SAFE = ("nosuid", "noexec", "nodev")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_SYS = Mount(destination="/sys", type="sysfs", source="sysfs", options=(*_SAFE, "ro"))

EXAMPLE = Spec(
    oci_version=OCI_VERSION,
    root=Root(path="rootfs", readonly=True),
    hostname="sampan",
    process=Process(
        terminal=True, cwd="/", args=("sh",), env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=xterm"), no_new_privileges=True, rlimits=(Rlimit(type="RLIMIT_NOFILE", hard=1024, soft=1024),),
        capabilities=Capabilities(bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES),
    ),
    mounts=(
        Mount(destination="/proc", type="proc", source="proc"),
        Mount(
            destination="/dev", type="tmpfs", source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(
            destination="/dev/pts", type="devpts", source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount(destination="/dev/shm", type="tmpfs", source="shm", options=(*_SAFE, "mode=1777", "size=65536k")),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=_SAFE),
        _SYS,
        Mount(
            destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*_SAFE, "relatime", "ro")
        ),
    ),
    linux=Linux(
        namespaces=tuple(Namespace(type=kind) for kind in _NAMESPACES),
        resources=LinuxResources(devices=(DeviceCgroup(allow=False, access="rwm"),)),
        masked_paths=(
            "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
            "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
        ),
        readonly_paths=("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
    ),
)  # fmt: skip


def example(rootless: bool, uid: int, gid: int) -> Spec:
    """The example; with `rootless`, as an ordinary user with these ids can run it: mapped to root in a user namespace,
    in the host's network, without limits."""
    if not rootless:
        return EXAMPLE
    linux = EXAMPLE.linux
    assert linux is not None
    kinds = [each for each in linux.namespaces if each.type != "network"]
    mounts = []
    for mount in EXAMPLE.mounts:
        if mount == _SYS:
            # sysfs belongs to the network namespace's user namespace.
            mount = Mount(destination="/sys", type="none", source="/sys", options=("rbind", *_SAFE, "ro"))
        elif mount.destination == "/sys/fs/cgroup":
            continue
        mounts.append(msgspec.structs.replace(mount, options=tuple(each for each in mount.options if each != "gid=5")))
    return msgspec.structs.replace(
        EXAMPLE,
        mounts=tuple(mounts),
        linux=msgspec.structs.replace(
            linux,
            namespaces=(*kinds, Namespace(type="user")),
            resources=None,
            uid_mappings=(IDMapping(container_id=0, host_id=uid, size=1),),
            gid_mappings=(IDMapping(container_id=0, host_id=gid, size=1),),
        ),
    )
