"""The file system that a container sees: mounts, devices, hidden and read-only paths."""

from __future__ import annotations

import os
import pathlib
import stat
from typing import Any

import pytest

from tests.contract.box import Box, Json
from tests.privileged.runtime.mountinfo import Mounted, parse


def run(box: Box, script: str, *mounts: Json, **changes: Any) -> str:
    """What the script writes, with these mounts besides the usual ones; the root can be written to."""
    changes.setdefault("root", {"path": "rootfs", "readonly": False})
    document = box.configuration("sh", "-c", script, **changes)
    document["mounts"] += mounts
    box.write(document)
    return box.call("run", box.id).succeeded().out


def seen(box: Box, *mounts: Json, **changes: Any) -> dict[str, Mounted]:
    return parse(run(box, "cat /proc/self/mountinfo", *mounts, **changes))


def bind(destination: str, source: pathlib.Path, *options: str) -> Json:
    return {"destination": destination, "type": "bind", "source": str(source), "options": list(options or ("rbind",))}


def tmpfs(destination: str, *options: str) -> Json:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


@pytest.fixture
def volume(box: Box) -> pathlib.Path:
    made = box.directory / "volume"
    (made / "inner").mkdir(parents=True)
    (made / "file").write_text("bound")
    return made


@pytest.mark.parametrize(
    ("options", "has"),
    [
        (("ro",), {"ro", "relatime"}), (("nosuid", "nodev", "noexec"), {"rw", "nosuid", "nodev", "noexec", "relatime"}),
        (("noatime", "nodiratime"), {"rw", "noatime", "nodiratime"}),
        (("strictatime",), {"rw"}), (("async", "rw", "exec"), {"rw", "relatime"}),
    ],
)  # fmt: skip
def test_flags(box: Box, options: tuple[str, ...], has: set[str]) -> None:
    assert seen(box, tmpfs("/tmp", *options))["/tmp"].options == has


def test_a_file_systems_own_options(box: Box) -> None:
    found = seen(box, tmpfs("/tmp", "size=64k", "mode=1770", "sync"))["/tmp"]
    assert found.own >= {"size=64k", "mode=1770", "sync"}


def test_bind_mounts(box: Box, volume: pathlib.Path) -> None:
    found = seen(
        box, bind("/a", volume), bind("/b/c", volume, "bind", "ro"), bind("/d/file", volume / "file", "bind", "nosuid"),
        bind("/e", volume, "rbind", "rro"), bind("rel/ative", volume),
    )  # fmt: skip
    assert found["/a"].options == {"rw", "relatime"}
    assert found["/a"].root == str(volume)
    assert found["/b/c"].options == found["/e"].options == {"ro", "relatime"}
    assert found["/d/file"].options == {"rw", "nosuid", "relatime"}
    assert "/rel/ative" in found
    text = run(
        box, "cat /d/file; touch /a/x; touch /b/c/x || true", bind("/a", volume),
        bind("/b/c", volume, "bind", "ro"), bind("/d/file", volume / "file"),
    )  # fmt: skip
    assert text == "bound"
    assert sorted(os.listdir(volume)) == ["file", "inner", "x"]


def test_links_are_followed_inside_the_root(box: Box, volume: pathlib.Path) -> None:
    (box.rootfs / "etc/dangling").symlink_to("../run/target")
    (box.rootfs / "etc/out").symlink_to("../../../../../../../tmp/sampan-contract-out")
    (box.rootfs / "way").symlink_to("/etc")
    text = run(
        box, "cat /run/target /tmp/sampan-contract-out /etc/new; ls /etc/below", bind("/etc/dangling", volume / "file"),
        bind("/etc/out", volume / "file"), bind("/way/new", volume / "file"), bind("/way/below", volume),
    )  # fmt: skip
    assert text == "bound" * 3 + "file\ninner\n"
    assert not os.path.exists("/tmp/sampan-contract-out")


def test_in_order(box: Box, volume: pathlib.Path) -> None:
    text = run(box, "ls /x /x/inner", tmpfs("/x"), bind("/x", volume), tmpfs("/x/inner"), tmpfs("/x/inner/deep"))
    assert text.split() == ["/x:", "file", "inner", "/x/inner:", "deep"]


def test_read_only_when_all_inside_is_made(box: Box, volume: pathlib.Path) -> None:
    script = "cat /x/y/file; touch /x/no 2>/dev/null || echo; grep ' /x ' /proc/self/mountinfo"
    assert run(box, script, tmpfs("/x", "ro"), bind("/x/y", volume)).startswith("bound\n")


def test_a_tmpfs_over_a_directory(box: Box) -> None:
    (box.rootfs / "own").mkdir(mode=0o711)
    mode = "1777" if box.runtime.differs("tmpfs-mode") else "711"
    assert run(box, "busybox stat -c %a /own", tmpfs("/own")) == mode + "\n"


def test_a_tmpfs_that_begins_with_what_was_there(box: Box) -> None:
    own = box.rootfs / "own"
    (own / "sub").mkdir(parents=True)
    (own / "file").write_text("of the image")
    os.chown(own / "file", 5, 6)
    os.chmod(own / "file", 0o4755)
    os.link(own / "file", own / "sub/hard")
    (own / "link").symlink_to("/etc/data")
    text = run(box, "cat /own/file; ls /own; busybox stat -c '%a %u %h' /own/file", tmpfs("/own", "tmpcopyup"))
    links = 1 if box.runtime.differs("copies-links") else 2
    assert text == f"of the imagefile\nlink\nsub\n4755 5 {links}\n"


def test_the_roots_link(box: Box) -> None:
    (box.bundle / "link").symlink_to("rootfs")
    box.configure("true", root={"path": "link"})
    done = box.call("run", box.id)
    assert (done.status != 0) == box.runtime.differs("no-linked-root"), done


def test_a_read_only_root(box: Box) -> None:
    text = run(
        box,
        "touch /x 2>/dev/null || echo; touch /tmp/x && echo",
        tmpfs("/tmp"),
        root={"path": "rootfs", "readonly": True},
    )
    assert text == "\n\n"


def test_hidden_and_read_only(box: Box, volume: pathlib.Path) -> None:
    (box.rootfs / "etc/secret").write_text("secret")
    (box.rootfs / "etc/link").symlink_to("secret")
    linux = {"maskedPaths": ["/etc/link", "/v/inner", "/nope"], "readonlyPaths": ["/proc/sys", "/v2/inner", "/nope"]}
    (volume / "inner/secret").touch()
    script = (
        "cat /etc/secret; ls /v/inner; touch /v/inner/x 2>/dev/null || echo one;"
        "touch /v2/inner/x 2>/dev/null || echo two; touch /v2/x && echo three;"
        "echo > /proc/sys/kernel/domainname 2>/dev/null || echo four"
    )
    text = run(box, script, bind("/v", volume), bind("/v2", volume), linux=linux)
    assert text.split() == ["one", "two", "three", "four"]


def test_devices(box: Box) -> None:
    devices = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/deep/disk", "type": "b", "major": 8, "minor": 0, "fileMode": 0o600},
        {"path": "/etc/fifo", "type": "p", "fileMode": 0o622},
    ]
    names = "/dev/null /dev/tty /dev/fuse /dev/deep/disk /etc/fifo"
    text = run(
        box,
        f"busybox stat -c '%F %t:%T %a %u:%g' {names}; readlink /dev/ptmx; readlink /dev/fd",
        linux={"devices": devices},
    )
    assert text.splitlines() == [
        "character special file 1:3 666 0:0", "character special file 5:0 666 0:0",
        "character special file a:e5 640 5:6", "block special file 8:0 600 0:0", "fifo 0:0 622 0:0",
        "pts/ptmx", "/proc/self/fd",
    ]  # fmt: skip


def test_something_else_in_a_devices_place(box: Box) -> None:
    """config-linux.md: that is an error."""
    os.mknod(box.rootfs / "etc/mine", stat.S_IFCHR | 0o600, os.makedev(1, 7))
    box.configure(
        "true", linux={"devices": [{"path": "/etc/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]}
    )
    done = box.call("run", box.id)
    assert (done.status == 0) == box.runtime.differs("any-device"), done


def test_a_proc_elsewhere(box: Box) -> None:
    proc = {"destination": "/etc/proc", "type": "proc", "source": "proc"}
    if box.runtime.differs("proc-at-root"):
        proc["destination"] = "/other"
    assert run(box, f"ls -d {proc['destination']}/self", proc) == f"{proc['destination']}/self\n"


def test_the_roots_propagation(box: Box) -> None:
    for kind, tags in (("private", ()), ("unbindable", ("unbindable",))):
        if kind == "unbindable" and box.runtime.differs("no-unbindable"):
            continue
        assert seen(box, linux={"rootfsPropagation": kind})["/"].tags == tags
