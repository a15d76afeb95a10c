"""Mounts whose ids are translated: runtime-spec's idmap and ridmap."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from sampan.errors import InvalidArgument
from sampan.linux import mount as m
from sampan.oci.runtime import IDMapping, Mount, User
from sampan.runtime import newborn
from sampan.runtime.container import Container, Stdio
from tests.privileged.runtime.mountinfo import parse
from tests.privileged.runtime.test_container import Box
from tests.privileged.runtime.test_mounts import in_user_namespace, run, tmpfs, with_mounts

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")


def to(host_id: int, size: int = 2000) -> tuple[IDMapping, ...]:
    return (IDMapping(container_id=0, host_id=host_id, size=size),)


def mapped(source: pathlib.Path, *options: str, uids: int | None = None, gids: int | None = None) -> Mount:
    return Mount(
        destination="/v", source=str(source), options=options, uid_mappings=() if uids is None else to(uids),
        gid_mappings=() if gids is None else to(gids),
    )  # fmt: skip


@pytest.fixture
def volume(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file of 5:6, and a mount with another one."""
    made = tmp_path.parent / f"{tmp_path.name}-volume"
    (made / "inner").mkdir(parents=True)
    m.mount("tmpfs", str(made / "inner"), "tmpfs", data="mode=777")
    for path in (made / "file", made / "inner/file"):
        path.write_text("mapped")
        os.chown(path, 5, 6)
    made.chmod(0o777)
    yield made
    m.umount(str(made / "inner"))


STAT = "busybox stat -c %u:%g /v/file; [ -e /v/inner/file ] && busybox stat -c %u:%g /v/inner/file; true"


@pytest.mark.requires("kernel:6.3")  # For a tmpfs.
def test_by_maps_of_its_own(box: Box, volume: pathlib.Path) -> None:
    """Without a user namespace: what is 5 on the disk is 1005 in the container."""
    assert run(box, STAT, mapped(volume, "rbind", "idmap", uids=1000, gids=3000)).split() == ["1005:3006", "5:6"]
    assert run(box, STAT, mapped(volume, "rbind", "ridmap", uids=1000, gids=3000)).split() == ["1005:3006"] * 2
    assert run(box, STAT, mapped(volume, "bind", "idmap", uids=1000, gids=3000)).split() == ["1005:3006"]
    # Older configurations have maps without the option.
    assert run(box, STAT, mapped(volume, "rbind", uids=1000, gids=3000)).split() == ["1005:3006", "5:6"]


def test_what_is_made_in_it(box: Box, volume: pathlib.Path) -> None:
    """By 1007, who is 7 on the disk; and not by 0, who is nobody there."""
    mount = mapped(volume, "bind", "idmap", uids=1000, gids=1000)
    script = "touch /v/made && busybox stat -c %u:%g /v/made"
    assert run(box, script, mount, user=User(uid=1007, gid=1008)) == "1007:1008\n"
    made = os.stat(volume / "made")
    assert (made.st_uid, made.st_gid) == (7, 8)
    assert "too large" in run(box, "touch /v/none || true", mount)


@pytest.mark.requires("kernel:6.3")  # For a tmpfs.
def test_by_the_containers_own_user_namespace(box: Box, volume: pathlib.Path) -> None:
    """Its root is root of the volume too."""
    changes = in_user_namespace(box)
    os.chmod(box.bundle, 0o755)
    assert run(box, STAT, mapped(volume, "rbind"), **changes).split() == ["65534:65534"] * 2
    assert run(box, STAT, mapped(volume, "rbind", "idmap"), **changes).split() == ["5:6", "65534:65534"]
    assert run(box, STAT, mapped(volume, "rbind", "ridmap"), **changes).split() == ["5:6", "5:6"]
    assert (
        run(box, STAT, mapped(volume, "rbind", "ridmap", uids=100000, gids=100100), **changes).split() == ["5:106"] * 2
    )
    run(box, "touch /v/made", mapped(volume, "bind", "idmap"), **changes)
    assert os.stat(volume / "made").st_uid == 0


def test_with_flags_propagation_and_other_mounts_around(box: Box, volume: pathlib.Path) -> None:
    """It is made later than others: what is to lie in it and below it is, too."""
    mounts = (
        tmpfs("/before"), mapped(volume, "bind", "idmap", "ro", "nosuid", "rprivate", uids=1000, gids=1000),
        tmpfs("/v/inner"), Mount(destination="/before/x", source=str(volume), options=("bind",)),
    )  # fmt: skip
    text = run(box, "touch /v/x; cat /before/x/file; echo; cat /proc/self/mountinfo", *mounts)
    assert "Read-only file system" in text
    assert "mapped" in text
    found = parse(text)
    assert found["/v"].options == {"ro", "nosuid", "relatime", "idmapped"}
    assert found["/v/inner"].kind == "tmpfs"
    assert "idmapped" not in found["/before/x"].options


def test_several_with_the_same_and_with_other_maps(box: Box, volume: pathlib.Path) -> None:
    mounts = tuple(
        Mount(
            destination=f"/v{number}", source=str(volume), options=("bind", "idmap"),
            uid_mappings=to(number // 2 * 1000), gid_mappings=to(number),
        )
        for number in range(12)
    )  # fmt: skip
    text = run(box, "for n in 0 1 2 3 4 5 6 7 8 9 10 11; do busybox stat -c %u:%g /v$n/file; done", *mounts)
    assert text.split() == [f"{number // 2 * 1000 + 5}:{number + 6}" for number in range(12)]


@pytest.mark.requires("cgroup1")  # With v2 none is forked ahead.
def test_in_a_process_that_was_forked_ahead(box: Box, volume: pathlib.Path) -> None:
    """By a maker, as in the shim: the newborn is this process's child."""
    reading, writing = os.pipe()
    mounts = with_mounts(box, mapped(volume, "rbind", "ridmap", uids=1000, gids=3000))
    spec = box.spec("sh", "-c", STAT, mounts=mounts)
    maker = os.fork()
    if maker == 0:
        try:
            born = newborn.bear()
            assert born is not None
            container = Container.create(
                box.id, str(box.bundle), box.state_root, Stdio(None, writing, writing), newborn=born, spec=spec
            )
            assert container.pid == born.pid
            container.start()
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    os.waitpid(maker, 0)
    made = Container.load(box.id, box.state_root)
    os.waitpid(made.pid, 0)
    made.delete()
    assert text.split() == ["1005:3006"] * 2, text


def _children() -> list[str]:
    return [each.read_text() for each in pathlib.Path("/proc/self/task").glob("*/children")]


@pytest.mark.requires("kernel:6.3")  # For a tmpfs.
def test_no_descriptor_and_no_process_is_left(box: Box, volume: pathlib.Path) -> None:
    before = sorted(os.listdir("/proc/self/fd")), _children()
    run(box, "true", mapped(volume, "rbind", "ridmap", uids=1000, gids=3000))
    with pytest.raises(InvalidArgument, match="no such file"):
        run(box, "true", mapped(volume / "nonesuch", "rbind", "ridmap", uids=1000, gids=3000))
    assert (sorted(os.listdir("/proc/self/fd")), _children()) == before


def test_what_cannot_be_mapped(box: Box, volume: pathlib.Path) -> None:
    proc = Mount(
        destination="/v", source="/proc/self", options=("bind", "idmap"), uid_mappings=to(1000), gid_mappings=to(1000)
    )
    with pytest.raises(
        InvalidArgument, match='error mounting "/proc/self" to rootfs at "/v": mapping its ids: invalid'
    ):
        run(box, "true", proc)
    with pytest.raises(InvalidArgument, match="needs a user namespace"):
        run(box, "true", mapped(volume, "bind", "idmap"))
    whole = (IDMapping(container_id=0, host_id=0, size=(1 << 32) - 1),)
    run(
        box, "true",
        Mount(destination="/v", source=str(volume), options=("bind", "idmap"), uid_mappings=whole, gid_mappings=whole),
    )  # fmt: skip
