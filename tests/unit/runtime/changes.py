"""A configuration with everything in it, and what may become of it."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

TEXT = st.text(max_size=12)
NUMBERS = st.integers(-(1 << 65), 1 << 65)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | TEXT
    | st.sampled_from(("/", "a\nb", "\0", "../..", "SCMP_ACT_ALLOW", "rbind", "1.0.0", "-1", "∞", 1 << 400)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip

ANYTHING: list[Json] = [None, "", "x", -1, 1 << 64, 1.5, True, [], {}, [None], {"": None}]

FULL: Json = {
    "ociVersion": "1.2.0", "hostname": "h", "domainname": "d", "annotations": {"a": "b"},
    "root": {"path": "r", "readonly": True},
    "process": {
        "terminal": True, "consoleSize": {"height": 1, "width": 2}, "cwd": "/", "args": ["true"], "env": ["A=b"],
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "u"}, "noNewPrivileges": True,
        "capabilities": {
            name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}], "apparmorProfile": "p", "selinuxLabel": "l",
        "oomScoreAdj": 5, "scheduler": {"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
        "execCPUAffinity": {"initial": "0-1,3", "final": "2"},
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {
            "destination": "/x", "source": "/y", "options": ["rbind", "ro", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
        },
    ],
    "hooks": {
        name: [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 1}]
        for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    },
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup", "user", "time")],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}], "cgroupsPath": "/c",
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 2}},
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "resources": {
            "memory": {"limit": 1 << 20, "swap": 1 << 21, "reservation": 1 << 19, "checkBeforeUpdate": True},
            "cpu": {"shares": 2, "quota": 1000, "period": 1000, "burst": 1, "cpus": "0", "mems": "0", "idle": 1},
            "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
            "pids": {"limit": 3}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "rdma": {"d": {"hcaHandles": 1}}, "unified": {"a.b": "c"}, "devices": [{"allow": False}],
            "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
        },
        "rootfsPropagation": "slave", "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "mountLabel": "",
        "sysctl": {"net.ipv4.ip_forward": "1"}, "personality": {"domain": "LINUX32"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/agent", "listenerMetadata": "m",
            "syscalls": [
                {
                    "names": ["kill", "read"], "action": "SCMP_ACT_ALLOW",
                    "args": [
                        {"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"},
                        {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"},
                    ],
                },
                {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"},
                {"names": ["mount"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            ],
        },
    },
}  # fmt: skip
"""With every member that there is."""


def places(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every value within."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*path, number))


def changed(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    """With something else at that place, if it is still there."""
    if not path:
        return new
    first, *rest = path
    if isinstance(value, dict) and first in value:
        return {key: changed(each, tuple(rest), new) if key == first else each for key, each in value.items()}
    if isinstance(value, list) and isinstance(first, int) and first < len(value):
        return [changed(each, tuple(rest), new) if at == first else each for at, each in enumerate(value)]
    return value
