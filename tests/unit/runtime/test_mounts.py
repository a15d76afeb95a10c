"""What a mount's options mean, without a kernel."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.linux import mount as m
from sampan.oci.runtime import Device, IDMapping, Mount
from sampan.runtime import devices
from sampan.runtime.mounts import (
    MountStep,
    bind_change,
    checked_label,
    checked_paths,
    mount_step,
    new_attributes,
    options,
    pieces,
    root_path,
    root_propagation,
    split,
)

MAP = (IDMapping(container_id=0, host_id=1000, size=10),)
RESET = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC | m.MOUNT_ATTR_NOSYMFOLLOW


def _bind(*words: str, destination: str = "/x", source: str = "here") -> MountStep:
    return mount_step(Mount(destination=destination, source=source, options=words), "/b")


def _tmpfs(*words: str, destination: str = "/x") -> MountStep:
    return mount_step(Mount(destination=destination, type="tmpfs", source="tmpfs", options=words), "/b")


@pytest.mark.parametrize(
    ("words", "flags", "cleared"),
    [
        (("ro",), m.MS_RDONLY, 0), (("rw",), 0, m.MS_RDONLY), (("ro", "rw"), 0, m.MS_RDONLY),
        (("rw", "ro"), m.MS_RDONLY, 0), (("nosuid", "nodev", "noexec"), m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC, 0),
        (("suid", "dev", "exec"), 0, m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC),
        (("sync", "dirsync", "mand", "silent"), m.MS_SYNCHRONOUS | m.MS_DIRSYNC | m.MS_MANDLOCK | m.MS_SILENT, 0),
        (("async", "nomand", "loud"), 0, m.MS_SYNCHRONOUS | m.MS_MANDLOCK | m.MS_SILENT),
        (("noatime", "nodiratime"), m.MS_NOATIME | m.MS_NODIRATIME, 0),
        (("atime", "diratime"), 0, m.MS_NOATIME | m.MS_NODIRATIME),
        (("relatime", "strictatime", "lazytime"), m.MS_RELATIME | m.MS_STRICTATIME | m.MS_LAZYTIME, 0),
        (("norelatime", "nostrictatime", "nolazytime"), 0, m.MS_RELATIME | m.MS_STRICTATIME | m.MS_LAZYTIME),
        (("iversion", "nosymfollow", "remount"), m.MS_I_VERSION | m.MS_NOSYMFOLLOW | m.MS_REMOUNT, 0),
        (("noiversion", "symfollow"), 0, m.MS_I_VERSION | m.MS_NOSYMFOLLOW), (("defaults", ""), 0, 0),
    ],
)  # fmt: skip
def test_flags(words: tuple[str, ...], flags: int, cleared: int) -> None:
    step = _tmpfs(*words)
    assert (step.flags, step.cleared, step.own) == (flags, cleared, ())


def test_a_bind_mounts_source_and_kind() -> None:
    assert (_bind("bind").source, _bind("bind").flags) == ("/b/here", m.MS_BIND)
    assert (_bind("rbind", source="/abs").source, _bind("rbind").flags) == ("/abs", m.MS_BIND | m.MS_REC)
    assert mount_step(Mount(destination="/x", type="bind", source="/s"), "/b").bind
    assert mount_step(Mount(destination="/x", type="none", source="/s", options=("rbind",)), "/b").kind == "bind"


def test_what_is_no_flag_is_the_file_systems_own() -> None:
    step = _tmpfs("nosuid", "size=1m,mode=755", "noswap")
    assert (step.flags, step.own) == (m.MS_NOSUID, ("size=1m,mode=755", "noswap"))
    assert options(step.kind, step.source, step.flags | m.MS_RDONLY | m.MS_SYNCHRONOUS, step.own) == [
        ("source", "tmpfs"), ("ro", None), ("sync", None), ("size", "1m"), ("mode", "755"), ("noswap", None),
    ]  # fmt: skip


def test_commas_that_are_not_between_options() -> None:
    assert pieces("a=1,b,,c=2,") == ["a=1", "b", "c=2"]
    assert pieces(r"upperdir=/with\,comma,index=off") == [r"upperdir=/with\,comma", "index=off"]
    assert pieces('context="system_u:object_r:container_file_t:s0:c1,c2"') == [
        "context=system_u:object_r:container_file_t:s0:c1,c2"
    ]


def test_many_layers_of_an_overlay_go_one_by_one() -> None:
    long = [f"/layers/{number:060}" for number in range(100)]
    found = options("overlay", "", 0, [f"lowerdir={':'.join(long)}", "index=off"])
    assert found == [("source", "overlay"), *(("lowerdir+", each) for each in long), ("index", "off")]
    assert options("overlay", "o", 0, ["lowerdir=/a:/b"]) == [("source", "o"), ("lowerdir", "/a:/b")]


def test_propagation_is_kept_in_order() -> None:
    assert _bind("rbind", "rslave", "shared").propagation == (m.MS_SLAVE | m.MS_REC, m.MS_SHARED)
    kinds = ("private", "slave", "shared", "unbindable")
    assert _tmpfs(*kinds, *(f"r{kind}" for kind in kinds)).propagation == (
        m.MS_PRIVATE, m.MS_SLAVE, m.MS_SHARED, m.MS_UNBINDABLE, m.MS_PRIVATE | m.MS_REC, m.MS_SLAVE | m.MS_REC,
        m.MS_SHARED | m.MS_REC, m.MS_UNBINDABLE | m.MS_REC,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "set_", "cleared"),
    [
        (("rro", "rnosuid", "rnodev", "rnoexec", "rnosymfollow", "rnodiratime"),
         RESET | m.MOUNT_ATTR_NODIRATIME, 0),
        (("rrw", "rsuid", "rdev", "rexec", "rsymfollow", "rdiratime"), 0, RESET | m.MOUNT_ATTR_NODIRATIME),
        (("rro", "rrw"), 0, m.MOUNT_ATTR_RDONLY), (("rrw", "rro"), m.MOUNT_ATTR_RDONLY, 0),
        (("rnoatime",), m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
        (("rstrictatime",), m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
        (("rnoatime", "rstrictatime"), m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
        (("rnoatime", "ratime"), 0, m.MOUNT_ATTR__ATIME), (("rrelatime",), 0, m.MOUNT_ATTR__ATIME),
        (("rnorelatime",), 0, m.MOUNT_ATTR__ATIME), (("rnostrictatime",), 0, m.MOUNT_ATTR__ATIME),
    ],
)  # fmt: skip
def test_recursive_attributes(words: tuple[str, ...], set_: int, cleared: int) -> None:
    step = _bind("rbind", *words)
    assert (step.recursive, step.recursive_cleared, step.flags) == (set_, cleared, m.MS_BIND | m.MS_REC)


def test_times_of_access_of_a_new_mount_as_mount_2_has_them() -> None:
    assert new_attributes(0) == m.MOUNT_ATTR_RELATIME
    assert new_attributes(m.MS_NOATIME) == m.MOUNT_ATTR_NOATIME
    assert new_attributes(m.MS_NOATIME | m.MS_STRICTATIME) == m.MOUNT_ATTR_STRICTATIME
    assert new_attributes(m.MS_NODIRATIME | m.MS_RDONLY) == m.MOUNT_ATTR_NODIRATIME | m.MOUNT_ATTR_RDONLY


def test_a_bind_mount_is_as_its_source_or_exactly_as_asked() -> None:
    assert bind_change(_bind("rbind", "rprivate")) is None
    change = bind_change(_bind("rbind", "nosuid"))
    assert change is not None
    assert (change.gained, change.lost, change.explicit) == (m.MOUNT_ATTR_NOSUID, RESET & ~m.MOUNT_ATTR_NOSUID, 0)
    change = bind_change(_bind("rbind", "rw"))
    assert change is not None
    assert (change.gained, change.lost, change.explicit) == (0, RESET, m.MOUNT_ATTR_RDONLY)
    change = bind_change(_bind("rbind", "noatime", "diratime"))
    assert change is not None
    assert change.gained == m.MOUNT_ATTR_NOATIME
    assert change.lost == RESET | change.explicit
    assert change.explicit == m.MOUNT_ATTR__ATIME | m.MOUNT_ATTR_NODIRATIME
    change = bind_change(_bind("rbind", "atime"))
    assert change is not None
    assert (change.gained, change.explicit) == (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME)


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (Mount(destination="/", type="tmpfs"), "the root itself"), (Mount(destination="", type="tmpfs"), "root itself"),
        (Mount(destination="/a/../", source="/s", options=("bind",)), "the root itself"),
        (Mount(destination="/x", source="/s", options=("bind", "size=1")), "no options of a file system, such as 's"),
        (Mount(destination="/x", source="/s", options=("rbind", "copy-symlink")), "such as 'copy-symlink'"),
        (Mount(destination="/x", options=("bind",)), "needs a source"),
        (Mount(destination="/x", source="/s"), "type is missing"),
        (Mount(destination="/x", type="proc", options=("tmpcopyup",)), "tmpcopyup"),
        (Mount(destination="/x", source="/s", options=("bind", "tmpcopyup")), "tmpcopyup"),
        (Mount(destination="/x\0", type="tmpfs"), "null byte"),
        (Mount(destination="/x", type="tmpfs", options=("a\0",)), "null byte"),
        (Mount(destination="/x", source="/s", options=("bind", "idmap")), "needs a user namespace"),
        (Mount(destination="/x", source="/s", options=("bind",), uid_mappings=MAP), "gidMappings is missing"),
        (Mount(destination="/x", type="tmpfs", uid_mappings=MAP, gid_mappings=MAP), "bind mounts only"),
        (Mount(destination="/x", source="/s", options=("bind", "idmap"), uid_mappings=MAP * 2, gid_mappings=MAP),
         "overlap"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(mount: Mount, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        mount_step(mount, "/b")


def test_id_maps() -> None:
    own = mount_step(
        Mount(destination="/x", source="/s", options=("bind",), uid_mappings=MAP, gid_mappings=MAP), "/b", False
    )
    assert own.id_map is not None and own.id_map.maps is not None
    assert (own.id_map.recursive, own.id_map.maps.uids) == (False, MAP)
    implied = mount_step(Mount(destination="/x", source="/s", options=("rbind", "ridmap")), "/b", True)
    assert implied.id_map is not None
    assert (implied.id_map.recursive, implied.id_map.maps) == (True, None)


def test_a_relative_destination_is_taken_from_the_root() -> None:
    assert _tmpfs(destination="a/./b/").place == "/a/b"
    assert _tmpfs(destination="../a").place == "/a"
    assert _tmpfs(destination="//a").place == "/a"


def test_what_waits_for_the_cgroup() -> None:
    def made(destination: str, kind: str = "tmpfs") -> MountStep:
        return mount_step(Mount(destination=destination, type=kind), "/b")

    steps = (
        made("/proc", "proc"), made("/sys/fs/cgroup", "cgroup"), made("/tmp"), made("sys//fs/cgroup/x"),
        made("/sys/fs"), made("/unified", "cgroup2"), made("/sys-other"),
    )  # fmt: skip
    early, late = split(steps)
    assert [each.destination for each in early] == ["/proc", "/tmp", "/sys-other"]
    assert [each.destination for each in late] == ["/sys/fs/cgroup", "sys//fs/cgroup/x", "/sys/fs", "/unified"]


def test_root() -> None:
    assert root_path("/bundle", "rootfs") == "/bundle/rootfs"
    assert root_path("/bundle", "/abs/../root/") == "/root"
    with pytest.raises(InvalidArgument, match="null byte"):
        root_path("/bundle", "a\0")
    assert root_propagation("") == m.MS_SLAVE | m.MS_REC
    assert root_propagation("shared") == m.MS_SHARED
    with pytest.raises(InvalidArgument, match="rootfsPropagation 'public'"):
        root_propagation("public")


@pytest.mark.parametrize("path", ["", "proc", "/", "//", "/./", "/a/..", "/x\0"])
def test_paths_that_can_be_neither_hidden_nor_made_read_only(path: str) -> None:
    with pytest.raises(InvalidArgument, match="maskedPaths"):
        checked_paths(("/fine", path), "maskedPaths")


def test_a_label_stays_one_option() -> None:
    assert checked_label("system_u:object_r:container_file_t:s0:c1,c2")
    with pytest.raises(InvalidArgument, match="mountLabel"):
        checked_label('x",fscontext="y')


def test_devices() -> None:
    made = devices.planned(
        (
            Device(type="c", path="/dev/../dev/zero", major=1, minor=5, file_mode=0o600),
            Device(type="p", path="/run/fifo"), Device(type="c", path="/dev/ptmx", major=5, minor=2),
        )
    )  # fmt: skip
    assert [device.path for device in made] == [
        "/dev/null", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/zero", "/run/fifo",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device(type="x", path="/dev/x"), "unknown type 'x'"), (Device(type="c", path="dev/x"), "not an absolute"),
        (Device(type="c", path=""), "not an absolute"), (Device(type="c", path="/dev/.."), "the root itself"),
        (Device(type="c", path="/dev/x", major=-1), "not a device's number"),
        (Device(type="b", path="/dev/x", major=1, minor=1 << 20), "not a device's number"),
        (Device(type="c", path="/dev/x", uid=-1), "not an id"), (Device(type="p", path="/x", gid=1 << 32), "not an id"),
        (Device(type="c", path="/dev/x\0"), "not an absolute"),
    ],
)  # fmt: skip
def test_devices_that_are_none(device: Device, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        devices.planned((device,))
