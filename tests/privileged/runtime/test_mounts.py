"""Mounts as a container sees them: every option, and every kind of destination."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from sampan.errors import InvalidArgument, SampanError, Unsupported
from sampan.linux import mount as m
from sampan.linux import selinux
from sampan.oci.runtime import DeviceCgroup, IDMapping, LinuxResources, Mount, Namespace
from tests.privileged.runtime.mountinfo import Mounted, parse
from tests.privileged.runtime.test_container import Box

pytestmark = pytest.mark.requires("root", "overlay", "seccomp", "program:busybox")

SAFE = ("nosuid", "noexec", "nodev")
MAP = (IDMapping(container_id=0, host_id=100000, size=1000),)


def with_mounts(box: Box, *mounts: Mount) -> tuple[Mount, ...]:
    return (*box.spec("true").mounts, *mounts)


def run(box: Box, script: str, *mounts: Mount, **changes: object) -> str:
    status, text = box.run("sh", "-c", script, mounts=with_mounts(box, *mounts), **changes)
    assert status == 0, text
    return text


def seen(box: Box, *mounts: Mount, **changes: object) -> dict[str, Mounted]:
    return parse(run(box, "cat /proc/self/mountinfo", *mounts, **changes))


def bind(destination: str, source: pathlib.Path | str, *options: str) -> Mount:
    return Mount(destination=destination, source=str(source), options=options or ("rbind",))


def tmpfs(destination: str, *options: str) -> Mount:
    return Mount(destination=destination, type="tmpfs", source="tmpfs", options=options)


def in_user_namespace(box: Box) -> dict[str, object]:
    """The changes of a configuration with one; the root belongs to it."""
    for path in (box.root, *box.root.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    kinds = ("mount", "pid", "network", "ipc", "uts", "cgroup", "user")
    return {"namespaces": tuple(Namespace(type=kind) for kind in kinds), "uid_mappings": MAP, "gid_mappings": MAP}


@pytest.fixture
def volume(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory with a file, and in it a mount that the host has restricted."""
    made = tmp_path.parent / f"{tmp_path.name}-volume"
    (made / "inner").mkdir(parents=True)
    (made / "file").write_text("bound")
    m.mount("restricted", str(made / "inner"), "tmpfs", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC | m.MS_RDONLY)
    yield made
    m.umount(str(made / "inner"))


# --- Options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "has"),
    [
        (("ro",), {"ro", "relatime"}), (("rw",), {"rw", "relatime"}),
        (SAFE, {"rw", "relatime", *SAFE}), (("nosuid", "suid"), {"rw", "relatime"}),
        (("noatime",), {"rw", "noatime"}), (("strictatime",), {"rw"}), (("noatime", "atime"), {"rw", "relatime"}),
        (("nodiratime",), {"rw", "nodiratime", "relatime"}), (("nosymfollow",), {"rw", "relatime", "nosymfollow"}),
        (("nosymfollow", "symfollow", "defaults"), {"rw", "relatime"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stepwise", [False, True], ids=["at once", "in steps"])
def test_flags_of_a_new_mount(box: Box, options: tuple[str, ...], has: set[str], stepwise: bool) -> None:
    """By mount(2), and, where something is done with it afterwards, by fsopen(2)."""
    found = seen(box, tmpfs("/x", *options, *(("rprivate",) if stepwise else ())))["/x"]
    assert found.options == has


@pytest.mark.parametrize("stepwise", [False, True], ids=["at once", "in steps"])
def test_flags_of_the_file_system(box: Box, stepwise: bool) -> None:
    after = ("rprivate",) if stepwise else ()
    found = seen(box, tmpfs("/x", "sync", "dirsync", "lazytime", "mand", "silent", "size=64k,mode=700", *after))["/x"]
    assert found.own >= {"sync", "dirsync", "lazytime", "size=64k", "mode=700"}
    found = seen(box, tmpfs("/x", "async", "nolazytime", "nomand", "loud", "noiversion", *after))["/x"]
    assert not found.own & {"sync", "dirsync", "lazytime"}


def test_iversion_goes_by_the_old_call_only(box: Box) -> None:
    assert "/x" in seen(box, tmpfs("/x", "iversion"))
    with pytest.raises(Unsupported, match="iversion"):
        seen(box, tmpfs("/x", "iversion", "rprivate"))


@pytest.mark.parametrize("stepwise", [False, True], ids=["at once", "in steps"])
def test_what_a_file_system_refuses_is_told_in_its_words(box: Box, stepwise: bool) -> None:
    after = ("rprivate",) if stepwise else ()
    with pytest.raises(InvalidArgument, match=r'error mounting "tmpfs" to rootfs at "/x": tmpfs: .*sizee'):
        seen(box, tmpfs("/x", "sizee=1", *after))
    with pytest.raises(InvalidArgument, match="no such device"):
        seen(box, Mount(destination="/x", type="nonesuch", source="x", options=after))


def test_a_bind_mount_is_as_its_source_or_exactly_as_asked(box: Box, volume: pathlib.Path) -> None:
    """As with runc and crun."""
    source = volume / "inner"
    found = seen(
        box, bind("/same", source), bind("/ro", source, "bind", "ro"), bind("/rw", source, "bind", "rw"),
        bind("/nosuid", source, "bind", "nosuid"), bind("/atime", source, "rbind", "noatime", "nodiratime"),
        bind("/follow", source, "rbind", "nosymfollow"), bind("/private", source, "rbind", "rprivate"),
    )  # fmt: skip
    assert found["/same"].options == {"ro", "relatime", *SAFE}
    assert found["/private"].options == {"ro", "relatime", *SAFE}
    assert found["/ro"].options == {"ro", "relatime"}
    assert found["/rw"].options == {"rw", "relatime"}
    assert found["/nosuid"].options == {"rw", "nosuid", "relatime"}
    assert found["/atime"].options == {"rw", "noatime", "nodiratime"}
    assert found["/follow"].options == {"rw", "relatime", "nosymfollow"}


def test_what_the_host_has_restricted_stays_so_in_a_user_namespace(box: Box, volume: pathlib.Path) -> None:
    changes = in_user_namespace(box)
    source = volume / "inner"
    found = seen(
        box, bind("/same", source), bind("/nosuid", source, "bind", "nosuid"), bind("/ro", source, "bind", "ro"),
        **changes,
    )  # fmt: skip
    for place in ("/same", "/nosuid", "/ro"):
        assert found[place].options == {"ro", "relatime", *SAFE}
    for asked in ("rw", "exec", "suid", "dev", "noatime"):
        with pytest.raises(SampanError, match="not permitted"):
            seen(box, bind("/x", source, "bind", asked), **changes)


@pytest.mark.parametrize(
    ("options", "top", "below"),
    [
        (("rbind",), {"rw", "relatime"}, {"ro", "relatime", *SAFE}),
        (("rbind", "ro"), {"ro", "relatime"}, {"ro", "relatime", *SAFE}),
        (("rbind", "rrw"), {"rw", "relatime"}, {"rw", "relatime", *SAFE}),
        (("rbind", "rsuid", "rdev", "rexec"), {"rw", "relatime"}, {"ro", "relatime"}),
        (("rbind", "rro", "rnosuid", "rnodev", "rnoexec"), {"ro", "relatime", *SAFE}, {"ro", "relatime", *SAFE}),
        (("rbind", "rnoatime"), {"rw", "noatime"}, {"ro", "noatime", *SAFE}),
        (("rbind", "rstrictatime", "rnodiratime"), {"rw", "nodiratime"}, {"ro", "nodiratime", *SAFE}),
        (("rbind", "rnoatime", "ratime"), {"rw", "relatime"}, {"ro", "relatime", *SAFE}),
        (("rbind", "noatime", "rrelatime"), {"rw", "relatime"}, {"ro", "relatime", *SAFE}),
        (("rbind", "rnosymfollow"), {"rw", "relatime", "nosymfollow"}, {"ro", "relatime", "nosymfollow", *SAFE}),
        (("rbind", "nosymfollow", "rsymfollow"), {"rw", "relatime"}, {"ro", "relatime", *SAFE}),
    ],
)  # fmt: skip
def test_recursive_options(
    box: Box, volume: pathlib.Path, options: tuple[str, ...], top: set[str], below: set[str]
) -> None:
    found = seen(box, bind("/x", volume, *options))
    assert found["/x"].options == top
    assert found["/x/inner"].options == below


def test_a_bind_mount_without_what_is_mounted_in_it(box: Box, volume: pathlib.Path) -> None:
    assert "/x/inner" not in seen(box, bind("/x", volume, "bind"))


def test_a_recursive_option_of_a_new_mount(box: Box) -> None:
    assert seen(box, tmpfs("/x", "rnosuid", "rro"))["/x"].options == {"ro", "nosuid", "relatime"}


def test_remounts(box: Box, volume: pathlib.Path) -> None:
    found = seen(
        box, tmpfs("/x", "size=64k"), tmpfs("/x", "remount", "noexec", "size=128k"), bind("/y", volume),
        bind("/y", volume, "bind", "remount", "ro", "nodev"), tmpfs("/dev", "remount", "ro", "nosuid"),
    )  # fmt: skip
    assert found["/x"].options == {"rw", "noexec", "relatime"}
    assert "size=128k" in found["/x"].own
    assert found["/y"].options == {"ro", "nodev", "relatime"}
    assert found["/dev"].options == {"ro", "nosuid", "relatime"}
    with pytest.raises(InvalidArgument, match="invalid argument"):
        seen(box, bind("/etc", volume, "bind", "remount", "ro"))


def test_read_only_ones_are_so_when_all_in_them_is_made(box: Box, volume: pathlib.Path) -> None:
    """A tmpfs, and /dev."""
    mounts = [
        msgspec.structs.replace(each, options=(*each.options, "ro")) if each.destination == "/dev" else each
        for each in with_mounts(box, tmpfs("/x", "ro"), bind("/x/y/z", volume))
    ]
    script = "cat /x/y/z/file; ls /dev/null /dev/pts/ptmx; touch /x/no; touch /dev/no; echo; cat /proc/self/mountinfo"
    _, text = box.run("sh", "-c", script, mounts=tuple(mounts))
    assert text.startswith("bound")
    assert "No such file" not in text
    assert text.count("Read-only file system") == 2
    assert {"ro"} <= parse(text)["/x"].options & parse(text)["/dev"].options


def test_a_tmpfs_has_the_mode_of_what_it_covers(box: Box) -> None:
    (box.root / "private").mkdir(mode=0o711)
    script = "for each in /private /asked /new; do busybox stat -c '%a %u' $each; done"
    text = run(box, script, tmpfs("/private"), tmpfs("/asked", "mode=1700", "uid=7"), tmpfs("/new"))
    assert text.split() == ["711", "0", "1700", "7", "1777", "0"]


@pytest.mark.requires("kernel:6.5")  # For more layers than a page names.
def test_an_overlay(box: Box, tmp_path: pathlib.Path) -> None:
    layers = [tmp_path / f"layer-{number}-{'x' * 60}" for number in range(40)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / f"from-{number}").touch()
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    above = (f"upperdir={upper}", f"workdir={work}")

    def overlay(count: int, *options: str) -> Mount:
        lower = ":".join(str(each) for each in layers[:count])
        return Mount(
            destination="/x", type="overlay", source="overlay", options=(f"lowerdir={lower}", *above, *options)
        )

    # A few go by mount(2), more than 255 bytes along with a propagation and more than a page one by one.
    for count, options in ((2, ()), (4, ("rprivate",)), (40, ())):
        text = run(box, "ls /x; touch /x/made", overlay(count, *options))
        assert sorted(text.split()) == sorted(f"from-{number}" for number in range(count))
        assert (upper / "made").exists()
        (upper / "made").unlink()


def test_options_that_are_longer_than_a_page(box: Box) -> None:
    assert "/x" in seen(box, tmpfs("/x", *(f"size={1 << 20}" for _ in range(600))))
    with pytest.raises(InvalidArgument, match="longer than 255 bytes"):
        seen(box, tmpfs("/x", "size=" + "0" * 5000 + "1"))


@pytest.mark.parametrize(
    ("kind", "options"), [("mqueue", SAFE), ("sysfs", ("ro",)), ("proc", SAFE), ("ramfs", ()), ("devpts", ())]
)
def test_other_kinds(box: Box, kind: str, options: tuple[str, ...]) -> None:
    found = seen(box, Mount(destination="/x", type=kind, source=kind, options=options))["/x"]
    assert (found.kind, found.options >= set(options)) == (kind, True)


def test_the_kernels_trees_in_a_user_namespace(box: Box) -> None:
    found = seen(
        box, Mount(destination="/q", type="mqueue", source="mqueue"), tmpfs("/t", "size=1m"), **in_user_namespace(box)
    )
    assert {"/proc", "/sys", "/dev", "/dev/pts", "/q", "/t"} <= found.keys()
    with pytest.raises(InvalidArgument, match=r"gid '5000'|invalid argument"):
        seen(
            box, Mount(destination="/x", type="devpts", source="devpts", options=("newinstance", "gid=5000")),
            **in_user_namespace(box),
        )  # fmt: skip


def test_the_hosts_sysfs_cannot_be_had_without_its_network(box: Box) -> None:
    changes = in_user_namespace(box)
    changes["namespaces"] = tuple(Namespace(type=kind) for kind in ("mount", "pid", "ipc", "uts", "user"))
    with pytest.raises(SampanError, match=r'error mounting "sysfs" to rootfs at "/sys": operation not permitted'):
        seen(box, **changes)


def test_cgroup_file_systems(box: Box) -> None:
    found = seen(box, Mount(destination="/u", type="cgroup2", source="cgroup2", options=("ro", *SAFE)))
    assert (found["/u"].kind, found["/u"].root) == ("cgroup2", "/")
    assert "ro" in found["/u"].options
    text = run(box, "ls /sys/fs/cgroup; touch /sys/fs/cgroup/x || echo; cat /proc/self/mountinfo")
    below = {place: each for place, each in parse(text).items() if place.startswith("/sys/fs/cgroup")}
    assert all("ro" in each.options for each in below.values())


def test_mount_label_needs_selinux(box: Box) -> None:
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("SELinux is enabled")
    with pytest.raises(Unsupported, match="mountLabel: SELinux is not enabled"):
        seen(box, mount_label="system_u:object_r:container_file_t:s0")


def test_mount_label_is_a_new_mounts_context(box: Box, monkeypatch: pytest.MonkeyPatch, volume: pathlib.Path) -> None:
    """Where SELinux says that it is there and is not, the first mount that takes a context says so: not /proc."""
    monkeypatch.setattr(selinux, "enabled", lambda: True)
    with pytest.raises(InvalidArgument, match=r'at "/dev": .*context'):
        seen(box, bind("/x", volume), mount_label="system_u:object_r:container_file_t:s0:c1,c2")


# --- Destinations and sources -------------------------------------------------------------------------------


def test_what_is_missing_is_made(box: Box, volume: pathlib.Path) -> None:
    umask = os.umask(0o077)
    try:
        run(box, "cat /a/b/c /d/e/file", bind("/a/b/c", volume / "file"), bind("/d/e", volume))
    finally:
        os.umask(umask)
    assert [oct(os.stat(box.root / path).st_mode & 0o777) for path in ("a", "a/b", "d/e", "a/b/c")] == [
        "0o755", "0o755", "0o755", "0o644",
    ]  # fmt: skip


@pytest.mark.parametrize("destination", ["rel/file", "/rel/../rel/./file", "../../rel/file", "//rel//file"])
def test_odd_ways_to_write_a_destination(box: Box, volume: pathlib.Path, destination: str) -> None:
    assert run(box, "cat /rel/file", bind(destination, volume / "file")) == "bound"


@pytest.mark.parametrize(
    ("link", "place"),
    [
        ("../run/resolve/stub", "/run/resolve/stub"), ("/stub", "/stub"), ("../../../stub", "/stub"),
        ("sub/x", "/etc/sub/x"),
    ],
)  # fmt: skip
def test_a_link_that_dangles_is_followed_inside(box: Box, volume: pathlib.Path, link: str, place: str) -> None:
    (box.root / "etc/resolv.conf").symlink_to(link)
    text = run(box, f"cat {place} /etc/resolv.conf", bind("/etc/resolv.conf", volume / "file"))
    assert text == "boundbound"


def test_a_link_to_a_directory_and_on(box: Box, volume: pathlib.Path) -> None:
    (box.root / "real").mkdir()
    (box.root / "link").symlink_to("/real")
    found = seen(box, bind("/link", volume), tmpfs("/link/../new/deep"))
    assert {"/real", "/new/deep"} <= found.keys()


@pytest.mark.parametrize("destination", ["/", "/.", "/etc/..", "/to-root", "/etc/up"])
def test_never_over_the_root(box: Box, volume: pathlib.Path, destination: str) -> None:
    (box.root / "to-root").symlink_to("/")
    (box.root / "etc/up").symlink_to("..")
    for mount in (bind(destination, volume), tmpfs(destination)):
        with pytest.raises(InvalidArgument, match="the destination is the root itself"):
            seen(box, mount)


def test_a_file_and_a_directory_do_not_go_together(box: Box, volume: pathlib.Path) -> None:
    """With the words that dockerd looks for."""
    (box.root / "file").touch()
    for mount in (bind("/etc", volume / "file"), bind("/file", volume), tmpfs("/file"), bind("/file/x", volume)):
        with pytest.raises(InvalidArgument, match=f'error mounting .* at "{mount.destination}": not a directory'):
            seen(box, mount)


def test_a_mount_over_a_file(box: Box, volume: pathlib.Path) -> None:
    (box.root / "file").write_text("of the image")
    assert run(box, "cat /file", bind("/file", volume / "file")) == "bound"
    assert (box.root / "file").read_text() == "of the image"


@pytest.mark.parametrize("source", ["/nonesuch", "nonesuch", "/etc/passwd/x"])
def test_a_source_that_is_missing(box: Box, source: str) -> None:
    with pytest.raises(InvalidArgument, match=r'error mounting ".*" to rootfs at "/x": no(t a| such)'):
        seen(box, bind("/x", source))
    assert not (box.root / "x").exists()


def test_a_source_in_the_bundle(box: Box) -> None:
    (box.bundle / "beside").write_text("beside the root")
    assert run(box, "cat /x", bind("/x", "beside")) == "beside the root"


def test_sources_that_are_no_files(box: Box, tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    text = run(box, "ls -l /fifo /link", bind("/fifo", tmp_path / "fifo"), bind("/link", tmp_path / "link"))
    assert [line[0] for line in text.splitlines()] == ["p", "p"]


def test_later_ones_lie_over_earlier_ones(box: Box, volume: pathlib.Path) -> None:
    text = run(box, "ls /x; ls /x/inner", tmpfs("/x"), bind("/x", volume), tmpfs("/x/inner"), tmpfs("/x/inner/deep"))
    assert text.split() == ["file", "inner", "deep"]


# --- /proc ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/proc/acpi", "/proc/sys", "/proc/self", "/proc/1/net", "/link", "/proc/net/stat"])
def test_nothing_inside_proc(box: Box, volume: pathlib.Path, place: str) -> None:
    """As runc does since 1.2; through links, too."""
    (box.root / "link").symlink_to("/proc/sys")
    for mount in (tmpfs(place), bind(place, volume)):
        with pytest.raises(InvalidArgument, match="inside /proc"):
            seen(box, mount)


def test_but_what_lxcfs_mounts(box: Box, volume: pathlib.Path) -> None:
    names: tuple[str, ...] = ("cpuinfo", "meminfo", "uptime", "sys/kernel/ns_last_pid")
    names = tuple(each for each in names if os.path.exists(f"/proc/{each}"))
    assert "cpuinfo" in names
    text = run(
        box, "".join(f"cat /proc/{each};" for each in names),
        *(bind(f"/proc/{each}", volume / "file", "bind", "ro") for each in names), readonly_paths=(),
    )  # fmt: skip
    assert text == "bound" * len(names)


def _proc(box: Box, mount: Mount) -> tuple[Mount, ...]:
    return tuple(mount if each.destination == "/proc" else each for each in box.spec("true").mounts)


def test_only_a_proc_on_proc(box: Box, volume: pathlib.Path) -> None:
    for mount in (tmpfs("/proc"), bind("/proc", volume), bind("/proc", "/proc/self"), bind("/proc", "/proc/sys")):
        with pytest.raises(InvalidArgument, match="not of type proc"):
            box.run("true", mounts=_proc(box, mount))
    _, text = box.run("ls", "/proc", mounts=_proc(box, bind("/proc", "/proc")))
    assert str(os.getpid()) in text.split()


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
@pytest.mark.parametrize("destination", ["/link", "/link/below"])
def test_the_kernels_trees_are_mounted_through_no_link(box: Box, kind: str, destination: str) -> None:
    (box.root / "real").mkdir()
    (box.root / "link").symlink_to("real")
    with pytest.raises(InvalidArgument, match="must be mounted on ordinary directory"):
        seen(box, Mount(destination=destination, type=kind, source=kind))
    assert list((box.root / "real").iterdir()) == []


# --- Beside the peers -------------------------------------------------------------------------------------------


@pytest.mark.requires("program:runc")
def test_as_runc_mounts(box: Box, volume: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The same configuration with runc: the same flags on the same places."""
    (box.root / "covered").mkdir(mode=0o711)
    (box.root / "etc/link").symlink_to("../run/target")
    mounts = (
        bind("/same", volume), bind("/ro", volume, "rbind", "ro"), bind("/nosuid", volume / "inner", "bind", "nosuid"),
        bind("/etc/link", volume / "file", "bind", "nodev"), bind("/rro", volume, "rbind", "rro"),
        bind("/private", volume, "rbind", "rprivate"), bind("/deep", volume, "rbind", "rnoatime", "rexec"),
        tmpfs("/covered", "noexec", "size=1m"), tmpfs("/late", "ro"), tmpfs("/times", "noatime", "nodiratime", "sync"),
        Mount(destination="/q", type="mqueue", source="mqueue", options=SAFE),
        tmpfs("/dev", "remount", "nosuid", "strictatime", "mode=755"),
    )  # fmt: skip
    spec = box.spec("cat", "/proc/self/mountinfo", mounts=with_mounts(box, *mounts))
    assert spec.linux is not None
    resources = LinuxResources(devices=(DeviceCgroup(allow=True, access="rwm"),))
    linux = msgspec.structs.replace(spec.linux, cgroups_path=f"/sampan-runc-{os.getpid()}", resources=resources)
    (box.bundle / "config.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(spec, linux=linux, oci_version="1.0.2"))
    )
    runc = ["runc", "--root", str(tmp_path / "runc"), "run", "--bundle", str(box.bundle), box.id]
    done = subprocess.run(runc, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = parse(done.stdout)
    ours = seen(box, *mounts)
    assert [*ours] != []
    places = {each for each in theirs if not each.startswith(("/sys/fs/cgroup", "/proc/", "/sys/"))}
    assert {each: (theirs[each].options, theirs[each].root, theirs[each].kind) for each in places} == {
        each: (ours[each].options, ours[each].root, ours[each].kind) for each in places
    }
