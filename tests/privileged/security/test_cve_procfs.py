"""Attacks by a /proc that is not the kernel's, or by what lies over it: each test is named after its entry."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterable

import msgspec
import pytest

from sampan.errors import InvalidArgument, SampanError
from sampan.linux import mount, selinux
from sampan.oci.runtime import Mount, Process
from sampan.runtime import labels, rootfs
from sampan.runtime.container import Container, Stdio
from sampan.runtime.tree import Tree
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


def _fake_proc(directory: pathlib.Path) -> pathlib.Path:
    """A tree that looks like /proc to who does not look closely."""
    for name in ("self/attr/apparmor/exec", "self/attr/exec", "self/oom_score_adj", "sys/net/ipv4/ip_forward"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("untouched")
    return directory


def _untouched(directory: pathlib.Path) -> bool:
    return all(path.read_text() == "untouched" for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("destination", ["/proc", "/proc/", "//proc", "/bin/../proc", "/way"])
@pytest.mark.parametrize("first", [True, False])
def test_cve_2019_16884_a_volume_over_proc(box: Box, destination: str, first: bool) -> None:
    """As an image's VOLUME /proc asks for: before the proc mount or after it, by the path or by a link."""
    fake = _fake_proc(box.bundle / "fake")
    (box.root / "way").symlink_to("proc")
    volume = Mount(destination=destination, type="bind", source=str(fake), options=("rbind",))
    rest = box.spec("true").mounts
    with pytest.raises(InvalidArgument, match="not of type proc"):
        box.run("true", mounts=(volume, *rest) if first else (*rest, volume), oom_score_adj=500)
    assert _untouched(fake)


@pytest.mark.parametrize(
    "place", ["self/attr/exec", "self/attr", "self", "1", "sys", "sysrq-trigger", "keys", "thread-self", "acpi"]
)
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_cve_2019_16884_a_mount_inside_proc(box: Box, place: str, kind: str) -> None:
    fake = _fake_proc(box.bundle / "fake")
    source = fake / place if (fake / place).exists() else fake
    over = Mount(destination=f"/proc/{place}", type=kind, source=str(source), options=("rbind",) * (kind == "bind"))
    with pytest.raises(SampanError, match=r"inside /proc|no such file|not a directory|permission denied"):
        box.run("true", mounts=(*box.spec("true").mounts, over))
    assert _untouched(fake)


def test_what_may_lie_inside_proc(box: Box) -> None:
    """lxcfs gives a container its own values so."""
    (box.bundle / "uptime").write_text("1.00 2.00\n")
    over = Mount(destination="/proc/uptime", type="bind", source=str(box.bundle / "uptime"), options=("bind", "ro"))
    assert box.run("cat", "/proc/uptime", mounts=(*box.spec("true").mounts, over)) == (0, "1.00 2.00\n")


@pytest.mark.parametrize("way", ["image", "link", "exec"])
@pytest.mark.parametrize("label", ["apparmor_profile", "selinux_label"])
def test_cve_2023_28642_and_2025_52881_a_label_is_written_to_the_kernel_only(
    box: Box, monkeypatch: pytest.MonkeyPatch, way: str, label: str
) -> None:
    """Where the image has a /proc of its own, or a link to one, when its first process is made and at an exec. This
    kernel may have no such module: it is made believe, and then it is the kernel that refuses the unknown name."""
    fake = _fake_proc(box.root / "fake")
    monkeypatch.setattr(labels, "_apparmor", lambda: True)
    monkeypatch.setattr(selinux, "enabled", lambda: True)
    name = "sampan_no_such:label:name:s0"
    mounts = _elsewhere(box.spec("true").mounts)
    changes = {"mounts": mounts, "masked_paths": (), "readonly_paths": ()}
    if way != "link":
        fake.rename(box.root / "proc")
        fake = box.root / "proc"
    else:
        (box.root / "proc").symlink_to("/fake")
    if way != "exec":
        with pytest.raises(InvalidArgument, match="process"):
            box.run("true", **changes, **{label: name})
    else:
        container = Container.create(
            box.id, str(box.bundle), box.state_root, Stdio(), spec=box.spec("sleep", "100", **changes)
        )
        try:
            container.start()
            process = Process(cwd="/", args=("true",), env=("PATH=/bin",))
            with pytest.raises(InvalidArgument, match="process"):
                container.exec(msgspec.structs.replace(process, **{label: name}), Stdio())
        finally:
            container.kill(signal.SIGKILL)
            os.waitpid(container.pid, 0)
            container.delete()
    assert _untouched(fake)


@pytest.mark.parametrize("trick", ["another file of proc's", "a link", "a whole other proc", "no proc"])
def test_cve_2025_52881_a_parameter_is_not_redirected(box: Box, monkeypatch: pytest.MonkeyPatch, trick: str) -> None:
    """sysrq-trigger, core_pattern: what is written as a parameter must not land there. The container's /proc is changed
    at the last moment, as one could who shares its mounts."""
    real = rootfs.set_sysctls
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()

    def tricked(tree: Tree, values: Iterable[tuple[str, str]]) -> None:
        proc = f"{box.root}/proc"
        place = f"{proc}/sys/net/ipv4/ip_forward"
        match trick:
            case "another file of proc's":
                mount.mount(f"{proc}/sys/kernel/core_pattern", place, flags=mount.MS_BIND)
            case "a link":
                mount.mount("tmpfs", f"{proc}/sys/net", "tmpfs")
                os.mkdir(f"{proc}/sys/net/ipv4")
                os.symlink("/proc/sys/kernel/core_pattern", place)
            case "a whole other proc":
                mount.mount(f"{proc}/sys/kernel", proc, flags=mount.MS_BIND)
            case "no proc":
                mount.mount("tmpfs", proc, "tmpfs")
                os.makedirs(os.path.dirname(place))
                pathlib.Path(place).touch()
        real(tree, values)

    monkeypatch.setattr(rootfs, "set_sysctls", tricked)
    with pytest.raises(SampanError, match="not the kernel's"):
        box.run("true", sysctl={"net.ipv4.ip_forward": "1"})
    assert pattern.read_text() == before
