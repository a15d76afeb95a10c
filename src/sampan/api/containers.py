"""Containers on the wire: what a client sends to create and change them.

Follows the Docker Engine API 1.24 to 1.51 (`ContainerConfig`, `HostConfig`, `NetworkingConfig`). Every field
of Docker's is here, so that none can be dropped unseen: `engine/containers/accept.py` refuses by name what is not
honoured. Go encodes an absent list or map as `null`, so each may be None. Members unknown to Docker are ignored, as
Docker does. The documents that the engine sends are in `container_documents`.
"""

from __future__ import annotations

import msgspec


class APIStruct(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Immutable; Pascal case on the wire."""


class Empty(msgspec.Struct, frozen=True):
    """The `{}` of Go's `map[string]struct{}`."""


# --- What runs --------------------------------------------------------------------------------------


class HealthConfig(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """Times in nanoseconds. `test` begins with NONE, CMD or CMD-SHELL; empty: the image's."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(APIStruct, frozen=True, kw_only=True):
    """What is the same on every machine: the command, its environment and its user."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Empty] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Empty] | None = None
    working_dir: str = ""
    entrypoint: tuple[str, ...] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: tuple[str, ...] | None = None


def words(value: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """A Go `StrSlice`: a list, or one string that stands for a list of one."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


# --- Where and how it runs ---------------------------------------------------------------------------


class LogConfig(APIStruct, frozen=True, kw_only=True):
    """The log driver and its options; no type: the engine's default."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(APIStruct, frozen=True, kw_only=True):
    """`no`, `always`, `unless-stopped` or `on-failure`; the count is for the last alone."""

    name: str = ""
    maximum_retry_count: int = 0


class PortBinding(APIStruct, frozen=True, kw_only=True):
    """A host address and port (or range `8000-8010`); no port: any free one."""

    host_ip: str = ""
    host_port: str = ""


class WeightDevice(APIStruct, frozen=True, kw_only=True):
    path: str
    weight: int = 0


class ThrottleDevice(APIStruct, frozen=True, kw_only=True):
    """`rate` in bytes or operations a second."""

    path: str
    rate: int = 0


class DeviceMapping(APIStruct, frozen=True, kw_only=True):
    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(APIStruct, frozen=True, kw_only=True):
    """What `--gpus` and CDI device names ask for."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] | None = msgspec.field(name="DeviceIDs", default=None)
    capabilities: tuple[tuple[str, ...], ...] | None = None
    options: dict[str, str] | None = None


class Ulimit(APIStruct, frozen=True, kw_only=True):
    """A limit by setrlimit's name in lower case (`nofile`); -1: none."""

    name: str
    hard: int = 0
    soft: int = 0


class IDMapping(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """Whose a bind mount's files are in the container (API 1.56). `source`: match-user, the container's user, or `user`
    as of `--user`; or userns, by its user namespace."""

    source: str = ""
    user: str = ""


class BindOptions(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    id_mapping: IDMapping | None = msgspec.field(name="IDMapping", default=None)


class VolumeDriverConfig(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] | None = None
    subpath: str = ""
    driver_config: VolumeDriverConfig | None = None


class ImageOptions(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    subpath: str = ""


class TmpfsOptions(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """`mode` is the directory's permission bits as a number. `options`: words, or pairs of a name and its value."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] | None = None


class Mount(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """One `--mount`. `type` is bind, volume, tmpfs, image, cluster or npipe."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: Empty | None = None


class Resources(APIStruct, frozen=True, kw_only=True):
    """What a cgroup limits. Bytes; `nano_cpus` in 10⁻⁹ CPUs; periods and quotas in microseconds; 0: not set."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(
        name="BlkioDeviceWriteIOps", default=None
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: tuple[DeviceMapping, ...] | None = None
    device_cgroup_rules: tuple[str, ...] | None = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(name="KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: tuple[Ulimit, ...] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = msgspec.field(name="IOMaximumBandwidth", default=0)


class HostConfig(Resources, frozen=True, kw_only=True):
    """What depends on this machine: mounts, networks, ports, limits, security."""

    binds: tuple[str, ...] | None = None
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: tuple[str, ...] | None = None
    console_size: tuple[int, int] | None = (0, 0)
    annotations: dict[str, str] | None = None
    cap_add: tuple[str, ...] | str | None = None
    cap_drop: tuple[str, ...] | str | None = None
    cgroupns_mode: str = ""
    dns: tuple[str, ...] | None = None
    dns_options: tuple[str, ...] | None = None
    dns_search: tuple[str, ...] | None = None
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: tuple[str, ...] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: tuple[str, ...] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    mounts: tuple[Mount, ...] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    init: bool | None = None


# --- Networks ---------------------------------------------------------------------------------------


class EndpointIPAMConfig(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] | None = msgspec.field(name="LinkLocalIPs", default=None)


class EndpointSettings(APIStruct, frozen=True, kw_only=True):
    """A container's place on one network: the first six are asked for, the rest is what came of it."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(name="IPAMConfig", default=None)
    links: tuple[str, ...] | None = None
    aliases: tuple[str, ...] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = msgspec.field(name="NetworkID", default="")
    endpoint_id: str = msgspec.field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = msgspec.field(name="IPAddress", default="")
    ip_prefix_len: int = msgspec.field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = msgspec.field(name="IPv6Gateway", default="")
    global_ipv6_address: str = msgspec.field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = msgspec.field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: tuple[str, ...] | None = msgspec.field(name="DNSNames", default=None)


class NetworkingConfig(APIStruct, frozen=True, kw_only=True):
    """By network name or id."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


# --- Requests ---------------------------------------------------------------------------------------


class CreateRequest(ContainerConfig, frozen=True, kw_only=True):
    """`POST /containers/create`: the configuration's members at the top, the two others inside."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class CreateResponse(APIStruct, frozen=True, kw_only=True):
    id: str
    warnings: tuple[str, ...] = ()


class UpdateRequest(Resources, frozen=True, kw_only=True):
    """`POST /containers/{id}/update`. Docker's clients send limits and the policy; None of the rest: it stays as it is.
    Each of the rest is the whole, not what is added."""

    restart_policy: RestartPolicy | None = None
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    publish_all_ports: bool | None = None
    labels: dict[str, str] | None = None
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | str | None = None
    entrypoint: tuple[str, ...] | str | None = None
    binds: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    tmpfs: dict[str, str] | None = None


class UpdateResponse(APIStruct, frozen=True, kw_only=True):
    warnings: tuple[str, ...] | None = None


class WaitError(APIStruct, frozen=True, kw_only=True):
    message: str


class WaitResponse(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    status_code: int
    error: WaitError | None = None
