"""What a create request may ask for. Each field of Docker's is honoured, or refused here by name, in one place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

import msgspec

from sampan.api.containers import (
    ContainerConfig,
    CreateRequest,
    Empty,
    HostConfig,
    PortBinding,
    RestartPolicy,
    words,
)
from sampan.engine import runtimes
from sampan.engine.config import Config
from sampan.engine.containers import health, links
from sampan.engine.containers.devices import parse_rule
from sampan.engine.containers.limits import check_resources
from sampan.engine.containers.signals import parse_signal
from sampan.engine.security.confinement import confine
from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.process import RLIMITS
from sampan.network.endpoints import PortRequest
from sampan.network.files import parse_extra_host
from sampan.oci.image import RunConfig

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(\w+))?")
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


def check_name(name: str) -> str:
    """A container's name without the slash before it. Raises InvalidArgument."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )  # fmt: skip
    return name.removeprefix("/")


def merged(config: ContainerConfig, image: RunConfig) -> ContainerConfig:
    """The request's configuration with the image's where it says nothing. Raises InvalidArgument without a command."""
    entrypoint, cmd = words(config.entrypoint), words(config.cmd)
    # An entry point of one's own does not get the image's arguments; `--entrypoint ""` arrives as an empty word.
    if not entrypoint:
        if not cmd:
            cmd = image.cmd or ()
        if config.entrypoint is None:
            entrypoint = image.entrypoint or ()
    entrypoint = () if entrypoint == ("",) else entrypoint
    if not entrypoint and not cmd:
        raise InvalidArgument("no command specified")
    own = {entry.partition("=")[0] for entry in config.env or ()}
    env = (
        *(entry for entry in config.env or () if "=" in entry),
        *(entry for entry in image.env or () if entry.partition("=")[0] not in own),
    )
    exposed = {**{name: Empty() for name in image.exposed_ports or {}}, **(config.exposed_ports or {})}
    volumes = {**{name: Empty() for name in image.volumes or {}}, **(config.volumes or {})}
    return msgspec.structs.replace(
        config,
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        env=env or None,
        exposed_ports=exposed or None,
        volumes=volumes or None,
        working_dir=config.working_dir or image.working_dir,
        user=config.user or image.user,
        labels={**(image.labels or {}), **(config.labels or {})},
        stop_signal=config.stop_signal or image.stop_signal,
        healthcheck=health.merged(config.healthcheck, image.healthcheck),
    )


def check(request: CreateRequest) -> None:
    """Raises InvalidArgument for nonsense, Unsupported for what is not done yet."""
    if request == CreateRequest():
        raise InvalidArgument("config cannot be empty in order to create a container")
    if not request.image:
        raise InvalidArgument("invalid reference format")
    _check_config(request)
    host = request.host_config or HostConfig()
    health.check(request.healthcheck, host.annotations or {})
    _check_modes(request, host)
    _refuse(host)
    check_resources(host)
    check_restart_policy(host.restart_policy)
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for device in host.devices or ():
        if set(device.cgroup_permissions) - set("rwm"):
            raise InvalidArgument(f"invalid device mode: {device.cgroup_permissions}")
    for rule in host.device_cgroup_rules or ():
        parse_rule(rule)
    if ".." in host.cgroup_parent.split("/") or any(not each.isprintable() for each in host.cgroup_parent):
        raise InvalidArgument(f"invalid cgroup parent: {host.cgroup_parent}")
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    for server in host.dns or ():
        try:
            ip_address(server)
        except ValueError:
            raise InvalidArgument(f"bad nameserver address {server}: not an IP address") from None
    for entry in host.extra_hosts or ():
        parse_extra_host(entry)
    for entry in host.links or ():
        links.parse(entry)
    if "" in (host.annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    confine(
        host.security_opt or (), privileged=host.privileged, add=words(host.cap_add), drop=words(host.cap_drop)
    )  # fmt: skip
    for limit in host.ulimits or ():
        if f"RLIMIT_{limit.name.upper()}" not in RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
    port_requests(host, request.exposed_ports or {})


def check_restart_policy(policy: RestartPolicy | None) -> None:
    """Raises InvalidArgument."""
    if policy is None:
        return
    if policy.name not in _RESTART_POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")


def _check_modes(config: ContainerConfig, host: HostConfig) -> None:
    """Whose namespaces; nonsense, as opposed to what `_refuse` knows and does not do."""
    for given, modes, name in (
        (host.pid_mode, ("", "host"), "PID"), (host.uts_mode, ("", "host"), "UTS"),
        (host.ipc_mode, ("", "host", "private", "none", "shareable"), "IPC"),
        (host.cgroupns_mode, ("", "host", "private"), "cgroup namespace"),
        (host.userns_mode, ("", "host"), "user namespace"),
    ):  # fmt: skip
        other = given.removeprefix("container:") if given.startswith("container:") and name in ("PID", "IPC") else ""
        if given not in modes and not other:
            raise InvalidArgument(f"invalid {name} mode: {given}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.network_mode == "host" and host.links:
        raise InvalidArgument(
            "conflicting options: host type networking can't be used with links. This would result in undefined "
            "behavior"
        )


def _check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    for entry in config.env or ():
        if not entry.partition("=")[0]:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument(f"invalid stop timeout: {config.stop_timeout}")
    if len(config.hostname) > 63:
        raise InvalidArgument(f"invalid hostname: {config.hostname}")


def _refuse(host: HostConfig) -> None:
    """What this version does not do, by its command line name; and what Docker does not do on Linux."""
    if host.cgroup:
        raise Unsupported("Cgroup is not supported yet")
    for option in host.storage_opt or {}:
        if option.lower() != "size":
            raise InvalidArgument(f"Unknown option {option}")
        raise InvalidArgument("--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    if host.isolation.lower() not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    for limit, what in ((host.io_maximum_iops, "IOPs"), (host.io_maximum_bandwidth, "bandwidth")):
        if limit:
            raise InvalidArgument(f"invalid option: QoS maximum {what} configuration is not supported on linux")


def check_runtime(host: HostConfig, config: Config) -> str:
    """The runtime's name. Raises InvalidArgument for one that nobody knows, Unsupported for what only ours does."""
    name = runtimes.resolve(config, host.runtime)
    if runtimes.is_foreign(config, name):
        if host.init:
            raise Unsupported(f"--init is not supported with --runtime {name}")
        # Older ones than runc 1.2 would mount them without a word, as if nothing had been asked for.
        if any(each.bind_options is not None and each.bind_options.id_mapping for each in host.mounts or ()) or any(
            "idmap" in each.rpartition(":")[2].split(",") for each in host.binds or ()
        ):
            raise Unsupported(f"mapping a mount's ids is not supported with --runtime {name}")
    return name


def parse_port(text: str) -> tuple[int, int, str]:
    """`80`, `80/udp` or `80-90/tcp`: first, last and protocol. Raises InvalidArgument."""
    match = _PORT.fullmatch(text)
    bad = InvalidArgument(f'invalid port specification: "{text.partition("/")[0]}"')
    if match is None:
        raise bad
    first = int(match[1])
    last = int(match[2] or first)
    protocol = (match[3] or "tcp").lower()
    if not 0 < first <= last <= 65535:
        raise bad
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid protocol: {protocol}")
    return first, last, protocol


def port_requests(host: HostConfig, exposed: dict[str, Empty]) -> list[PortRequest]:
    """The ports to publish; with `publish_all_ports` every exposed one too. Raises InvalidArgument."""
    result: list[PortRequest] = []
    bindings: dict[str, Sequence[PortBinding]] = {
        name: each or (PortBinding(),) for name, each in (host.port_bindings or {}).items()
    }
    if host.publish_all_ports:
        for name in exposed:
            first, last, protocol = parse_port(name)
            for port in range(first, last + 1):
                bindings.setdefault(f"{port}/{protocol}", (PortBinding(),))
    for name, wanted in bindings.items():
        port, _, protocol = parse_port(name)
        for each in wanted:
            first = last = 0
            if each.host_ip:
                _check_address(each.host_ip)
            if each.host_port and each.host_port != "0":
                first, last, _ = parse_port(each.host_port)
            result.append(
                PortRequest(
                    container_port=port, protocol=protocol, host_ip=each.host_ip, host_port_first=first,
                    host_port_last=last,
                )
            )  # fmt: skip
    return result


def _check_address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid host address: {text}") from None
