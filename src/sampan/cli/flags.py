"""The flags of `run` and `create`, and the document that they make."""

from __future__ import annotations

import argparse
import os
import re

from sampan.cli.arguments import Parser
from sampan.cli.durations import parse_duration
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """`64m` in bytes; `-1` as it is. Raises InvalidArgument."""
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * 1024 ** _UNITS[match[2].lower()])


def add_container_flags(parser: Parser) -> None:
    """What `run` and `create` have in common."""
    add = parser.add_argument
    for names, text in (
        (("-e", "--env"), "set an environment variable: NAME=VALUE, or NAME for the value here"),
        (("--env-file",), "read environment variables from a file"),
        (("-v", "--volume"), "mount a volume or a directory: [SOURCE:]TARGET[:OPTIONS]"),
        (("--mount",), "mount, in words: type=bind,source=/a,target=/b,readonly"),
        (("--tmpfs",), "mount a tmpfs: TARGET[:OPTIONS]"),
        (("-p", "--publish"), "publish a port: [[ADDRESS:]HOSTPORT:]PORT[/PROTOCOL]"),
        (("--expose",), "expose a port"),
        (("-l", "--label"), "set a label: NAME[=VALUE]"),
        (("--label-file",), "read labels from a file"),
        (("--cap-add",), "add a capability"),
        (("--cap-drop",), "drop a capability"),
        (("--security-opt",), "security option"),
        (("--ulimit",), "resource limit: NAME=SOFT[:HARD]"),
        (("--sysctl",), "kernel parameter: NAME=VALUE"),
        (("--add-host",), "a line for /etc/hosts: NAME:ADDRESS"),
        (("--dns",), "name server"),
        (("--dns-search",), "search domain"),
        (("--dns-option",), "resolver option"),
        (("--device",), "a device of the host: PATH[:PATH[:rwm]]"),
        (("--group-add",), "an additional group"),
        (("--log-opt",), "log option: NAME=VALUE"),
        (("--annotation",), "annotation: NAME=VALUE"),
        (("--network-alias",), "one more name on a network of one's own"),
        (("--volumes-from",), "mount what another container has mounted: CONTAINER[:ro]"),
        (("--device-cgroup-rule",), "allow a kind of device: 'c 1:3 rwm'"),
        (("--blkio-weight-device",), "share of a disk's time: PATH:WEIGHT"),
        (("--device-read-bps",), "bytes a second read from a disk: PATH:RATE, such as /dev/sda:1mb"),
        (("--device-write-bps",), "bytes a second written to a disk: PATH:RATE"),
        (("--device-read-iops",), "reads a second from a disk: PATH:RATE"),
        (("--device-write-iops",), "writes a second to a disk: PATH:RATE"),
        (("-a", "--attach"), "attach to stdin, stdout or stderr"),
    ):
        add(*names, action="append", default=[], help=text)
    for names, text in (
        (("--name",), "the container's name"),
        (("-h", "--hostname"), "the host name inside"),
        (("--domainname",), "the domain name inside"),
        (("-u", "--user"), "user (and group): NAME or number, [USER][:GROUP]"),
        (("-w", "--workdir"), "working directory"),
        (("--entrypoint",), "the program, instead of the image's entry point"),
        (("--restart",), "no, always, unless-stopped or on-failure[:COUNT]"),
        (("--network", "--net"), "none, host, bridge, container:CONTAINER, or a network of one's own"),
        (("--ip",), "address on a network of one's own"),
        (("--ip6",), "IPv6 address there"),
        (("-m", "--memory"), "memory limit"),
        (("--memory-swap",), "memory and swap together; -1: no limit"),
        (("--memory-reservation",), "soft limit of memory"),
        (("--cpus",), "CPUs, such as 1.5"),
        (("--cpuset-cpus",), "CPUs to run on, such as 0-2"),
        (("--cpuset-mems",), "memory nodes to use"),
        (("--shm-size",), "size of /dev/shm"),
        (("--pid",), "process namespace: host"),
        (("--ipc",), "IPC namespace: host, private or none"),
        (("--uts",), "UTS namespace: host"),
        (("--cgroupns",), "cgroup namespace: host or private"),
        (("--userns",), "user namespace: host"),
        (("--stop-signal",), "signal that stops the container"),
        (("--cgroup-parent",), "control group to put the container's into"),
        (("--health-cmd",), "what tells by its status how the container is, for a shell"),
        (("--health-interval",), "from one check to the next (30s)"),
        (("--health-timeout",), "how long a check may take (30s)"),
        (("--health-start-period",), "for how long failures do not count"),
        (("--health-start-interval",), "from one check to the next for so long (5s)"),
        (("--health-action",), "what an unhealthy container gets: none, kill, restart or stop"),
        (("--log-driver",), "json-file or none"),
        (("--mac-address",), "hardware address"),
        (("--cidfile",), "write the container's id to this file"),
        (("--platform",), "os/architecture of the image"),
        (("--runtime",), "OCI runtime"),
        (("--volume-driver",), "driver of volumes that are made: local"),
        (("--detach-keys",), "key sequence that detaches"),
    ):
        add(*names, default="", help=text)
    for names, text in (
        (("--pids-limit",), "how many processes; -1: no limit"),
        (("-c", "--cpu-shares"), "relative share of CPU time"),
        (("--cpu-period",), "microseconds of a CPU period"),
        (("--cpu-quota",), "microseconds of CPU time in a period"),
        (("--stop-timeout",), "seconds before a stop kills"),
        (("--oom-score-adj",), "how soon to be killed for want of memory"),
        (("--memory-swappiness",), "0 to 100"),
        (("--blkio-weight",), "relative share of disk time, 10 to 1000"),
        (("--health-retries",), "failures in a row that make it unhealthy (3)"),
    ):
        add(*names, type=int, default=None, help=text)
    for names, text in (
        (("-i", "--interactive"), "keep standard input open"),
        (("-t", "--tty"), "give it a terminal"),
        (("-P", "--publish-all"), "publish every exposed port"),
        (("--rm",), "remove the container when it ends"),
        (("--privileged",), "all capabilities, all devices, no confinement"),
        (("--read-only",), "mount the root file system read-only"),
        (("--init",), "a small init that reaps and passes signals on"),
        (("--no-healthcheck",), "no health check"),
        (("--oom-kill-disable",), "never kill for want of memory"),
        (("-q", "--quiet"), "no progress of a pull"),
    ):
        add(*names, action="store_true", help=text)
    add("--pull", default="missing", choices=("always", "missing", "never"), help="when to pull the image")
    add("--help", action="help", help="show this help")
    add("image")
    add("command", nargs=argparse.REMAINDER)


def create_document(flags: argparse.Namespace) -> dict[str, Any]:
    """`POST /containers/create` for the flags. Raises InvalidArgument."""
    exposed, bindings = parse_ports(flags.publish, flags.expose)
    attached = flags.attach or ([] if getattr(flags, "detach", False) else ["stdout", "stderr"])
    document: dict[str, Any] = {
        "Image": flags.image,
        "Cmd": list(flags.command) or None,
        "Entrypoint": [flags.entrypoint] if flags.entrypoint else None,
        "Env": environment(flags.env, flags.env_file),
        "Hostname": flags.hostname,
        "Domainname": flags.domainname,
        "User": flags.user,
        "WorkingDir": flags.workdir,
        "Tty": flags.tty,
        "OpenStdin": flags.interactive,
        "StdinOnce": flags.interactive and not getattr(flags, "detach", False),
        "AttachStdin": flags.interactive and not getattr(flags, "detach", False),
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Labels": dict(map(_pair, [*_lines_of(flags.label_file), *flags.label])),
        "ExposedPorts": exposed,
        "StopSignal": flags.stop_signal,
        "StopTimeout": flags.stop_timeout,
        "MacAddress": flags.mac_address,
        "HostConfig": _host_config(flags, bindings),
    }
    if flags.ip or flags.ip6 or flags.network_alias:
        wanted = {"IPv4Address": flags.ip, "IPv6Address": flags.ip6}
        settings = {
            "IPAMConfig": {name: value for name, value in wanted.items() if value} or None,
            "Aliases": flags.network_alias or None,
        }
        document["NetworkingConfig"] = {"EndpointsConfig": {flags.network or "bridge": settings}}
    if healthcheck := _healthcheck(flags):
        document["Healthcheck"] = healthcheck
    return document


def _healthcheck(flags: argparse.Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {
        "Interval": flags.health_interval, "Timeout": flags.health_timeout, "StartPeriod": flags.health_start_period,
        "StartInterval": flags.health_start_interval,
    }  # fmt: skip
    given = {name: round(parse_duration(text) * 1e9) for name, text in given.items() if text}
    if flags.health_retries is not None:
        given["Retries"] = flags.health_retries
    if flags.health_cmd:
        given["Test"] = ["CMD-SHELL", flags.health_cmd]
    if flags.no_healthcheck:
        if given:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    return given


def _host_config(flags: argparse.Namespace, bindings: dict[str, Any]) -> dict[str, Any]:
    name, _, count = flags.restart.partition(":")
    if count and not count.isdigit():
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    nano = 0
    if flags.cpus:
        try:
            nano = int(float(flags.cpus) * 1_000_000_000)
        except ValueError:
            raise InvalidArgument(f"invalid argument {flags.cpus!r} for --cpus: not a number") from None
    mounts = []
    if flags.mount:
        from sampan.cli.mounts import parse_mount

        mounts = [parse_mount(each) for each in flags.mount]
    options = {
        "Binds": flags.volume or None,
        "Mounts": mounts or None,
        "Tmpfs": {each.partition(":")[0]: each.partition(":")[2] for each in flags.tmpfs} or None,
        "NetworkMode": flags.network or "default",
        "PortBindings": bindings,
        "PublishAllPorts": flags.publish_all,
        "RestartPolicy": {"Name": name or "no", "MaximumRetryCount": int(count or 0)},
        "AutoRemove": flags.rm,
        "Privileged": flags.privileged,
        "ReadonlyRootfs": flags.read_only,
        "Init": True if flags.init else None,
        "CapAdd": flags.cap_add or None,
        "CapDrop": flags.cap_drop or None,
        "SecurityOpt": [_security_option(each) for each in flags.security_opt] or None,
        "Ulimits": [_ulimit(each) for each in flags.ulimit] or None,
        "Sysctls": dict(map(_pair, flags.sysctl)) or None,
        "ExtraHosts": flags.add_host or None,
        "Dns": flags.dns or None,
        "DnsSearch": flags.dns_search or None,
        "DnsOptions": flags.dns_option or None,
        "Devices": [_device(each) for each in flags.device] or None,
        "GroupAdd": flags.group_add or None,
        "LogConfig": {"Type": flags.log_driver, "Config": dict(map(_pair, flags.log_opt))},
        "Annotations": _annotations(flags) or None,
        "VolumesFrom": flags.volumes_from or None,
        "VolumeDriver": flags.volume_driver,
        "DeviceCgroupRules": flags.device_cgroup_rule or None,
        "CgroupParent": flags.cgroup_parent,
        "BlkioWeightDevice": _per_device(flags.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": _per_device(flags.device_read_bps, "Rate"),
        "BlkioDeviceWriteBps": _per_device(flags.device_write_bps, "Rate"),
        "BlkioDeviceReadIOps": _per_device(flags.device_read_iops, "Rate"),
        "BlkioDeviceWriteIOps": _per_device(flags.device_write_iops, "Rate"),
        "Memory": parse_size(flags.memory) if flags.memory else 0,
        "MemorySwap": parse_size(flags.memory_swap) if flags.memory_swap else 0,
        "MemoryReservation": parse_size(flags.memory_reservation) if flags.memory_reservation else 0,
        "MemorySwappiness": flags.memory_swappiness,
        "NanoCpus": nano,
        "CpuShares": flags.cpu_shares or 0,
        "CpuPeriod": flags.cpu_period or 0,
        "CpuQuota": flags.cpu_quota or 0,
        "CpusetCpus": flags.cpuset_cpus,
        "CpusetMems": flags.cpuset_mems,
        "PidsLimit": flags.pids_limit,
        "BlkioWeight": flags.blkio_weight or 0,
        "OomScoreAdj": flags.oom_score_adj or 0,
        "OomKillDisable": flags.oom_kill_disable or None,
        "ShmSize": parse_size(flags.shm_size) if flags.shm_size else 0,
        "PidMode": flags.pid,
        "IpcMode": flags.ipc,
        "UTSMode": flags.uts,
        "UsernsMode": flags.userns,
        "CgroupnsMode": flags.cgroupns,
        "Runtime": flags.runtime,
    }
    if os.isatty(1) and flags.tty:
        size = os.get_terminal_size(1)
        options["ConsoleSize"] = [size.lines, size.columns]
    return options


def _per_device(given: list[str], member: str) -> list[dict[str, Any]] | None:
    result: list[dict[str, Any]] = []
    for text in given:
        path, colon, value = text.rpartition(":")
        if not colon or not path.startswith("/dev/"):
            raise InvalidArgument(f"bad format: {text}: PATH:NUMBER is wanted, with a path in /dev")
        result.append({"Path": path, member: parse_size(value)})
    return result or None


def _annotations(flags: argparse.Namespace) -> dict[str, str]:
    given = dict(map(_pair, flags.annotation))
    if flags.health_action:
        given["io.sampan.health-action"] = flags.health_action
    return given


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _lines_of(paths: list[str]) -> list[str]:
    lines: list[str] = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines += [line.strip() for line in file if line.strip() and not line.lstrip().startswith("#")]
        except OSError as error:
            raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None
    return lines


def environment(own: list[str], paths: list[str]) -> list[str]:
    """NAME=VALUE for each; a NAME alone takes the value that it has here, if it has one."""
    result: list[str] = []
    for entry in [*_lines_of(paths), *own]:
        if "=" in entry:
            result.append(entry)
        elif entry in os.environ:
            result.append(f"{entry}={os.environ[entry]}")
    return result


def _ports(text: str, what: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise InvalidArgument(f"invalid {what}: {text}")
    numbers = range(int(first), int(last or first) + 1)
    if not numbers or not numbers[0] > 0 or numbers[-1] > 65535:
        raise InvalidArgument(f"invalid {what}: {text}")
    return numbers


def parse_ports(published: list[str], exposed: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`ExposedPorts` and `PortBindings` for -p and --expose. Raises InvalidArgument."""
    ports: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for text in published:
        rest, _, protocol = text.partition("/")
        head, _, inside = rest.rpartition(":")
        address, host = "", head
        if head.startswith("["):
            address, _, host = head[1:].partition("]")
            host = host.removeprefix(":")
        elif ":" in head:
            address, _, host = head.rpartition(":")
        containers = _ports(inside, "containerPort")
        hosts = _ports(host, "hostPort") if host else None
        if hosts is not None and len(hosts) != len(containers) and len(containers) != 1:
            raise InvalidArgument(f"invalid ranges specified for container and host Ports: {text}")
        for at, port in enumerate(containers):
            key = f"{port}/{protocol.lower() or 'tcp'}"
            ports[key] = {}
            outside = "" if hosts is None else host if len(containers) == 1 else str(hosts[at])
            bindings.setdefault(key, []).append({"HostIp": address, "HostPort": outside})
    for text in exposed:
        rest, _, protocol = text.partition("/")
        for port in _ports(rest, "port"):
            ports[f"{port}/{protocol.lower() or 'tcp'}"] = {}
    return ports, bindings


def _ulimit(text: str) -> dict[str, Any]:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise InvalidArgument(f"invalid ulimit argument: {text}") from None


def _device(text: str) -> dict[str, Any]:
    host, _, rest = text.partition(":")
    inside, _, permissions = rest.partition(":")
    if inside and not inside.startswith("/"):
        inside, permissions = "", inside
    return {"PathOnHost": host, "PathInContainer": inside or host, "CgroupPermissions": permissions or "rwm"}


def _security_option(text: str) -> str:
    """A seccomp profile is a file here, and its text for the engine."""
    key, separator, value = text.partition("=")
    if key != "seccomp" or not separator or value in ("unconfined", "builtin"):
        return text
    try:
        with open(value, encoding="utf-8") as file:
            return f"seccomp={file.read()}"
    except OSError as error:
        raise InvalidArgument(f"opening seccomp profile ({value}) failed: {(error.strerror or '').lower()}") from None
