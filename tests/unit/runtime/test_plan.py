"""The plan is pure: what a configuration means, without a kernel."""

from __future__ import annotations

import msgspec
import pytest

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux import mount as m
from sampan.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID
from sampan.oci.runtime import (
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Spec,
)
from sampan.runtime.mounts import mount_step
from sampan.runtime.plan import plan

SPEC = Spec(
    oci_version="1.0.0", root=Root(path="rootfs"), process=Process(cwd="/", args=("true",)),
    linux=Linux(namespaces=(Namespace(type="mount"), Namespace(type="pid"), Namespace(type="network", path="/n"))),
)  # fmt: skip


def test_namespaces_are_made_or_joined() -> None:
    made = plan(SPEC, "id", "/bundle")
    assert made.clone_flags == CLONE_NEWNS | CLONE_NEWPID
    assert made.joins == (("network", "/n"),)
    assert made.root == "/bundle/rootfs"
    assert made.cgroup == ""
    assert [device.path for device in made.devices] == [
        "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"root": None}, {"process": None}, {"process": Process(cwd="/")}, {"process": Process(cwd="x", args=("a",))},
        {"linux": Linux(namespaces=())}, {"linux": Linux(namespaces=(Namespace(type="mount"),) * 2)},
        {"hostname": "x"},
    ],
)  # fmt: skip
def test_nonsense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        plan(msgspec.structs.replace(SPEC, **changes), "id", "/b")


def test_what_is_not_done_is_said() -> None:
    linux = Linux(namespaces=(Namespace(type="mount"),), mount_label="x")
    with pytest.raises(Unsupported, match="mountLabel"):
        plan(msgspec.structs.replace(SPEC, linux=linux), "id", "/b")


def test_a_profile_that_would_not_be_in_force_is_refused() -> None:
    process = Process(cwd="/", args=("true",), apparmor_profile="docker-default")
    with pytest.raises(Unsupported, match="apparmorProfile"):
        plan(msgspec.structs.replace(SPEC, process=process), "id", "/b")


def test_mount_options_are_sorted() -> None:
    bind = mount_step(Mount(destination="/x", source="here", options=("rbind", "ro", "rslave")), "/b")
    assert (bind.source, bind.flags, bind.attributes, bind.propagation) == (
        "/b/here", m.MS_BIND | m.MS_REC | m.MS_RDONLY, m.MS_RDONLY, m.MS_SLAVE | m.MS_REC,
    )  # fmt: skip
    tmpfs = mount_step(Mount(destination="t", type="tmpfs", options=("nosuid", "size=1m", "mode=755")), "/b")
    assert (tmpfs.destination, tmpfs.flags, tmpfs.data) == ("/t", m.MS_NOSUID, "size=1m,mode=755")
