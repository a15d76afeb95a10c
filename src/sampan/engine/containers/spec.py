"""From a container's record to its OCI configuration. Pure: what it needs of the world comes as arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from sampan.api.containers import HostConfig, Resources, words
from sampan.engine import descriptors
from sampan.engine.containers import devices, propagation, sharing
from sampan.engine.containers.ownership import Maps
from sampan.engine.containers.record import MountPoint, Record
from sampan.engine.host import cgroup_has, cgroup_version
from sampan.engine.security.confinement import ALL_DEVICES, DEVICE_RULES, confine
from sampan.oci.runtime import (
    CPU,
    Box,
    Capabilities,
    DeviceCgroup,
    Linux,
    LinuxResources,
    Memory,
    Mount,
    Namespace,
    Pids,
    Process,
    Rlimit,
    Root,
    Spec,
    User,
)

OCI_VERSION = "1.0.2"
"""What other runtimes may be of: crun 1.8 refuses a later one, and nothing here needs it."""
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM = 64 << 20
INIT_ANNOTATION = "sampan.init"
_PERIOD = 100_000
_UNLIMITED = (1 << 64) - 1


@dataclass(frozen=True)
class Surroundings:
    """What the record does not say. `root`: the mounted file system. `files`: the directory of hostname, hosts and
    resolv.conf, if it is not the bundle.
    `network`: the network namespace's pin, or empty for the host's. `user`: looked up in the container. `shim`: its
    directory, where the pins of other containers' namespaces are. `id_maps`: of the mounts that have some, by
    destination."""

    root: str
    bundle: str
    cgroup: str
    network: str
    user: User
    cgroup2: bool
    files: str = ""
    shim: str = ""
    id_maps: Mapping[str, Maps] = field(default_factory=dict)


def build_spec(record: Record, around: Surroundings) -> Spec:
    """Raises InvalidArgument for a device that is not there, and what `confine` raises."""
    host, config = record.host_config, record.config
    confinement = confine(
        host.security_opt or (), privileged=host.privileged, add=words(host.cap_add), drop=words(host.cap_drop),
        masked_paths=host.masked_paths, readonly_paths=host.readonly_paths,
    )  # fmt: skip
    names = confinement.capabilities
    # A user that is not root starts without: execve would take permitted ones away, and effective ones must not leak.
    held = names if around.user.uid == 0 else ()
    passed, rules = devices.of(host)
    annotations = dict(host.annotations or {})
    if host.init:
        annotations[INIT_ANNOTATION] = "true"
    return Spec(
        oci_version=OCI_VERSION,
        root=Root(path=around.root, readonly=host.readonly_rootfs),
        hostname="" if host.uts_mode == "host" else hostname(record),
        domainname="" if host.uts_mode == "host" else config.domainname,
        process=Process(
            terminal=config.tty,
            console_size=_box(host.console_size),
            user=around.user,
            args=(*words(config.entrypoint), *words(config.cmd)),
            env=environment(record),
            cwd=config.working_dir or "/",
            capabilities=Capabilities(bounding=names, effective=held, permitted=held),
            rlimits=rlimits(host),
            no_new_privileges=confinement.no_new_privileges,
            oom_score_adj=host.oom_score_adj,
        ),
        mounts=(*_system_mounts(host, around), *_own_mounts(record, around)),
        annotations=annotations,
        linux=Linux(
            namespaces=_namespaces(host, around),
            cgroups_path=around.cgroup,
            resources=_with_devices(resources(host), ALL_DEVICES if host.privileged else (*DEVICE_RULES, *rules)),
            devices=passed,
            masked_paths=confinement.masked_paths,
            readonly_paths=confinement.readonly_paths,
            seccomp=confinement.seccomp,
            sysctl=dict(host.sysctls or {}),
            rootfs_propagation=propagation.of_root(record.mounts),
        ),
    )


def hostname(record: Record) -> str:
    return record.config.hostname or record.id[:12]


def environment(record: Record) -> tuple[str, ...]:
    """What Docker sets, below what the image and the user do."""
    given = record.config.env or ()
    have = {entry.partition("=")[0] for entry in given}
    first = [entry for entry in (DEFAULT_PATH,) if "PATH" not in have]
    if "HOSTNAME" not in have:
        first.append(f"HOSTNAME={hostname(record)}")
    if record.config.tty and "TERM" not in have:
        first.append("TERM=xterm")
    first += [entry for entry in record.linked_env if entry.partition("=")[0] not in have]
    # One without a value unsets it.
    return tuple(entry for entry in (*first, *given) if "=" in entry)


def _box(size: tuple[int, int] | None) -> Box | None:
    return Box(height=size[0], width=size[1]) if size and any(size) else None


def _namespaces(host: HostConfig, around: Surroundings) -> tuple[Namespace, ...]:
    result = [Namespace(type="mount")]
    joined = sharing.namespaces(host, around.shim)
    if around.network:
        result.append(Namespace(type="network", path=around.network))
    if host.uts_mode != "host":
        result.append(Namespace(type="uts"))
    if host.pid_mode != "host":
        result.append(Namespace(type="pid", path=joined.get("pid", "")))
    if host.ipc_mode != "host":
        result.append(Namespace(type="ipc", path=joined.get("ipc", "")))
    if cgroup_namespace_mode(host, around.cgroup2) == "private":
        result.append(Namespace(type="cgroup"))
    return tuple(result)


def cgroup_namespace_mode(host: HostConfig, cgroup2: bool) -> str:
    """`private` or `host`. Docker's default goes by the cgroup version, for privileged containers too."""
    return host.cgroupns_mode or ("private" if cgroup2 else "host")


def _system_mounts(host: HostConfig, around: Surroundings) -> list[Mount]:
    safe = ("nosuid", "noexec", "nodev")
    system = "rw" if host.privileged else "ro"
    mounts = [
        Mount(destination="/proc", type="proc", source="proc", options=safe),
        Mount(
            destination="/dev", type="tmpfs", source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(
            destination="/dev/pts", type="devpts", source="devpts",
            options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=(*safe, system)),
        Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=(*safe, system)),
    ]  # fmt: skip
    if host.ipc_mode == "host":
        mounts.append(Mount(destination="/dev/mqueue", type="bind", source="/dev/mqueue", options=("rbind",)))
        mounts.append(Mount(destination="/dev/shm", type="bind", source="/dev/shm", options=("rbind",)))
        mounts = [each for each in mounts if each.type != "bind" or os.path.isdir(each.source)]
    else:
        mounts.append(Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=safe))
        if shared := sharing.memory(host, around.shim):
            mounts.append(Mount(destination="/dev/shm", type="bind", source=shared, options=("rbind", "rprivate")))
        elif host.ipc_mode != "none":
            size = f"size={host.shm_size or DEFAULT_SHM}"
            mounts.append(Mount(destination="/dev/shm", type="tmpfs", source="shm", options=(*safe, "mode=1777", size)))
    return mounts


def _own_mounts(record: Record, around: Surroundings) -> list[Mount]:
    """The three files that the engine writes, and the user's mounts; what lies deeper is mounted later."""
    taken = {point.destination for point in record.mounts}
    readonly = ("ro",) if record.host_config.readonly_rootfs else ()
    mounts = [
        Mount(
            destination=f"/etc/{name}", type="bind", source=f"{around.files or around.bundle}/{name}",
            options=("rbind", "rprivate", *readonly),
        )
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in taken
    ]  # fmt: skip
    ordered = sorted(record.mounts, key=lambda point: point.destination.count("/"))
    return [*mounts, *(_mount(point, around.id_maps.get(point.destination)) for point in ordered)]


def _mount(point: MountPoint, maps: Maps | None = None) -> Mount:
    if point.type == "tmpfs":
        words_ = ("nosuid", "nodev", "noexec", *point.options, *(() if point.writable else ("ro",)))
        return Mount(destination=point.destination, type="tmpfs", source="tmpfs", options=words_)
    # No "rw", as Docker: any flag that is asked for would take the source's nosuid, nodev and noexec away.
    readonly = "rro" if point.deep_read_only else "ro"
    options = (
        "rbind" if point.recursive else "bind",
        point.propagation or "rprivate",
        *(() if point.writable else (readonly,)),
    )
    mount = Mount(destination=point.destination, type="bind", source=point.source, options=options)
    if maps is None:
        return mount
    return msgspec.structs.replace(
        mount, uid_mappings=maps[0], gid_mappings=maps[1],
        options=(*options, "ridmap" if point.recursive else "idmap"),
    )  # fmt: skip


def rlimits(host: HostConfig) -> tuple[Rlimit, ...]:
    """The container's limits, which its execs have too."""
    asked = tuple(
        Rlimit(
            type=f"RLIMIT_{limit.name.upper()}",
            soft=_UNLIMITED if limit.soft < 0 else limit.soft,
            hard=_UNLIMITED if limit.hard < 0 else limit.hard,
        )
        for limit in host.ulimits or ()
    )
    soft, hard = (_UNLIMITED if each < 0 else each for each in descriptors.GIVEN)
    if soft == hard or any(each.type == "RLIMIT_NOFILE" for each in asked):
        return asked
    return (*asked, Rlimit(type="RLIMIT_NOFILE", soft=soft, hard=hard))


def resources(limits: Resources) -> LinuxResources:
    """The limits in the runtime specification's units; what is not set is left out, and so is, as Docker has it, what
    this machine's cgroups don't have: without accounting of swap, memory alone is limited."""
    first = cgroup_version() == "1"
    # Docker: without a word about swap, as much again as memory.
    swap = limits.memory_swap or (limits.memory * 2 if limits.memory else None)
    memory = Memory(
        limit=limits.memory or None,
        swap=-1 if swap and first and not cgroup_has("memory", "memory.memsw.limit_in_bytes") else swap,
        reservation=limits.memory_reservation or None,
        kernel_tcp=limits.kernel_memory_tcp or None,
        swappiness=limits.memory_swappiness if first and limits.memory_swappiness != -1 else None,
        disable_oom_killer=limits.oom_kill_disable or None if first else None,
    )
    quota, period = limits.cpu_quota or None, limits.cpu_period or None
    if limits.nano_cpus:
        quota, period = limits.nano_cpus * _PERIOD // 10**9, _PERIOD
    cpu = CPU(
        shares=limits.cpu_shares or None, quota=quota, period=period, cpus=limits.cpuset_cpus, mems=limits.cpuset_mems,
        realtime_period=limits.cpu_realtime_period or None, realtime_runtime=limits.cpu_realtime_runtime or None,
    )  # fmt: skip
    return LinuxResources(
        memory=memory if memory != Memory() else None,
        cpu=cpu if cpu != CPU() else None,
        pids=Pids(limit=limits.pids_limit) if limits.pids_limit is not None and limits.pids_limit != 0 else None,
        block_io=devices.block_io(limits),
    )


def _with_devices(limits: LinuxResources, rules: tuple[DeviceCgroup, ...]) -> LinuxResources:
    return msgspec.structs.replace(limits, devices=rules)
