"""Attacks by a /proc that is not the kernel's, or by what lies over it: each test is named after its entry."""

from __future__ import annotations

import msgspec
import pytest

from sampan.oci.runtime import Mount
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

CAP_KILL = f"{1 << 5:016x}"


def _elsewhere(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """The kernel's /proc at /real, so that the image's own is what lies at /proc."""
    return tuple(
        msgspec.structs.replace(each, destination="/real") if each.destination == "/proc" else each for each in mounts
    )


def test_cve_2019_16884_an_images_own_status_raises_no_capability(box: Box) -> None:
    """What the process may do is asked of the kernel: an image that says of itself that nothing is there to be dropped
    would keep the host's whole bounding set, and get it by its execve."""
    own = box.root / "proc/self"
    own.mkdir(parents=True)
    (own / "status").write_text(f"CapBnd:\t{CAP_KILL}\n")
    status, text = box.run(
        "cat", "/real/self/status", mounts=_elsewhere(box.spec("true").mounts), masked_paths=(), readonly_paths=()
    )
    assert status == 0
    held = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Cap"))
    assert held == {
        "CapBnd": CAP_KILL, "CapPrm": CAP_KILL, "CapEff": CAP_KILL, "CapInh": "0" * 16, "CapAmb": "0" * 16,
    }  # fmt: skip
