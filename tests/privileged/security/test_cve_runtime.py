"""Attacks that other runtimes fell to, carried out against ours: each test is named after its entry."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest

from sampan.errors import InvalidArgument, SampanError
from sampan.linux import mount
from sampan.oci.runtime import Mount, User
from sampan.runtime import mounting
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")


def test_cve_2024_21626_a_working_directory_by_a_descriptor(box: Box) -> None:
    """The host's directories, left open in the parent, as /proc/self/fd/N."""
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(host, True)
    try:
        for number in range(3, host + 8):
            try:
                _, text = box.run("sh", "-c", "ls /; ls ..", cwd=f"/proc/self/fd/{number}")
            except SampanError:
                continue
            assert "lost+found" not in text and "boot" not in text, number
    finally:
        os.close(host)


@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_cve_2019_19921_a_link_in_place_of_proc(box: Box, name: str) -> None:
    (box.root / "elsewhere").mkdir()
    (box.root / name).symlink_to("/elsewhere")
    with pytest.raises(SampanError, match="mounting"):
        box.run("true")
    assert list((box.root / "elsewhere").iterdir()) == []


def test_cve_2025_31133_a_null_device_that_is_none(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bound over a masked path is what /dev/null names: put something else there."""
    secret = box.bundle / "secret"
    secret.write_text("of the host")
    real = mount.open_tree

    def swapped(path: str, *, recursive: bool = False, directory: int = mount.AT_FDCWD) -> int:
        return real(str(secret) if path == "/dev/null" else path, recursive=recursive, directory=directory)

    monkeypatch.setattr(mount, "open_tree", swapped)
    with pytest.raises(SampanError, match="not the null device"):
        box.run("cat", "/proc/keys")


@pytest.mark.parametrize("null", ["missing", "file", "link"])
def test_cve_2025_31133_a_containers_own_null_device_is_not_trusted(box: Box, null: str) -> None:
    """A volume as /dev, in which somebody puts what is to be shown in the hidden file's place, or nothing."""
    (box.root / "etc/secret").write_text("of the image")
    volume = box.bundle / "dev"
    volume.mkdir()
    (volume / "shown").write_text("shown")
    if null == "file":
        (volume / "null").write_text("shown")
    elif null == "link":
        (volume / "null").symlink_to("/etc/secret")
    mounts = (
        *(each for each in box.spec("true").mounts if not each.destination.startswith("/dev")),
        Mount(destination="/dev", type="bind", source=str(volume), options=("rbind",)),
    )
    status, text = box.run(
        "cat", "/etc/secret", "/proc/keys", mounts=mounts, masked_paths=("/etc/secret", "/proc/keys")
    )
    assert (status, text) == (0, "")


def _over(box: Box, destination: str, source: pathlib.Path | str) -> tuple[Mount, ...]:
    bind = Mount(destination=destination, type="bind", source=str(source), options=("rbind",))
    return (*box.spec("true").mounts, bind)


def test_cve_2025_52881_nothing_is_mounted_over_parameters(box: Box) -> None:
    """A tree that looks like /proc/sys, mounted in its place."""
    fake = box.bundle / "fake/net/ipv4"
    fake.mkdir(parents=True)
    (fake / "ip_forward").write_text("untouched")
    for destination in ("/proc/sys", "/proc/sys/net", "/proc/../proc/sys"):
        with pytest.raises(InvalidArgument, match="inside /proc"):
            box.run("true", mounts=_over(box, destination, box.bundle / "fake"), sysctl={"net.ipv4.ip_forward": "1"})
    assert (fake / "ip_forward").read_text() == "untouched"


@pytest.mark.parametrize("another_of_proc", [False, True])
def test_cve_2025_52881_a_parameter_is_written_to_the_kernel_only(
    box: Box, monkeypatch: pytest.MonkeyPatch, another_of_proc: bool
) -> None:
    """Where it should be mounted over all the same: by a file, or by another file of the kernel's, which a look at the
    file system's type alone would not tell."""
    place = "/proc/sys/net/ipv4/ip_forward"
    fake = box.bundle / "fake"
    fake.write_text("untouched")
    monkeypatch.setattr(mounting, "_IN_PROC", {place})
    source = f"/proc/{os.getpid()}/comm" if another_of_proc else fake
    before = pathlib.Path("/proc/self/comm").read_text()
    with pytest.raises(SampanError, match="not the kernel's"):
        box.run("true", mounts=_over(box, place, source), sysctl={"net.ipv4.ip_forward": "1"})
    assert (fake.read_text(), pathlib.Path("/proc/self/comm").read_text()) == ("untouched", before)


def test_cve_2022_29162_no_inheritable_capabilities(box: Box) -> None:
    _, text = box.run("cat", "/proc/self/status")
    assert "CapInh:\t0000000000000000" in text


@pytest.mark.parametrize("number", [-1, 1 << 32, (1 << 32) - 1, 1 << 63])
def test_cve_2024_40635_an_id_that_would_wrap_to_root(box: Box, number: int) -> None:
    with pytest.raises(InvalidArgument, match="not an id"):
        box.run("id", user=User(uid=number))
    assert not os.path.exists(f"{box.state_root}/{box.id}")
    os.makedirs(box.state_root, exist_ok=True)


def test_cve_2021_30465_a_mount_through_a_volumes_link(box: Box) -> None:
    """A volume that another container fills, with a link out of the root on the way to the next mount."""
    volume = box.bundle / "volume"
    volume.mkdir()
    (box.root / "tmp").mkdir()
    (volume / "way").symlink_to("../" * 20 + "tmp")
    mark = f"sampan-{os.getpid()}"
    mounts = (
        *box.spec("true").mounts,
        Mount(destination="/v", type="bind", source=str(volume), options=("rbind",)),
        Mount(destination=f"/v/way/{mark}", type="tmpfs", source="tmpfs"),
    )
    assert box.run("true", mounts=mounts)[0] == 0
    assert not os.path.exists(f"/tmp/{mark}")
    assert (box.root / "tmp" / mark).is_dir()
    shutil.rmtree(volume)


@pytest.mark.parametrize("kind", ["fifo", "device", "huge", "nul"])
def test_a_table_of_users_that_is_a_trap(box: Box, kind: str) -> None:
    """HOME is looked up in the image's /etc/passwd. A fifo would hold the runtime for ever."""
    path = box.root / "etc/passwd"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            os.mknod(path, 0o20666, os.makedev(1, 8))  # random(4), which never ends
        case "huge":
            with open(path, "w") as file:
                file.truncate(1 << 40)
        case "nul":
            path.write_text("root:x:0:0::/ro\0ot:/bin/sh\n")
    assert box.run("sh", "-c", "echo $HOME") == (0, "/\n")
