"""The OCI runtime specification (1.0 to 1.3) as types: `config.json` and the runtime's `state`.

Follows opencontainers/runtime-spec `config.md`, `config-linux.md` and `runtime.md`. Unknown members are ignored,
as the specification asks; members are validated by type when decoded. JSON names are lower camel case.
"""

from typing import Literal, NewType

import msgspec

OCI_VERSION = "1.3.0"
"""The newest that is known; all of 1.x is taken."""

ContainerID = NewType("ContainerID", str)


class OCIStruct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Immutable, camelCase on the wire; members at their default are not written.

    `frozen` and `kw_only` are repeated on each class: type checkers and msgspec do not inherit them.
    """


class Root(OCIStruct, frozen=True, kw_only=True):
    path: str
    readonly: bool = False


class Box(OCIStruct, frozen=True, kw_only=True):
    height: int
    width: int


class User(OCIStruct, frozen=True, kw_only=True):
    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str = ""


class Rlimit(OCIStruct, frozen=True, kw_only=True):
    """`type` as in `RLIMIT_NOFILE`; the limits are numbers (RLIM_INFINITY is 2**64 - 1)."""

    type: str
    soft: int
    hard: int


class Capabilities(OCIStruct, frozen=True, kw_only=True):
    """The five sets, of names such as `CAP_CHOWN`."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Scheduler(OCIStruct, frozen=True, kw_only=True):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IOPriority(OCIStruct, frozen=True, kw_only=True):
    class_: str = msgspec.field(name="class")
    priority: int = 0


class ExecCPUAffinity(OCIStruct, frozen=True, kw_only=True):
    initial: str = ""
    final: str = ""


class Process(OCIStruct, frozen=True, kw_only=True):
    cwd: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    selinux_label: str = ""
    io_priority: IOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = msgspec.field(name="execCPUAffinity", default=None)


class IDMapping(OCIStruct, frozen=True, kw_only=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(OCIStruct, frozen=True, kw_only=True):
    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Hook(OCIStruct, frozen=True, kw_only=True):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(OCIStruct, frozen=True, kw_only=True):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(OCIStruct, frozen=True, kw_only=True):
    """`type` is one of pid, network, mount, ipc, uts, user, cgroup, time; `path` names one to join."""

    type: str
    path: str = ""


class Device(OCIStruct, frozen=True, kw_only=True):
    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceCgroup(OCIStruct, frozen=True, kw_only=True):
    """`access`: of r, w and m; empty: all. No default of "rwm", as defaults are not written and runc wants it."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(OCIStruct, frozen=True, kw_only=True):
    """Bytes; -1: unlimited."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(name="kernelTCP", default=None)
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(name="disableOOMKiller", default=None)
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CPU(OCIStruct, frozen=True, kw_only=True):
    """Quota, period and burst in microseconds; cpus and mems as lists such as `0-2,4`."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(OCIStruct, frozen=True, kw_only=True):
    """-1: unlimited; None leaves what is there."""

    limit: int | None = None


class WeightDevice(OCIStruct, frozen=True, kw_only=True):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(OCIStruct, frozen=True, kw_only=True):
    major: int
    minor: int
    rate: int


class BlockIO(OCIStruct, frozen=True, kw_only=True):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(name="throttleReadIOPSDevice", default=())
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(name="throttleWriteIOPSDevice", default=())


class HugepageLimit(OCIStruct, frozen=True, kw_only=True):
    page_size: str
    limit: int


class NetworkPriority(OCIStruct, frozen=True, kw_only=True):
    name: str
    priority: int


class NetworkResources(OCIStruct, frozen=True, kw_only=True):
    class_id: int | None = msgspec.field(name="classID", default=None)
    priorities: tuple[NetworkPriority, ...] = ()


class RdmaLimit(OCIStruct, frozen=True, kw_only=True):
    hca_handles: int | None = None
    hca_objects: int | None = None


class LinuxResources(OCIStruct, frozen=True, kw_only=True):
    """Everything a cgroup limits. `unified` is written to cgroup v2 as it is."""

    devices: tuple[DeviceCgroup, ...] = ()
    memory: Memory | None = None
    cpu: CPU | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = msgspec.field(name="blockIO", default=None)
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkResources | None = None
    rdma: dict[str, RdmaLimit] = {}
    unified: dict[str, str] = {}


class SyscallArg(OCIStruct, frozen=True, kw_only=True):
    index: int
    value: int
    value_two: int = 0
    op: str


class Syscall(OCIStruct, frozen=True, kw_only=True):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArg, ...] = ()


class Seccomp(OCIStruct, frozen=True, kw_only=True):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Syscall, ...] = ()


class TimeOffset(OCIStruct, frozen=True, kw_only=True):
    secs: int = 0
    nanosecs: int = 0


class IntelRdt(OCIStruct, frozen=True, kw_only=True):
    clos_id: str = msgspec.field(name="closID", default="")
    l3_cache_schema: str = msgspec.field(name="l3CacheSchema", default="")
    mem_bw_schema: str = ""


class Personality(OCIStruct, frozen=True, kw_only=True):
    domain: str
    flags: tuple[str, ...] = ()


class Linux(OCIStruct, frozen=True, kw_only=True):
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    time_offsets: dict[str, TimeOffset] = {}
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: LinuxResources | None = None
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = {}
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None


class Spec(OCIStruct, frozen=True, kw_only=True):
    """A bundle's `config.json`."""

    oci_version: str
    root: Root | None = None
    process: Process | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None


class State(OCIStruct, frozen=True, kw_only=True):
    """What `state` prints and hooks read on standard input."""

    oci_version: str
    id: str
    status: Literal["creating", "created", "running", "stopped", "paused"]
    pid: int = 0
    bundle: str
    annotations: dict[str, str] = {}


class ContainerProcessState(OCIStruct, frozen=True, kw_only=True):
    """What a seccomp agent is told of a process, along with the descriptors that `fds` names."""

    oci_version: str
    fds: tuple[str, ...]
    pid: int
    metadata: str = ""
    state: State
