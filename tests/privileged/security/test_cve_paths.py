"""Attacks by links: in an image, in a volume, and in a volume while the container is being made.

The races run for a second or two each: what they attack must hold at every instant, so that a longer run would only
find what is there more surely.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import time
from collections.abc import Callable

import pytest

from sampan.errors import SampanError
from sampan.linux.fs import make_directories, make_file
from sampan.oci.runtime import Mount
from sampan.runtime import rootfs
from tests.privileged.runtime.test_container import Box
from tests.privileged.security.attacks import swapping

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

_RACE = 2.0


def _mounts(box: Box, *more: Mount, without: tuple[str, ...] = ()) -> tuple[Mount, ...]:
    kept = (each for each in box.spec("true").mounts if not each.destination.startswith(without or ("//",)))
    return (*kept, *more)


def _bind(source: pathlib.Path | str, destination: str) -> Mount:
    return Mount(destination=destination, type="bind", source=str(source), options=("rbind",))


def _victim(box: Box) -> pathlib.Path:
    """A directory of the host's, beside the root."""
    victim = box.bundle / "victim"
    victim.mkdir()
    (victim / "ptmx").write_text("of the host")
    return victim


def _untouched(victim: pathlib.Path) -> bool:
    return os.listdir(victim) == ["ptmx"] and (victim / "ptmx").read_text() == "of the host"


def _out_to(path: pathlib.Path) -> str:
    """A link's text that leads there from wherever it lies, if it is followed on the host."""
    return "../" * 40 + str(path).lstrip("/")


# --- Links in the image -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("spelled", ["/{}", "/{}/", "//{}", "/./{}", "/bin/../{}"])
@pytest.mark.parametrize("cve", ["2019-19921", "2023-27561", "2023-28642"])
def test_cve_2019_19921_and_its_returns(box: Box, cve: str, name: str, spelled: str) -> None:
    """/proc, /sys or /dev as a link. 2019-19921: into the image. 2023-27561: into a volume, which is mounted before,
    and which another container may have. 2023-28642: out to the host."""
    volume = box.bundle / "volume"
    (volume / name).mkdir(parents=True)
    (box.root / "elsewhere").mkdir()
    link = {"2019-19921": "/elsewhere", "2023-27561": f"/v/{name}", "2023-28642": _out_to(_victim(box))}[cve]
    (box.root / name).symlink_to(link)
    first = [_bind(volume, "/v")]
    rest = [
        Mount(destination=spelled.format(name), type=each.type, source=each.source, options=each.options)
        if each.destination == f"/{name}"
        else each
        for each in box.spec("true").mounts
    ]
    with pytest.raises(SampanError, match="mounting"):
        box.run("true", mounts=(*first, *rest))
    assert not any((box.root / "elsewhere").iterdir())
    assert not any((volume / name).iterdir())
    assert _untouched(box.bundle / "victim") if cve == "2023-28642" else True


@pytest.mark.parametrize("links", [("dev",), ("dev/pts", "dev/shm")])
@pytest.mark.parametrize("where", ["image", "volume", "host", "dangling"])
@pytest.mark.parametrize("mounted", [True, False])
def test_cve_2026_41579_and_47766_dev_is_a_link(box: Box, links: tuple[str, ...], where: str, mounted: bool) -> None:
    """The links and nodes that belong into /dev are made, and a ptmx is removed first, where the image's link leads:
    runc's entry, and crun's of the same. Worst without a mount on /dev, which would lie in the way."""
    victim, volume, elsewhere = _victim(box), box.bundle / "volume", box.root / "elsewhere"
    for directory in (volume, elsewhere):
        directory.mkdir()
        (directory / "ptmx").write_text("of the host")
    target = {"image": "/elsewhere", "volume": "/v", "host": _out_to(victim), "dangling": "/nothing/here"}[where]
    for link in links:
        (box.root / link).parent.mkdir(exist_ok=True)
        (box.root / link).symlink_to(target)
    shm = Mount(destination="/dev/shm", type="tmpfs", source="shm")
    mounts = (_bind(volume, "/v"), *_mounts(box, shm, without=() if mounted else ("/dev",)))
    if links == ("dev",):
        with pytest.raises(SampanError, match="/dev"):
            box.run("true", mounts=mounts)
    else:
        assert box.run("true", mounts=mounts)[0] == 0
    assert _untouched(victim)
    for directory in (volume, elsewhere):
        assert (directory / "ptmx").read_text() == "of the host"
        # Places for the mounts that the configuration asks for below /dev may be made, and only they.
        assert set(os.listdir(directory)) <= {"ptmx", "pts", "shm"}


@pytest.mark.parametrize("name", ["null", "zero", "tty", "fd", "stdin", "ptmx", "console"])
def test_cve_2026_41579_what_lies_in_dev_is_a_link(box: Box, name: str) -> None:
    """No mount on /dev: the image's own names are what the runtime finds there."""
    victim = _victim(box)
    (box.root / "dev").mkdir()
    (box.root / "dev" / name).symlink_to(_out_to(victim / "new"))
    with contextlib.suppress(SampanError):
        box.run("true", mounts=_mounts(box, without=("/dev",)))
    assert _untouched(victim)


# --- The terminal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "victim"])
def test_cve_2025_52565_and_2026_88264_console_is_a_link(box: Box, target: str) -> None:
    """A volume on /dev whose console is a link: the terminal would be mounted, or a file made, where it leads."""
    victim = _victim(box)
    volume = box.bundle / "volume"
    (volume / "pts").mkdir(parents=True)
    (volume / "console").symlink_to(_out_to(victim / "new") if target == "victim" else target)
    mounts = _mounts(box, without=("/dev",))
    pts = next(each for each in box.spec("true").mounts if each.destination == "/dev/pts")
    with pytest.raises(SampanError, match="/dev/console"):
        box.run("true", terminal=True, mounts=(*mounts, _bind(volume, "/dev"), pts))
    assert _untouched(victim)


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "device", "directory"])
def test_cve_2025_52565_a_devpts_that_is_none(box: Box, kind: str) -> None:
    """The image's own /dev/pts/ptmx and /dev/pts/0, with nothing mounted there. A fifo would hold the runtime."""
    pts = box.root / "dev/pts"
    pts.mkdir(parents=True)
    match kind:
        case "file":
            (pts / "ptmx").touch()
        case "link":
            (pts / "ptmx").symlink_to("/proc/sys/kernel/core_pattern")
        case "fifo":
            os.mkfifo(pts / "ptmx")
        case "device":
            os.mknod(pts / "ptmx", stat.S_IFCHR | 0o666, os.makedev(5, 2))
        case "directory":
            (pts / "ptmx").mkdir()
    (pts / "0").symlink_to("/proc/sys/kernel/core_pattern")
    with pytest.raises(SampanError, match="not the kernel's"):
        box.run("true", terminal=True, mounts=_mounts(box, without=("/dev",)))


# --- Hidden paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "file", "missing"])
def test_cve_2025_31133_the_images_own_null(box: Box, kind: str) -> None:
    """What covers a hidden file must be the null device, whatever the container's /dev/null is."""
    (box.root / "dev").mkdir()
    match kind:
        case "link":
            (box.root / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
        case "file":
            (box.root / "dev/null").write_text("what the image wants to be read")
    script = "busybox stat -c '%F %t %T' /proc/keys; cat /proc/keys; echo x > /proc/keys"
    for without in ((), ("/dev",)):
        with contextlib.suppress(SampanError):
            _, text = box.run("sh", "-c", script, mounts=_mounts(box, without=without))
            assert text == "character special file 1 3\n"
        (box.root / "proc/keys").exists()


def test_cve_2025_31133_a_null_that_is_swapped(box: Box) -> None:
    """Another container has the volume that is this one's /dev, and exchanges null for a link meanwhile."""
    volume = box.bundle / "volume"
    volume.mkdir()
    os.mknod(volume / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (volume / "link").symlink_to("/proc/sys/kernel/core_pattern")
    mounts = (*_mounts(box, without=("/dev",)), _bind(volume, "/dev"))
    until = time.monotonic() + _RACE
    with swapping(volume / "null", volume / "link"):
        while time.monotonic() < until:
            _, text = box.run("busybox", "stat", "-c", "%F %t %T", "/proc/keys", mounts=mounts)
            assert text == "character special file 1 3\n"


# --- Races in a volume --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "file"])
def test_cve_2021_30465_a_mount_whose_way_is_swapped(box: Box, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A volume of two containers: while one is made, the other exchanges a directory on the way to its next mount for a
    link that leads out of the root. And 2024-45310: what is missing of the way is made there."""
    victim, volume = _victim(box), box.bundle / "volume"
    (volume / "way/x").mkdir(parents=True)
    (volume / "other").symlink_to(_out_to(victim))
    report = box.bundle / "report"
    report.touch()
    source = box.bundle / "source"
    source.mkdir()
    (source / "file").touch()
    mark = f"mark{os.getpid()}"
    real = rootfs.enter

    def looking(*arguments: object, **named: object) -> None:
        """In the container's process, before the change of root hides it: where have the mounts come to lie?"""
        inside = f"{box.root}/"
        with open("/proc/self/mountinfo") as table, report.open("a") as file:
            for line in table:
                point = line.split()[4]
                if str(box.bundle) in point and not f"{point}/".startswith(inside):
                    file.write(point + "\n")
                file.write("inside\n" if point.startswith(inside) and mark in point else "")
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rootfs, "enter", looking)
    done = refused = number = 0
    until = time.monotonic() + _RACE
    with swapping(volume / "way", volume / "other"):
        while time.monotonic() < until:
            number += 1
            destination = f"/v/way/x{number}/{mark}"
            mount = {
                "tmpfs": Mount(destination=destination, type="tmpfs", source="tmpfs"),
                "bind": _bind(source, destination),
                "file": _bind(source / "file", destination),
            }[kind]
            try:
                assert box.run("true", mounts=(*box.spec("true").mounts, _bind(volume, "/v"), mount))[0] == 0
                done += 1
            except SampanError:
                refused += 1
            assert _untouched(victim)
    assert done, f"{refused} refused"
    assert set(report.read_text().split()) == {"inside"}


@pytest.mark.parametrize("make", [make_directories, make_file])
def test_cve_2024_45310_what_is_missing_is_made_inside(box: Box, make: Callable[[int, str], int]) -> None:
    """As above, many thousand times: the look-up alone."""
    victim, volume = _victim(box), box.root / "v"
    (volume / "way").mkdir(parents=True)
    (volume / "other").symlink_to(_out_to(victim))
    root = os.open(box.root, os.O_PATH | os.O_DIRECTORY)
    done = refused = number = 0
    until = time.monotonic() + _RACE
    try:
        with swapping(volume / "way", volume / "other"):
            while time.monotonic() < until:
                number += 1
                try:
                    os.close(make(root, f"/v/way/x{number % 500}/{number}/z"))
                    done += 1
                except OSError:
                    refused += 1
        assert _untouched(victim)
        assert done > 5 < refused + done
    finally:
        os.close(root)
