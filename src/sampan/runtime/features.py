"""What this runtime can do: the document of `features`. runtime-spec features-linux.md"""

from __future__ import annotations

import msgspec

from sampan import __version__
from sampan.linux.capabilities import NAMES
from sampan.linux.namespaces import FLAGS
from sampan.linux.seccomp.profile import ACTIONS, ARCHITECTURES, OPERATORS
from sampan.linux.seccomp.profile import FLAGS as SECCOMP_FLAGS
from sampan.oci.runtime import OCI_VERSION, Hooks, OCIStruct
from sampan.runtime.mounts import OPTIONS


class Enabled(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    enabled: bool


class CgroupFeatures(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    v1: bool = True
    v2: bool = True
    systemd: bool = True
    systemd_user: bool = True
    rdma: bool = True


class SeccompFeatures(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    enabled: bool = True
    actions: tuple[str, ...]
    operators: tuple[str, ...]
    archs: tuple[str, ...]
    known_flags: tuple[str, ...]
    supported_flags: tuple[str, ...]


class MountExtensions(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    idmap: Enabled = Enabled(enabled=True)


class LinuxFeatures(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    namespaces: tuple[str, ...]
    capabilities: tuple[str, ...]
    cgroup: CgroupFeatures
    seccomp: SeccompFeatures
    apparmor: Enabled
    selinux: Enabled
    intel_rdt: Enabled
    mount_extensions: MountExtensions


class Features(OCIStruct, frozen=True, kw_only=True, omit_defaults=False):
    oci_version_min: str
    oci_version_max: str
    hooks: tuple[str, ...]
    mount_options: tuple[str, ...]
    linux: LinuxFeatures
    annotations: dict[str, str]


def features() -> Features:
    """Of this version, whatever this machine's kernel has."""
    flags = tuple(sorted(SECCOMP_FLAGS))
    return Features(
        oci_version_min="1.0.0",
        oci_version_max=OCI_VERSION,
        hooks=tuple(each.encode_name for each in msgspec.structs.fields(Hooks)),
        mount_options=tuple(sorted(OPTIONS)),
        linux=LinuxFeatures(
            namespaces=tuple(sorted(FLAGS)),
            capabilities=NAMES,
            cgroup=CgroupFeatures(),
            seccomp=SeccompFeatures(
                actions=tuple(sorted(ACTIONS)), operators=tuple(sorted(OPERATORS)), archs=tuple(sorted(ARCHITECTURES)),
                known_flags=flags, supported_flags=flags,
            ),
            apparmor=Enabled(enabled=True),
            selinux=Enabled(enabled=True),
            intel_rdt=Enabled(enabled=False),
            mount_extensions=MountExtensions(),
        ),
        annotations={"io.sampan.version": __version__},
    )  # fmt: skip
