"""`update`: limits, as Docker's; and what a container is made of, by the words of `docker service update`."""

from __future__ import annotations

import argparse
import shlex
import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.flags import environment, parse_ports, parse_size
from sampan.cli.mounts import parse_mount
from sampan.client.client import Document
from sampan.errors import InvalidArgument, SampanError

FAILURE = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS] CONTAINER [CONTAINER...]", "Change containers, which keep their files", 1)
    add = made.add_argument
    for names, text in (
        (("-m", "--memory"), "memory limit, such as 512m"),
        (("--memory-reservation",), "what is left to it when memory is short"),
        (("--memory-swap",), "memory and swap together; -1: no limit"),
        (("--cpus",), "number of CPUs, such as 1.5"),
        (("--cpuset-cpus",), "CPUs that it may use: 0-3, 0,1"),
        (("--cpuset-mems",), "memory nodes that it may use"),
        (("--restart",), "no, always, unless-stopped or on-failure[:COUNT]"),
        (("--args",), "its command, as a shell would read it"),
        (("--entrypoint",), "its entry point, as a shell would read it; empty: none"),
    ):
        add(*names, help=text)
    for names, text in (
        (("-c", "--cpu-shares"), "share of the CPUs' time"),
        (("--cpu-period",), "period of the CPU quota, in microseconds"),
        (("--cpu-quota",), "CPU time in a period, in microseconds"),
        (("--blkio-weight",), "share of the disks' time, 10 to 1000"),
        (("--pids-limit",), "number of processes; -1: no limit"),
    ):
        add(*names, type=int, help=text)
    for names, text in (
        (("-p", "--publish-add"), "publish a port: [[ADDRESS:]HOSTPORT:]PORT[/PROTOCOL]"),
        (("--publish-rm",), "no longer publish a port: PORT[/PROTOCOL], of the container's"),
        (("-e", "--env-add"), "set an environment variable: NAME=VALUE, or NAME for the value here"),
        (("--env-rm",), "remove an environment variable"),
        (("-l", "--label-add"), "set a label: NAME[=VALUE]"),
        (("--label-rm",), "remove a label"),
        (("-v", "--volume-add"), "mount a volume or a directory: SOURCE:TARGET[:OPTIONS]"),
        (("--mount-add",), "mount, in words: type=bind,source=/a,target=/b,readonly"),
        (("--mount-rm",), "no longer mount anything at TARGET"),
    ):
        add(*names, action="append", default=[], help=text)
    add("containers", nargs="+", metavar="CONTAINER")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    limits = _limits(flags)
    client = context.client
    status = 0
    for container in flags.containers:
        try:
            document = dict(limits)
            if _edits(flags):
                document |= changes(flags, client.call("GET", f"/containers/{container}/json"))
            answer = client.call("POST", f"/containers/{container}/update", document)
        except SampanError as error:
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
            continue
        for warning in answer.get("Warnings") or ():
            print(warning, file=sys.stderr)
        print(container)
    return status


def _limits(flags: argparse.Namespace) -> dict[str, Any]:
    """Docker's part. Raises InvalidArgument."""
    document: dict[str, Any] = {
        "CpuShares": flags.cpu_shares, "CpuPeriod": flags.cpu_period, "CpuQuota": flags.cpu_quota,
        "BlkioWeight": flags.blkio_weight, "PidsLimit": flags.pids_limit, "CpusetCpus": flags.cpuset_cpus,
        "CpusetMems": flags.cpuset_mems,
    }  # fmt: skip
    for name in ("memory", "memory_reservation", "memory_swap"):
        if (value := getattr(flags, name)) is not None:
            document["".join(map(str.capitalize, name.split("_")))] = parse_size(value)
    if flags.cpus is not None:
        try:
            document["NanoCpus"] = int(float(flags.cpus) * 1_000_000_000)
        except ValueError:
            raise InvalidArgument(f"invalid argument {flags.cpus!r} for --cpus: not a number") from None
    if flags.restart is not None:
        name, _, count = flags.restart.partition(":")
        if count and not count.isdigit():
            raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
        document["RestartPolicy"] = {"Name": name, "MaximumRetryCount": int(count or 0)}
    return {key: value for key, value in document.items() if value is not None}


_EDITS = (
    "publish_add", "publish_rm", "env_add", "env_rm", "label_add", "label_rm", "volume_add", "mount_add", "mount_rm",
)  # fmt: skip


def _edits(flags: argparse.Namespace) -> bool:
    return flags.args is not None or flags.entrypoint is not None or any(getattr(flags, each) for each in _EDITS)


def changes(flags: argparse.Namespace, inspected: Document) -> dict[str, Any]:
    """The members of the request that say what the container is to be: from what it is, and what waits for its next
    start. Raises InvalidArgument."""
    config, host = inspected["Config"], inspected["HostConfig"]
    waiting = inspected.get("AtNextStart") or {}
    document: dict[str, Any] = {}
    if flags.publish_add or flags.publish_rm:
        document["PortBindings"] = _ports(flags, host.get("PortBindings") or {})
    if flags.env_add or flags.env_rm:
        document["Env"] = _environment(flags, waiting.get("Env") or config.get("Env") or [])
    if flags.label_add or flags.label_rm:
        labels = dict(config.get("Labels") or {}) | {
            each.partition("=")[0]: each.partition("=")[2] for each in flags.label_add
        }  # fmt: skip
        document["Labels"] = {name: value for name, value in labels.items() if name not in flags.label_rm}
    if flags.args is not None:
        document["Cmd"] = _words(flags.args, "--args")
    if flags.entrypoint is not None:
        document["Entrypoint"] = _words(flags.entrypoint, "--entrypoint")
    if flags.volume_add or flags.mount_add or flags.mount_rm:
        document |= _mounts(flags, {**host, **waiting})
    return document


def _words(text: str, flag: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid argument {text!r} for {flag}: {str(error).lower()}") from None


def _ports(flags: argparse.Namespace, present: dict[str, Any]) -> dict[str, Any]:
    removed = {each if "/" in each else f"{each}/tcp" for each in flags.publish_rm}
    if unknown := removed - present.keys():
        raise InvalidArgument(f"port {sorted(unknown)[0]} is not published")
    bindings = {port: list(each or ()) for port, each in present.items() if port not in removed}
    for port, added in parse_ports(flags.publish_add, [])[1].items():
        kept = bindings.setdefault(port, [])
        kept += [each for each in added if each not in kept]
    return bindings


def _environment(flags: argparse.Namespace, present: list[str]) -> list[str]:
    variables = {each.partition("=")[0]: each for each in present}
    variables |= {each.partition("=")[0]: each for each in environment(flags.env_add, [])}
    return [each for name, each in variables.items() if name not in flags.env_rm]


def _mounts(flags: argparse.Namespace, present: dict[str, Any]) -> dict[str, Any]:
    """A place that something is added at loses what it had."""
    mounts = [parse_mount(each) for each in flags.mount_add]
    cleared = {_target(each) for each in flags.volume_add} | {each["Target"] for each in mounts} | set(flags.mount_rm)
    binds = [each for each in present.get("Binds") or () if _target(each) not in cleared]
    kept = [each for each in present.get("Mounts") or () if each["Target"] not in cleared]
    tmpfs = {path: options for path, options in (present.get("Tmpfs") or {}).items() if path not in cleared}
    had = {_target(each) for each in present.get("Binds") or ()} | set(present.get("Tmpfs") or {})
    had |= {each["Target"] for each in present.get("Mounts") or ()}
    if unknown := set(flags.mount_rm) - had:
        raise InvalidArgument(f"nothing that was asked for is mounted at {sorted(unknown)[0]}")
    return {"Binds": [*binds, *flags.volume_add], "Mounts": [*kept, *mounts], "Tmpfs": tmpfs}


def _target(bind: str) -> str:
    parts = bind.split(":")
    return parts[1] if len(parts) > 1 else parts[0]
