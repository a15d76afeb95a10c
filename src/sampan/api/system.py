"""The engine about itself on the wire: `/version`, `/info`, `/auth`. Docker Engine API 1.24 to 1.51."""

from __future__ import annotations

import msgspec

from sampan.api.containers import APIStruct


class Platform(APIStruct, frozen=True, kw_only=True):
    name: str = ""


class Component(APIStruct, frozen=True, kw_only=True):
    """One part of the engine, with details by name."""

    name: str
    version: str
    details: dict[str, str]


class Version(APIStruct, frozen=True, kw_only=True):
    """`GET /version`. `go_version` tells what the engine is written in, so here it names Python."""

    platform: Platform
    components: tuple[Component, ...]
    version: str
    api_version: str
    min_api_version: str = msgspec.field(name="MinAPIVersion")
    git_commit: str = ""
    go_version: str
    os: str = "linux"
    arch: str
    kernel_version: str
    build_time: str = ""


class Plugins(APIStruct, frozen=True, kw_only=True):
    volume: tuple[str, ...] = ("local",)
    network: tuple[str, ...] = ("bridge", "host", "null")
    authorization: tuple[str, ...] | None = None
    log: tuple[str, ...] = ("json-file",)


class IndexConfig(APIStruct, frozen=True, kw_only=True):
    mirrors: tuple[str, ...] = ()
    name: str
    official: bool = False
    secure: bool = True


class RegistryConfig(APIStruct, frozen=True, kw_only=True):
    index_configs: dict[str, IndexConfig]
    insecure_registry_cidrs: tuple[str, ...] = msgspec.field(name="InsecureRegistryCIDRs")
    mirrors: tuple[str, ...] | None = None


class Runtime(APIStruct, frozen=True, kw_only=True):
    """A runtime by path; `status` may carry its OCI feature document."""

    path: str = msgspec.field(name="path")
    runtime_args: tuple[str, ...] | msgspec.UnsetType = msgspec.field(name="runtimeArgs", default=msgspec.UNSET)
    status: dict[str, str] | msgspec.UnsetType = msgspec.field(name="status", default=msgspec.UNSET)


class SwarmInfo(APIStruct, frozen=True, kw_only=True):
    """There is no swarm: what Docker tells then."""

    node_id: str = msgspec.field(name="NodeID", default="")
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: None = None


class Commit(APIStruct, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID", default="")


class FirewallInfo(APIStruct, frozen=True, kw_only=True):
    driver: str = "nftables"


class Info(APIStruct, frozen=True, kw_only=True):
    """`GET /info`, with every member that Docker 28 gives for an engine of its own shim and runtime. Bytes."""

    id: str = msgspec.field(name="ID")
    containers: int
    containers_running: int
    containers_paused: int
    containers_stopped: int
    images: int
    driver: str = "overlay2"
    driver_status: tuple[tuple[str, str], ...]
    plugins: Plugins
    memory_limit: bool
    swap_limit: bool
    kernel_memory_tcp: bool = msgspec.field(name="KernelMemoryTCP", default=False)
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_shares: bool = msgspec.field(name="CPUShares")
    cpu_set: bool = msgspec.field(name="CPUSet")
    pids_limit: bool
    ipv4_forwarding: bool = msgspec.field(name="IPv4Forwarding")
    debug: bool
    n_fd: int = msgspec.field(name="NFd")
    oom_kill_disable: bool
    n_goroutines: int = msgspec.field(name="NGoroutines")
    system_time: str
    logging_driver: str
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str
    n_events_listener: int = msgspec.field(name="NEventsListener")
    kernel_version: str
    operating_system: str
    os_version: str = msgspec.field(name="OSVersion")
    os_type: str = msgspec.field(name="OSType", default="linux")
    architecture: str
    index_server_address: str = "https://index.docker.io/v1/"
    registry_config: RegistryConfig
    ncpu: int = msgspec.field(name="NCPU")
    mem_total: int
    generic_resources: None = None
    docker_root_dir: str
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    name: str
    labels: tuple[str, ...] = ()
    experimental_build: bool = False
    server_version: str
    runtimes: dict[str, Runtime]
    default_runtime: str
    swarm: SwarmInfo = SwarmInfo()
    live_restore_enabled: bool = True
    isolation: str = ""
    init_binary: str
    containerd_commit: Commit = Commit()
    runc_commit: Commit = Commit()
    init_commit: Commit = Commit()
    security_options: tuple[str, ...]
    firewall_backend: FirewallInfo = FirewallInfo()
    cdi_spec_dirs: tuple[str, ...] = msgspec.field(name="CDISpecDirs", default=())
    warnings: tuple[str, ...] | None = None


class AuthRequest(APIStruct, frozen=True, kw_only=True):
    """`POST /auth`: members in lower case, as Docker's `AuthConfig` has them."""

    username: str = msgspec.field(name="username", default="")
    password: str = msgspec.field(name="password", default="")
    auth: str = msgspec.field(name="auth", default="")
    email: str = msgspec.field(name="email", default="")
    serveraddress: str = msgspec.field(name="serveraddress", default="")
    identitytoken: str = msgspec.field(name="identitytoken", default="")
    registrytoken: str = msgspec.field(name="registrytoken", default="")


class AuthResponse(APIStruct, frozen=True, kw_only=True):
    identity_token: str = ""
    status: str = "Login Succeeded"
