"""Whatever a config.json says, it is planned, or refused by one clear line; nothing else escapes."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.runtime import (
    Device,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Scheduler,
    Spec,
    TimeOffset,
    User,
)
from sampan.runtime.mounts import OPTIONS, MountStep, bind_change, mount_step, new_attributes, options, split
from sampan.runtime.plan import plan

NUMBERS = st.integers(-(1 << 65), 1 << 65) | st.integers(0, 9)
TEXT = st.text(max_size=12)
PATHS = (
    st.sampled_from(("/", "/proc", "/a/../b", "//x/", "rel", "/dev/null")) | TEXT.map(lambda text: "/" + text) | TEXT
)


def some(strategy: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


GOOD_MAP = (IDMapping(container_id=0, host_id=1000, size=10),)
MAPS = st.sampled_from(((), GOOD_MAP)) | some(st.builds(IDMapping, container_id=NUMBERS, host_id=NUMBERS, size=NUMBERS))
KINDS = st.sampled_from(("mount", "pid", "user", "time", "network", "uts", "ipc", "cgroup", "nonsense"))
USUAL = st.sampled_from(
    tuple(tuple(Namespace(type=kind) for kind in ("mount", "uts", *more)) for more in ((), ("user",), ("time", "pid")))
)
LINUX = st.builds(
    Linux, namespaces=USUAL | some(st.builds(Namespace, type=KINDS, path=TEXT), 8),
    uid_mappings=MAPS, gid_mappings=MAPS, sysctl=st.dictionaries(TEXT, TEXT, max_size=2),
    rootfs_propagation=st.sampled_from(("", "shared", "runbindable")) | TEXT,
    time_offsets=st.dictionaries(TEXT, st.builds(TimeOffset, secs=NUMBERS, nanosecs=NUMBERS), max_size=2),
    devices=some(
        st.builds(
            Device, type=st.sampled_from("cbup") | TEXT, path=PATHS, major=NUMBERS, minor=NUMBERS, uid=NUMBERS,
            gid=NUMBERS, file_mode=NUMBERS,
        )
    ),
    masked_paths=some(PATHS), readonly_paths=some(PATHS), mount_label=st.just("") | TEXT,
)  # fmt: skip
PROCESS = st.builds(
    Process, cwd=PATHS, args=some(TEXT, 2), user=st.builds(User, uid=NUMBERS, gid=NUMBERS),
    scheduler=st.none() | st.builds(Scheduler, policy=TEXT, nice=NUMBERS, priority=NUMBERS),
)  # fmt: skip
MOUNT = st.builds(
    Mount, destination=PATHS, source=PATHS, type=st.sampled_from(("", "bind", "tmpfs", "cgroup")) | TEXT,
    options=some(st.sampled_from(sorted(OPTIONS)) | TEXT, 5), uid_mappings=MAPS, gid_mappings=MAPS,
)  # fmt: skip
SPECS = st.builds(
    Spec, oci_version=st.sampled_from(("1.0", "1.2.0", "1.3.0")),
    root=st.builds(Root, path=st.sampled_from(("rootfs", "/root")) | PATHS), process=PROCESS, linux=LINUX,
    hostname=TEXT, mounts=some(MOUNT),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(MOUNT, st.booleans())
def test_any_mount_is_planned_or_refused(mount: Mount, user_namespace: bool) -> None:
    try:
        step = mount_step(mount, "/bundle", user_namespace)
    except InvalidArgument as error:
        assert error.message
        return
    early, late = split((step,))
    assert (*early, *late) == (step,)
    bind_change(step)
    new_attributes(step.flags)
    assert all("\0" not in f"{key}{value}" for key, value in options(step.kind, step.source, step.flags, step.own))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(step), type=MountStep) == step


@settings(max_examples=150, deadline=None)
@given(SPECS)
def test_any_configuration_is_planned_or_refused(spec: Spec) -> None:
    try:
        plan(spec, "id", "/bundle")
    except (InvalidArgument, Unsupported) as error:
        assert error.message
