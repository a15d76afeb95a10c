"""What a create request may ask for. Each field of Docker's is honoured, or refused here by name, in one place."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import msgspec

from sampan.api.containers import ContainerConfig, CreateRequest, Empty, HostConfig, PortBinding, Resources, words
from sampan.engine import runtimes
from sampan.engine.config import Config
from sampan.engine.containers.signals import parse_signal
from sampan.engine.security.confinement import confine
from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.process import RLIMITS
from sampan.network.endpoints import PortRequest
from sampan.network.files import parse_extra_host
from sampan.oci.image import RunConfig

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MIN_MEMORY = 6 << 20
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(\w+))?")
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
_LOG_OPTIONS = ("max-size", "max-file", "mode", "compress", "labels", "labels-regex", "env", "env-regex", "tag")
_LOG_OPTIONS_WITHOUT_EFFECT = ("compress", "labels", "labels-regex", "env", "env-regex", "tag")


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
        *(entry for entry in image.env or () if entry.partition("=")[0] not in own),
        *(entry for entry in config.env or () if "=" in entry),
    )
    exposed = {**{name: Empty() for name in image.exposed_ports or {}}, **(config.exposed_ports or {})}
    volumes = {**{name: Empty() for name in image.volumes or {}}, **(config.volumes or {})}
    return msgspec.structs.replace(
        config,
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        env=env,
        exposed_ports=exposed or None,
        volumes=volumes or None,
        working_dir=config.working_dir or image.working_dir,
        user=config.user or image.user,
        labels={**(image.labels or {}), **(config.labels or {})},
        stop_signal=config.stop_signal or image.stop_signal,
    )


def check(request: CreateRequest) -> None:
    """Raises InvalidArgument for nonsense, Unsupported for what is not done yet."""
    _check_config(request)
    host = request.host_config or HostConfig()
    _refuse(host)
    check_resources(host)
    if host.restart_policy.name not in _RESTART_POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{host.restart_policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if host.restart_policy.maximum_retry_count and host.restart_policy.name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )  # fmt: skip
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if host.log_config.type not in ("", "json-file", "none"):
        raise Unsupported(f"logger: no log driver named '{host.log_config.type}' is registered")
    for option in host.log_config.config or {}:
        if option not in _LOG_OPTIONS:
            raise InvalidArgument(f"unknown log opt '{option}' for json-file log driver")
        if option in _LOG_OPTIONS_WITHOUT_EFFECT:
            raise Unsupported(f"log option {option} is not supported")
    for entry in host.extra_hosts or ():
        parse_extra_host(entry)
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
    if config.healthcheck is not None and words(config.healthcheck.test)[:1] not in ((), ("NONE",)):
        raise Unsupported("health checks are not supported yet")
    if len(config.hostname) > 63:
        raise InvalidArgument(f"invalid hostname: {config.hostname}")


def _refuse(host: HostConfig) -> None:
    """What this version does not do, by its command line name."""
    for given, name in (
        (host.volumes_from, "--volumes-from"), (host.links, "--link"), (host.device_requests, "--gpus"),
        (host.storage_opt, "--storage-opt"), (host.device_cgroup_rules, "--device-cgroup-rule"),
        (host.cgroup_parent, "--cgroup-parent"), (host.userns_mode not in ("", "host"), "--userns"),
        (host.cpu_realtime_period or host.cpu_realtime_runtime, "--cpu-rt-period and --cpu-rt-runtime"),
        (host.isolation not in ("", "default"), "--isolation"),
        (host.blkio_weight_device, "--blkio-weight-device"), (host.blkio_device_read_bps, "--device-read-bps"),
        (host.blkio_device_write_bps, "--device-write-bps"), (host.blkio_device_read_iops, "--device-read-iops"),
        (host.blkio_device_write_iops, "--device-write-iops"), (host.kernel_memory_tcp, "--kernel-memory-tcp"),
        (host.volume_driver not in ("", "local"), f"--volume-driver {host.volume_driver}"),
        (host.cgroup, "Cgroup"), (host.pid_mode not in ("", "host", "private"), f"--pid {host.pid_mode}"),
        (host.ipc_mode not in ("", "host", "private", "none", "shareable"), f"--ipc {host.ipc_mode}"),
        (host.uts_mode not in ("", "host"), f"--uts {host.uts_mode}"),
        (host.cgroupns_mode not in ("", "host", "private"), f"--cgroupns {host.cgroupns_mode}"),
        (host.cpu_count or host.cpu_percent or host.io_maximum_iops or host.io_maximum_bandwidth, "Windows limits"),
    ):  # fmt: skip
        if given:
            raise Unsupported(f"{name} is not supported yet")
    mode = host.network_mode
    if mode.startswith("container:"):
        raise Unsupported("--network container: is not supported yet")


def check_runtime(host: HostConfig, config: Config) -> str:
    """The runtime's name. Raises InvalidArgument for one that nobody knows, Unsupported for what only ours does."""
    name = runtimes.resolve(config, host.runtime)
    if host.init and runtimes.is_foreign(config, name):
        raise Unsupported(f"--init is not supported with --runtime {name}")
    return name


def check_resources(limits: Resources) -> None:
    """Raises InvalidArgument in Docker's words."""
    if limits.memory and limits.memory < _MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if limits.memory < 0 or limits.nano_cpus < 0:
        raise InvalidArgument("limits must not be negative")
    if limits.memory_swap > 0 and not limits.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory and 0 < limits.memory_swap < limits.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory and limits.memory_reservation > limits.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise InvalidArgument(
            f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100"
        )  # fmt: skip
    if limits.nano_cpus and (limits.cpu_period or limits.cpu_quota):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    available = os.cpu_count() or 1
    if limits.nano_cpus > available * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available"
        )  # fmt: skip


def parse_port(text: str) -> tuple[int, int, str]:
    """`80`, `80/udp` or `80-90/tcp`: first, last and protocol. Raises InvalidArgument."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    first = int(match[1])
    last = int(match[2] or first)
    protocol = (match[3] or "tcp").lower()
    if not 0 < first <= last <= 65535 or protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    if protocol == "sctp":
        raise Unsupported("publishing sctp ports is not supported")
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
            if each.host_port and each.host_port != "0":
                first, last, _ = parse_port(each.host_port)
            result.append(
                PortRequest(
                    container_port=port, protocol=protocol, host_ip=each.host_ip, host_port_first=first,
                    host_port_last=last,
                )
            )  # fmt: skip
    return result
