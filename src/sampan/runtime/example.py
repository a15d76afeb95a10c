"""An example of a configuration: a shell in namespaces of its own. What `sampan-runtime spec` writes."""

from __future__ import annotations

from sampan.oci.runtime import Linux, LinuxResources, Mount, Namespace, Process, Root, Spec

OCI_VERSION = "1.2.0"
_SAFE = ("nosuid", "noexec", "nodev")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

EXAMPLE = Spec(
    oci_version=OCI_VERSION,
    root=Root(path="rootfs", readonly=True),
    hostname="sampan",
    process=Process(cwd="/", args=("sh",), env=("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm")),
    mounts=(
        Mount(destination="/proc", type="proc", source="proc", options=_SAFE),
        Mount(destination="/dev", type="tmpfs", source="tmpfs", options=("nosuid", "mode=755", "size=65536k")),
        Mount(
            destination="/dev/pts", type="devpts", source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount(destination="/dev/shm", type="tmpfs", source="shm", options=(*_SAFE, "mode=1777", "size=65536k")),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=(*_SAFE, "ro")),
    ),
    linux=Linux(namespaces=tuple(Namespace(type=kind) for kind in _NAMESPACES), resources=LinuxResources()),
)  # fmt: skip
