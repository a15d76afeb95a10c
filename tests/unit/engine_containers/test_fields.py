"""Every field that a client may send to create a container, and what becomes of it: none is dropped in silence.

The names are those of the published Engine API (1.51: Config, HostConfig, NetworkingConfig and what is in them). Each
is HONOURED (code of the engine's or the network's reads it; most are seen in the runtime's configuration, below),
REFUSED by name, DISCARDED with a warning, or SHOWN: kept for inspect, as Docker does nothing else with it on Linux.
"""

from __future__ import annotations

import ast
import functools
import pathlib
from typing import Any

import msgspec
import pytest

import sampan
from sampan.api import containers as api
from sampan.engine.containers import accept, limits, spec
from sampan.engine.containers.record import Record
from sampan.errors import SampanError
from sampan.oci.runtime import User

HONOURED, SHOWN = "honoured", "shown"
_QOS = "QoS maximum"

# A word is what becomes of it; a tuple is refused: a value, and the words of the refusal; a dict is discarded.
FIELDS: dict[type[msgspec.Struct], dict[str, Any]] = {
    api.ContainerConfig: {
        "Hostname": HONOURED, "Domainname": HONOURED, "User": HONOURED, "AttachStdin": SHOWN, "AttachStdout": SHOWN,
        "AttachStderr": SHOWN, "ExposedPorts": HONOURED, "Tty": HONOURED, "OpenStdin": HONOURED, "StdinOnce": HONOURED,
        "Env": HONOURED, "Cmd": HONOURED, "Healthcheck": HONOURED, "ArgsEscaped": SHOWN, "Image": HONOURED,
        "Volumes": HONOURED, "WorkingDir": HONOURED, "Entrypoint": HONOURED, "NetworkDisabled": HONOURED,
        "MacAddress": HONOURED, "OnBuild": SHOWN, "Labels": HONOURED, "StopSignal": HONOURED, "StopTimeout": HONOURED,
        "Shell": SHOWN,
    },
    api.HealthConfig: dict.fromkeys(
        ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"), HONOURED
    ),
    api.HostConfig: {
        "Binds": HONOURED, "ContainerIDFile": SHOWN, "LogConfig": HONOURED, "NetworkMode": HONOURED,
        "PortBindings": HONOURED, "RestartPolicy": HONOURED, "AutoRemove": HONOURED,
        "VolumeDriver": HONOURED, "VolumesFrom": HONOURED,
        "ConsoleSize": HONOURED, "Annotations": HONOURED, "CapAdd": HONOURED, "CapDrop": HONOURED,
        "CgroupnsMode": HONOURED, "Dns": HONOURED, "DnsOptions": HONOURED, "DnsSearch": HONOURED,
        "ExtraHosts": HONOURED, "GroupAdd": HONOURED, "IpcMode": HONOURED, "Cgroup": ("container:x", "Cgroup is not"),
        "Links": HONOURED, "OomScoreAdj": HONOURED, "PidMode": HONOURED, "Privileged": HONOURED,
        "PublishAllPorts": HONOURED, "ReadonlyRootfs": HONOURED, "SecurityOpt": HONOURED,
        "StorageOpt": ({"size": "1G"}, "--storage-opt is supported only for overlay over xfs"), "Tmpfs": HONOURED,
        "UTSMode": HONOURED, "UsernsMode": ("remapped", "invalid user namespace mode"), "ShmSize": HONOURED,
        "Sysctls": HONOURED, "Runtime": HONOURED, "Isolation": ("hyperv", "invalid isolation (hyperv)"),
        "Mounts": HONOURED, "MaskedPaths": HONOURED, "ReadonlyPaths": HONOURED, "Init": HONOURED,
        # Resources
        "CpuShares": HONOURED, "Memory": HONOURED, "NanoCpus": HONOURED, "CgroupParent": HONOURED,
        "BlkioWeight": HONOURED, "BlkioWeightDevice": HONOURED, "BlkioDeviceReadBps": HONOURED,
        "BlkioDeviceWriteBps": HONOURED, "BlkioDeviceReadIOps": HONOURED, "BlkioDeviceWriteIOps": HONOURED,
        "CpuPeriod": HONOURED, "CpuQuota": HONOURED, "CpuRealtimePeriod": HONOURED, "CpuRealtimeRuntime": HONOURED,
        "CpusetCpus": HONOURED, "CpusetMems": HONOURED, "Devices": HONOURED, "DeviceCgroupRules": HONOURED,
        "DeviceRequests": HONOURED, "KernelMemory": {"value": 1, "warning": "kernel memory limits"},
        "KernelMemoryTCP": HONOURED, "MemoryReservation": HONOURED, "MemorySwap": HONOURED,
        "MemorySwappiness": HONOURED, "OomKillDisable": HONOURED, "PidsLimit": HONOURED, "Ulimits": HONOURED,
        "CpuCount": {"value": 1, "warning": "CPU count"}, "CpuPercent": {"value": 1, "warning": "CPU percent"},
        "IOMaximumIOps": (1, _QOS), "IOMaximumBandwidth": (1, _QOS),
    },
    api.NetworkingConfig: {"EndpointsConfig": HONOURED},
    # The rest of an endpoint's members is what came of it: a client that sends it back asks for nothing.
    api.EndpointSettings: {
        **dict.fromkeys(("IPAMConfig", "Links", "Aliases", "MacAddress", "DriverOpts", "GwPriority"), HONOURED),
        **dict.fromkeys(
            ("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address",
             "GlobalIPv6PrefixLen", "DNSNames"), SHOWN,
        ),
    },
    api.EndpointIPAMConfig: dict.fromkeys(("IPv4Address", "IPv6Address", "LinkLocalIPs"), HONOURED),
    api.LogConfig: dict.fromkeys(("Type", "Config"), HONOURED),
    api.RestartPolicy: dict.fromkeys(("Name", "MaximumRetryCount"), HONOURED),
    api.PortBinding: dict.fromkeys(("HostIp", "HostPort"), HONOURED),
    api.WeightDevice: dict.fromkeys(("Path", "Weight"), HONOURED),
    api.ThrottleDevice: dict.fromkeys(("Path", "Rate"), HONOURED),
    api.DeviceMapping: dict.fromkeys(("PathOnHost", "PathInContainer", "CgroupPermissions"), HONOURED),
    api.DeviceRequest: dict.fromkeys(("Driver", "Count", "DeviceIDs", "Capabilities", "Options"), HONOURED),
    api.Ulimit: dict.fromkeys(("Name", "Hard", "Soft"), HONOURED),
}  # fmt: skip
_CASES = [(struct, name, done) for struct, fields in FIELDS.items() for name, done in fields.items()]


@functools.cache
def _read() -> set[str]:
    """The names of all attributes that the engine's and the network's code reads."""
    root = pathlib.Path(sampan.__file__).parent
    files = [path for part in ("engine", "network") for path in (root / part).rglob("*.py")]
    trees = [ast.parse(path.read_text()) for path in files]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _attribute(struct: type[msgspec.Struct], name: str) -> str:
    pairs = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
    return str(pairs[name])


@pytest.mark.parametrize("struct", FIELDS, ids=lambda each: each.__name__)
def test_these_are_the_published_fields(struct: type[msgspec.Struct]) -> None:
    assert set(struct.__struct_encode_fields__) == set(FIELDS[struct])


@pytest.mark.parametrize(("struct", "name", "done"), _CASES, ids=[f"{case[0].__name__}.{case[1]}" for case in _CASES])
def test_what_becomes_of_it(struct: type[msgspec.Struct], name: str, done: Any) -> None:
    attribute = _attribute(struct, name)
    if done is HONOURED:
        assert attribute in _read()
    elif isinstance(done, tuple):
        value, words = done
        host = api.HostConfig(**{attribute: value})
        with pytest.raises(SampanError) as refusal:
            accept.check(api.CreateRequest(image="box", host_config=host))
        assert words in refusal.value.message
    elif isinstance(done, dict):
        host, warnings = limits.discarded(api.HostConfig(**{attribute: done["value"]}))
        assert getattr(host, attribute) == 0
        assert len(warnings) == 1 and done["warning"] in warnings[0]


AROUND = spec.Surroundings(
    root="/root", bundle="/bundle", cgroup="/group", network="/netns", user=User(), cgroup2=False, shim="/shim"
)  # fmt: skip
SEEN: list[tuple[str, str, Any]] = [
    ("config", "Hostname", "other"), ("config", "Domainname", "example"), ("config", "Tty", True),
    ("config", "Env", ["A=1"]), ("config", "Cmd", ["other"]), ("config", "Entrypoint", ["other"]),
    ("config", "WorkingDir", "/tmp"), ("host", "ConsoleSize", [24, 80]), ("host", "Annotations", {"a": "b"}),
    ("host", "CapAdd", ["SYS_ADMIN"]), ("host", "CapDrop", ["CHOWN"]), ("host", "CgroupnsMode", "private"),
    ("host", "IpcMode", "host"), ("host", "IpcMode", "none"), ("host", "IpcMode", "shareable"),
    ("host", "IpcMode", "container:x"), ("host", "OomScoreAdj", 5), ("host", "PidMode", "host"),
    ("host", "PidMode", "container:x"), ("host", "Privileged", True), ("host", "ReadonlyRootfs", True),
    ("host", "SecurityOpt", ["no-new-privileges"]), ("host", "UTSMode", "host"), ("host", "ShmSize", 1 << 20),
    ("host", "Sysctls", {"net.ipv4.ip_forward": "1"}), ("host", "MaskedPaths", ["/x"]),
    ("host", "ReadonlyPaths", ["/x"]), ("host", "Init", True), ("host", "CpuShares", 5), ("host", "Memory", 1 << 25),
    ("host", "NanoCpus", 10**8), ("host", "BlkioWeight", 50), ("host", "CpuPeriod", 1000), ("host", "CpuQuota", 1000),
    ("host", "CpuRealtimePeriod", 1000), ("host", "CpuRealtimeRuntime", 1000), ("host", "CpusetCpus", "0"),
    ("host", "CpusetMems", "0"), ("host", "DeviceCgroupRules", ["c 1:11 r"]), ("host", "KernelMemoryTCP", 1 << 20),
    ("host", "Devices", [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}]),
    ("host", "MemoryReservation", 1 << 25), ("host", "MemorySwappiness", 5), ("host", "OomKillDisable", True),
    ("host", "PidsLimit", 5), ("host", "Ulimits", [{"Name": "nofile", "Soft": 5, "Hard": 6}]),
]  # fmt: skip


def _spec(where: str = "", name: str = "", value: Any = None) -> Any:
    config = {"Cmd": ["true"], **({name: value} if where == "config" else {})}
    host = {name: value} if where == "host" else {}
    record = Record(
        id="0" * 64, name="a", created=1, image="sha256:0", config=msgspec.convert(config, api.ContainerConfig),
        host_config=msgspec.convert(host, api.HostConfig),
    )  # fmt: skip
    return spec.build_spec(record, AROUND)


@pytest.mark.parametrize(("where", "name", "value"), SEEN, ids=[f"{case[1]}={case[2]}" for case in SEEN])
def test_it_is_seen_in_the_configuration(
    monkeypatch: pytest.MonkeyPatch, where: str, name: str, value: Any
) -> None:  # fmt: skip
    monkeypatch.setattr(spec, "cgroup_version", lambda: "1")
    assert _spec(where, name, value) != _spec()
