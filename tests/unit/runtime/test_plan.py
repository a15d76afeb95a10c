"""The plan is pure: what a configuration means, without a kernel."""

from __future__ import annotations

import msgspec
import pytest

from sampan.errors import InvalidArgument, Unsupported
from sampan.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID
from sampan.oci.runtime import (
    IntelRdt,
    Linux,
    Namespace,
    Process,
    Root,
    Spec,
)
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
    linux = Linux(namespaces=(Namespace(type="mount"),), intel_rdt=IntelRdt())
    with pytest.raises(Unsupported, match="intelRdt"):
        plan(msgspec.structs.replace(SPEC, linux=linux), "id", "/b")
