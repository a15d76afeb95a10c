"""Whatever a config.json says, it is planned, or refused by one clear line; nothing else escapes."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.runtime import IDMapping, Linux, Mount, Namespace, Process, Root, Scheduler, Spec, TimeOffset, User
from sampan.runtime.plan import plan

NUMBERS = st.integers(-(1 << 65), 1 << 65)
MAPS = st.lists(st.builds(IDMapping, container_id=NUMBERS, host_id=NUMBERS, size=NUMBERS), max_size=3).map(tuple)
KINDS = st.sampled_from(("mount", "pid", "user", "time", "network", "uts", "ipc", "cgroup", "nonsense"))
TEXT = st.text(max_size=12)
LINUX = st.builds(
    Linux, namespaces=st.lists(st.builds(Namespace, type=KINDS, path=TEXT), max_size=8).map(tuple),
    uid_mappings=MAPS, gid_mappings=MAPS, sysctl=st.dictionaries(TEXT, TEXT, max_size=2), rootfs_propagation=TEXT,
    time_offsets=st.dictionaries(TEXT, st.builds(TimeOffset, secs=NUMBERS, nanosecs=NUMBERS), max_size=2),
)  # fmt: skip
PROCESS = st.builds(
    Process, cwd=TEXT, args=st.lists(TEXT, max_size=2).map(tuple), user=st.builds(User, uid=NUMBERS, gid=NUMBERS),
    scheduler=st.none() | st.builds(Scheduler, policy=TEXT, nice=NUMBERS, priority=NUMBERS),
)  # fmt: skip
OPTIONS = st.lists(st.sampled_from(("ro", "rbind", "rro", "idmap", "shared", "size=1")) | TEXT, max_size=4).map(tuple)
SPECS = st.builds(
    Spec, oci_version=TEXT, root=st.builds(Root, path=TEXT), process=PROCESS, linux=LINUX, hostname=TEXT,
    mounts=st.lists(st.builds(Mount, destination=TEXT, source=TEXT, options=OPTIONS), max_size=3).map(tuple),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(SPECS)
def test_any_configuration_is_planned_or_refused(spec: Spec) -> None:
    try:
        plan(spec, "id", "/bundle")
    except (InvalidArgument, Unsupported) as error:
        assert error.message


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        msgspec.json.decode(data, type=Spec)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
