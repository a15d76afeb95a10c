"""What the engine tells of containers: list and inspect. Docker Engine API 1.24 to 1.51."""

from __future__ import annotations

import msgspec

from sampan.api.containers import APIStruct, ContainerConfig, EndpointSettings, HostConfig, Mount, PortBinding

_LEFT_OUT = frozenset({
    "ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal", "StopTimeout", "Shell",
    "Annotations", "Init", "KernelMemory", "KernelMemoryTCP", "Mounts", "StorageOpt", "Sysctls", "Tmpfs",
})  # fmt: skip
"""Members that Docker leaves out of inspect where they say nothing; the others are there in any case."""
_SAYING = frozenset({"Init", "StopTimeout"})
"""Among these, a false or a 0 says something."""


def shown(document: ContainerConfig | HostConfig) -> msgspec.Raw:
    """A configuration as inspect shows it."""
    members = msgspec.to_builtins(document)
    kept = {
        name: value
        for name, value in members.items()
        if value or name not in _LEFT_OUT or (name in _SAYING and value is not None)
    }
    return msgspec.Raw(msgspec.json.encode(kept))


class Port(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    ip: str = msgspec.field(name="IP", default="")
    private_port: int
    public_port: int = 0
    type: str


class SummaryMount(APIStruct, frozen=True, kw_only=True):
    type: str
    name: str | msgspec.UnsetType = msgspec.UNSET
    source: str
    destination: str
    driver: str | msgspec.UnsetType = msgspec.UNSET
    mode: str
    rw: bool = msgspec.field(name="RW")
    propagation: str


class SummaryHostConfig(APIStruct, frozen=True, kw_only=True):
    """`annotations`: API 1.46 and later."""

    network_mode: str
    annotations: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class SummaryNetworks(APIStruct, frozen=True, kw_only=True):
    networks: dict[str, EndpointSettings]


class ContainerSummary(APIStruct, frozen=True, kw_only=True):
    """One line of `GET /containers/json`. `created`: seconds."""

    id: str
    names: tuple[str, ...]
    image: str
    image_id: str = msgspec.field(name="ImageID")
    command: str
    created: int
    ports: tuple[Port, ...]
    size_rw: int | msgspec.UnsetType = msgspec.UNSET
    size_root_fs: int | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, str]
    state: str
    status: str
    host_config: SummaryHostConfig
    network_settings: SummaryNetworks
    mounts: tuple[SummaryMount, ...]


class HealthLog(APIStruct, frozen=True, kw_only=True):
    start: str
    end: str
    exit_code: int
    output: str


class Health(APIStruct, frozen=True, kw_only=True):
    status: str
    failing_streak: int
    log: tuple[HealthLog, ...]


class State(APIStruct, frozen=True, kw_only=True):
    status: str
    running: bool
    paused: bool
    restarting: bool
    oom_killed: bool = msgspec.field(name="OOMKilled")
    dead: bool
    pid: int
    exit_code: int
    error: str
    started_at: str
    finished_at: str
    health: Health | msgspec.UnsetType = msgspec.UNSET


class GraphDriver(APIStruct, frozen=True, kw_only=True):
    data: dict[str, str]
    name: str = "overlay2"


class NetworkSettings(APIStruct, frozen=True, kw_only=True):
    """The members of the default network stand at the top too, for clients of old."""

    bridge: str = ""
    sandbox_id: str = msgspec.field(name="SandboxID", default="")
    sandbox_key: str = ""
    ports: dict[str, tuple[PortBinding, ...] | None]
    hairpin_mode: bool = False
    link_local_ipv6_address: str = msgspec.field(name="LinkLocalIPv6Address", default="")
    link_local_ipv6_prefix_len: int = msgspec.field(name="LinkLocalIPv6PrefixLen", default=0)
    secondary_ip_addresses: None = msgspec.field(name="SecondaryIPAddresses", default=None)
    secondary_ipv6_addresses: None = msgspec.field(name="SecondaryIPv6Addresses", default=None)
    endpoint_id: str = msgspec.field(name="EndpointID", default="")
    gateway: str = ""
    global_ipv6_address: str = msgspec.field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = msgspec.field(name="GlobalIPv6PrefixLen", default=0)
    ip_address: str = msgspec.field(name="IPAddress", default="")
    ip_prefix_len: int = msgspec.field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = msgspec.field(name="IPv6Gateway", default="")
    mac_address: str = ""
    networks: dict[str, EndpointSettings]


class AtNextStart(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """What `update` has changed of a container that runs, and its next start makes true. Not of Docker's document."""

    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    binds: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    tmpfs: dict[str, str] | None = None


class ContainerInspect(APIStruct, frozen=True, kw_only=True):
    """`GET /containers/{id}/json`."""

    id: str
    created: str
    path: str
    args: tuple[str, ...]
    state: State
    image: str
    resolv_conf_path: str
    hostname_path: str
    hosts_path: str
    log_path: str
    name: str
    restart_count: int
    driver: str = "overlay2"
    platform: str = "linux"
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: tuple[str, ...] | None = msgspec.field(name="ExecIDs", default=None)
    host_config: msgspec.Raw
    graph_driver: GraphDriver
    size_rw: int | msgspec.UnsetType = msgspec.UNSET
    size_root_fs: int | msgspec.UnsetType = msgspec.UNSET
    mounts: tuple[SummaryMount, ...]
    config: msgspec.Raw
    network_settings: NetworkSettings
    at_next_start: AtNextStart | msgspec.UnsetType = msgspec.UNSET


class TopResponse(APIStruct, frozen=True, kw_only=True):
    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


class PruneReport(APIStruct, frozen=True, kw_only=True):
    containers_deleted: tuple[str, ...] | None
    space_reclaimed: int
