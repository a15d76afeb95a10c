"""Volumes and mounts by real clients: what is mounted while it is used, whose it is, and that nothing is left."""

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.client.client import Client, parse_host
from sampan.errors import Conflict, NotFound, SampanError
from sampan.linux import mount as m
from sampan.linux.mount import is_mounted
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", "program:busybox")

_TMPFS = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=7,mode=711")


@pytest.fixture(autouse=True)
def _no_volumes(engine: Engine) -> Iterator[None]:
    """None is left, and nothing is mounted for one."""
    yield
    engine.remove_containers()
    for each in engine.client.call("GET", "/volumes")["Volumes"]:
        engine.client.call("DELETE", f"/volumes/{each['Name']}")
    assert _mounted(engine) == []
    assert os.listdir(engine.paths.mounts) == []


def _mounted(engine: Engine) -> list[str]:
    """Of what containers have mounted, but for their own file systems."""
    places = (engine.paths.volumes, engine.paths.mounts)
    return [each.point for each in m.mounts() if each.point.startswith(places)]


def _data(engine: Engine, name: str) -> pathlib.Path:
    return pathlib.Path(engine.paths.volumes, name, "_data")


def _until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert true()


def _called(engine: Engine, version: str, path: str, document: Any = None) -> Any:
    """POST, by an API version."""
    client = Client(parse_host(engine.host), version)
    try:
        return client.call("POST", path, document)
    finally:
        client.close()


def _run(engine: Engine, *words: str) -> str:
    return engine.docker("run", "--rm", "--network", "none", *words, check=True).stdout


# --- The local driver's options -------------------------------------------------------------------------------


def test_a_tmpfs_lives_from_its_first_user_to_its_last(engine: Engine) -> None:
    docker = engine.docker
    docker("volume", "create", *_TMPFS, "--label", "a=b", "scratch", check=True)
    shown = json.loads(docker("volume", "inspect", "scratch").stdout)[0]
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7,mode=711"}
    assert not is_mounted(shown["Mountpoint"])
    docker("run", "-d", "--name", "first", "-v", "scratch:/v", "box", "sleep", "600", check=True)
    docker("run", "-d", "--name", "second", "-v", "scratch:/v:ro", "box", "sleep", "600", check=True)
    assert docker("exec", "first", "stat", "-c", "%u %a", "/v").stdout == "7 711\n"
    assert docker("exec", "first", "dd", "if=/dev/zero", "of=/v/file", "bs=1M", "count=2").returncode != 0
    assert docker("exec", "first", "sh", "-c", "echo shared > /v/file").returncode == 0
    assert docker("exec", "second", "cat", "/v/file").stdout == "shared\n"
    docker("rm", "-f", "first", check=True)
    assert docker("exec", "second", "cat", "/v/file").stdout == "shared\n"
    assert docker("volume", "rm", "scratch").returncode == 1
    docker("rm", "-f", "second", check=True)
    assert _mounted(engine) == []
    assert _run(engine, "-v", "scratch:/v", "box", "ls", "/v") == ""


def test_an_engine_that_is_killed_keeps_what_is_used_and_unmounts_the_rest(engine: Engine) -> None:
    """moby#41686: a mount that outlives the daemon is still its users', and goes with the last of them."""
    docker = engine.docker
    for name in ("used", "ended"):
        docker("volume", "create", *_TMPFS, name, check=True)
    docker("volume", "create", "whole", check=True)
    _run(engine, "-v", "whole:/v", "box", "sh", "-c", "mkdir /v/part; echo precious > /v/part/file")
    part = "type=volume,source=whole,target=/part,volume-subpath=part"
    docker("run", "-d", "--name", "lives", "-v", "used:/v", "--mount", part,
           "--mount", "type=image,source=box,target=/image", "box", "sleep", "600", check=True)  # fmt: skip
    docker("run", "-d", "--name", "ends", "-v", "ended:/v", "--mount", part,
           "--mount", "type=image,source=box,target=/image", "box", "sleep", "600", check=True)  # fmt: skip
    docker("exec", "lives", "sh", "-c", "echo kept > /v/file", check=True)
    pid = json.loads(docker("inspect", "ends").stdout)[0]["State"]["Pid"]
    engine.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    engine.start()
    _until(lambda: docker("inspect", "-f", "{{.State.Status}}", "ends").stdout == "exited\n")
    _until(lambda: not is_mounted(str(_data(engine, "ended"))))
    assert docker("exec", "lives", "cat", "/v/file", "/part/file", "/image/data/file").stdout == (
        "kept\nprecious\nfrom the image\n"
    )
    assert docker("volume", "rm", "-f", "used").returncode == 1
    assert _run(engine, "-v", "used:/v", "box", "cat", "/v/file") == "kept\n"
    assert is_mounted(str(_data(engine, "used")))
    docker("rm", "-f", "lives", "ends", check=True)
    assert _mounted(engine) == []
    assert (_data(engine, "whole") / "part/file").read_text() == "precious\n"


def test_an_engine_that_was_killed_in_the_middle_of_a_start(engine: Engine) -> None:
    """It had mounted and bound, and no container came of it."""
    docker = engine.docker
    docker("volume", "create", *_TMPFS, "scratch", check=True)
    docker("volume", "create", "whole", check=True)
    identifier = docker(
        "create", "-v", "scratch:/v", "--mount", "type=image,source=box,target=/i", "box", "true"
    ).stdout
    (_data(engine, "whole") / "file").write_text("precious")
    engine.stop(signal.SIGKILL)
    place = pathlib.Path(engine.paths.mounts, identifier.strip(), "0")
    place.mkdir(parents=True)
    m.mount("tmpfs", str(_data(engine, "scratch")), "tmpfs")
    m.mount("tmpfs", str(_data(engine, "scratch")), "tmpfs")
    m.mount(str(_data(engine, "whole")), str(place), flags=m.MS_BIND)
    engine.start()
    assert _mounted(engine) == []
    assert not place.parent.exists()
    assert (_data(engine, "whole") / "file").read_text() == "precious"
    docker("start", "-a", identifier.strip(), check=True)


def test_a_directory_of_the_hosts_as_a_volume(engine: Engine, tmp_path: pathlib.Path) -> None:
    docker = engine.docker
    (tmp_path / "file").write_text("of the host")
    for name, options in (("none", ("type=none", "o=bind,ro")), ("bind", ("type=bind",))):
        words = [word for each in (*options, f"device={tmp_path}") for word in ("-o", each)]
        docker("volume", "create", *words, name, check=True)
        assert _run(engine, "-v", f"{name}:/v", "box", "cat", "/v/file") == "of the host"
    assert docker("run", "--rm", "-v", "none:/v", "box", "touch", "/v/new").returncode == 1
    _run(engine, "-v", "bind:/data", "box", "touch", "/data/new")
    # Nothing of the host's is measured, pruned, filled or removed with the volume.
    assert not [each for each in engine.client.call("GET", "/system/df")["Volumes"] if each["Name"] == "bind"]
    docker("volume", "prune", "-af", check=True)
    docker("volume", "rm", "bind", check=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "new"]


def test_removal_while_something_is_mounted_by_hand(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("precious")
    engine.docker("volume", "create", "data", check=True)
    m.mount(str(tmp_path), str(_data(engine, "data")), flags=m.MS_BIND)
    engine.docker("volume", "rm", "data", check=True)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "type=none device=/no/such o=bind",
            "failed to mount local volume: mount /no/such:{0}, flags: 0x1000: no such file",
        ),
        ("type=zzz device=x o=password=secret", "mount x:{0}, data: password=********: no such device"),
        ("type=tmpfs device=tmpfs o=size=zz", "mount tmpfs:{0}, data: size=zz: invalid argument"),
        ("type=nfs device=:/x o=addr=no..such", "error resolving passed in network volume address: lookup no..such"),
    ],
)
def test_what_cannot_be_mounted(engine: Engine, options: str, message: str) -> None:
    words = [word for each in options.split() for word in ("-o", each)]
    engine.docker("volume", "create", *words, "bad", check=True)
    ran = engine.docker("run", "--name", "bad", "-v", "bad:/v", "box", "true")
    assert ran.returncode != 0
    where = str(_data(engine, "bad"))
    assert f"error while mounting volume '{where}': " in ran.stderr
    assert message.format(where) in ran.stderr
    assert not is_mounted(where)
    engine.docker("rm", "bad", check=True)
    assert engine.left_over() == []


def test_labels_and_options_with_a_mount(engine: Engine) -> None:
    mount = "type=volume,source=made,target=/v,volume-label=a=b,volume-opt=type=tmpfs,volume-opt=device=tmpfs"
    for run in (engine.docker, engine.sampan):
        assert "tmpfs on /v" in run("run", "--rm", "--mount", mount, "box", "mount").stdout
        shown = engine.client.call("GET", "/volumes/made")
        assert (shown["Labels"], shown["Options"]) == ({"a": "b"}, {"type": "tmpfs", "device": "tmpfs"})
        engine.client.call("DELETE", "/volumes/made")


def test_a_volumes_driver(engine: Engine) -> None:
    for run in (engine.docker, engine.sampan):
        made = run("create", "--volume-driver", "local", "-v", "made:/v", "box", "true", check=True).stdout.strip()
        shown = engine.client.call("GET", f"/containers/{made}/json")
        assert (shown["HostConfig"]["VolumeDriver"], shown["Mounts"][0]["Driver"]) == ("local", "local")
    with pytest.raises(NotFound, match='create new: error looking up volume plugin nope: plugin "nope" not found'):
        engine.client.call(
            "POST", "/containers/create",
            {"Image": "box", "Cmd": ["true"], "HostConfig": {"Binds": ["new:/v"], "VolumeDriver": "nope"}},
        )  # fmt: skip


# --- Parts of volumes -----------------------------------------------------------------------------------------


@pytest.fixture
def whole(engine: Engine) -> pathlib.Path:
    engine.docker("volume", "create", "whole", check=True)
    data = _data(engine, "whole")
    (data / "a/b").mkdir(parents=True)
    (data / "a/b/file").write_text("deep\n")
    (data / "file").write_text("alone\n")
    (data / "in").symlink_to("a/b")
    (data / "absolute").symlink_to("/a/b")
    (data / "out").symlink_to("/etc")
    (data / "up").symlink_to("../../../../../../../../etc")
    return data


def _part(path: str) -> tuple[str, str]:
    return "--mount", f"type=volume,source=whole,target=/v,volume-subpath={path}"


def test_subpaths(engine: Engine, whole: pathlib.Path) -> None:
    for path in ("a/b", "in", "absolute", "a/../in", "."):
        prefix = "" if path != "." else "a/b/"
        assert _run(engine, *_part(path), "box", "cat", f"/v/{prefix}file") == "deep\n"
    assert _run(engine, *_part("file"), "box", "cat", "/v") == "alone\n"
    _run(engine, *_part("a"), "box", "touch", "/v/new")
    assert (whole / "a/new").exists()
    # No link leads out of the volume, to what the host has there.
    for path in ("out", "up", "none"):
        ran = engine.docker("run", "--rm", *_part(path), "box", "true")
        assert ran.returncode != 0 and f"cannot access path {whole}/{path}: " in ran.stderr
        assert "no such file or directory" in ran.stderr
    ran = engine.docker("run", "--rm", *_part("file/x"), "box", "true")
    assert ran.returncode == 125 and "not a directory" in ran.stderr
    # A stopped container's part is where docker cp looks, too.
    engine.docker("create", "--name", "stopped", *_part("in"), "box", "true", check=True)
    copied = subprocess.run(
        ["docker", "cp", "stopped:/v/file", "-"], env=engine.environment, capture_output=True, check=True
    )
    assert b"deep\n" in copied.stdout
    assert _mounted(engine) == []


def _swap(data: str, outside: str) -> None:
    """Make a directory a link to another place, and back, as fast as it goes."""
    here = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    os.symlink(outside, "link", dir_fd=here)
    os.symlink("../" * 12 + outside.lstrip("/"), "relative", dir_fd=here)
    while True:
        for name in ("link", "relative"):
            os.rename("part", "kept", src_dir_fd=here, dst_dir_fd=here)
            os.rename(name, "part", src_dir_fd=here, dst_dir_fd=here)
            os.rename("part", name, src_dir_fd=here, dst_dir_fd=here)
            os.rename("kept", "part", src_dir_fd=here, dst_dir_fd=here)


def test_a_subpath_that_becomes_a_link(engine: Engine, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret").touch()
    (whole / "part").mkdir()
    (whole / "part/inside").touch()
    engine.docker("create", "--name", "raced", *_part("part"), "box", "ls", "/v", check=True)
    attacker = multiprocessing.get_context("spawn").Process(target=_swap, args=(str(whole), str(tmp_path)))
    attacker.start()
    seen = set()
    try:
        for _ in range(30):
            ran = engine.docker("start", "-a", "raced")
            assert ran.stdout in ("inside\n", "")
            assert "secret" not in ran.stdout + ran.stderr
            seen.add(ran.stdout)
    finally:
        attacker.kill()
        attacker.join()
    assert "inside\n" in seen


# --- Images ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pinned(engine: Engine) -> Iterator[str]:
    """An image with a layer that no other has."""
    engine.docker("create", "--name", "source", "box", "sh", "-c", "echo own > /data/own", check=True)
    engine.docker("start", "-a", "source", check=True)
    engine.docker("commit", "source", "pinned", check=True)
    engine.docker("rm", "source", check=True)
    yield "pinned"
    engine.remove_containers()
    engine.docker("rmi", "-f", "pinned")


def test_an_image_is_mounted_and_kept_while_it_is(engine: Engine, pinned: str) -> None:
    docker = engine.docker
    mount = ("--mount", "type=image,source=pinned,target=/i")
    part = ("--mount", "type=image,source=pinned,target=/p,image-subpath=data")
    docker("run", "-d", "--name", "has", *mount, *part, "box", "sleep", "600", check=True)
    assert docker("exec", "has", "cat", "/i/data/own", "/p/own").stdout == "own\nown\n"
    assert "Read-only file system" in docker("exec", "has", "touch", "/i/new").stderr
    assert "Read-only file system" in docker("exec", "has", "touch", "/p/new").stderr
    shown = json.loads(docker("inspect", "has").stdout)[0]["Mounts"]
    assert [(each["Type"], each["Name"], each["RW"], each["Propagation"]) for each in shown] == [
        ("image", "pinned", False, "rprivate")
    ] * 2
    for force in ((), ("-f",)):
        refused = docker("rmi", *force, _id(engine, pinned))
        assert refused.returncode == 1 and "is being used by running container" in refused.stderr
    assert docker("rmi", "pinned").returncode == 1
    docker("stop", "-t", "0", "has", check=True)
    assert _mounted(engine) == []
    # A stopped container lets an image go by force only, and keeps the layers that it will want.
    assert docker("rmi", _id(engine, pinned)).returncode == 1
    docker("rmi", "-f", "pinned", check=True)
    docker("start", "has", check=True)
    assert docker("exec", "has", "cat", "/p/own").stdout == "own\n"
    layers = len(os.listdir(f"{engine.paths.overlay2}/l"))
    docker("rm", "-f", "has", check=True)
    assert engine.left_over() == []
    # Of its own, of the two mounts, and the layer that only this image had.
    _until(lambda: len(os.listdir(f"{engine.paths.overlay2}/l")) == layers - 4)
    with pytest.raises(NotFound, match="No such image: pinned:latest"):
        engine.client.call(
            "POST", "/containers/create",
            {
                "Image": "box", "Cmd": ["true"],
                "HostConfig": {"Mounts": [{"Type": "image", "Source": "pinned", "Target": "/i"}]},
            },
        )  # fmt: skip
    assert engine.left_over() == []


def _id(engine: Engine, name: str) -> str:
    return str(engine.client.call("GET", f"/images/{name}/json")["Id"])


# --- Binds ----------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory with another file system in it."""
    made = tmp_path / "source"
    (made / "sub").mkdir(parents=True)
    m.mount("tmpfs", str(made / "sub"), "tmpfs", data="mode=777")
    made.chmod(0o777)
    yield made
    m.umount(str(made / "sub"))


def _host(**host: Any) -> dict[str, Any]:
    return {
        "Image": "box", "Cmd": ["sh", "-c", "touch /v/x; touch /v/sub/x"],
        "HostConfig": {"NetworkMode": "none", **host},
    }  # fmt: skip


def test_read_only_means_all_of_it(engine: Engine, source: pathlib.Path) -> None:
    """As with Docker since API 1.44: the mounts in it too, unless it is asked otherwise."""
    mount = {"Type": "bind", "Source": str(source), "Target": "/v", "ReadOnly": True}

    def written(version: str, host: dict[str, Any]) -> list[str]:
        made = _called(engine, version, "/containers/create", _host(**host))["Id"]
        engine.client.call("POST", f"/containers/{made}/start")
        engine.client.call("POST", f"/containers/{made}/wait")
        found = [name for name in ("x", "sub/x") if (source / name).exists()]
        for name in found:
            (source / name).unlink()
        engine.client.call("DELETE", f"/containers/{made}")
        return found

    assert written("1.51", {"Binds": [f"{source}:/v"]}) == ["x", "sub/x"]
    assert written("1.51", {"Binds": [f"{source}:/v:ro"]}) == []
    assert written("1.43", {"Binds": [f"{source}:/v:ro"]}) == ["sub/x"]
    assert written("1.51", {"Mounts": [mount]}) == []
    for options, found in (({"ReadOnlyNonRecursive": True}, ["sub/x"]), ({"ReadOnlyForceRecursive": True}, [])):
        assert written("1.51", {"Mounts": [{**mount, "BindOptions": options}]}) == found
    # Without the mount in it, what lies below that is written to, or not there.
    assert written("1.51", {"Mounts": [{**mount, "ReadOnly": False, "BindOptions": {"NonRecursive": True}}]}) == ["x"]
    assert not (source / "sub/x").exists()


def test_the_order_of_volumes_from(engine: Engine) -> None:
    docker = engine.docker
    docker("create", "--name", "a1", "-v", "va:/one", "-v", "vb:/two:ro", "box", "true", check=True)
    docker("create", "--name", "b1", "-v", "vc:/one", "box", "true", check=True)

    def shown(*words: str) -> dict[str, tuple[str, bool]]:
        made = docker("create", *words, "box", "true", check=True).stdout.strip()
        mounts = json.loads(docker("inspect", made).stdout)[0]["Mounts"]
        return {each["Destination"]: (each["Name"], each["RW"]) for each in mounts}

    both = ("--volumes-from", "a1", "--volumes-from", "b1")
    assert shown(*both) == {"/one": ("vc", True), "/two": ("vb", False)}
    assert shown("--volumes-from", "b1", "--volumes-from", "a1:ro") == {"/one": ("va", False), "/two": ("vb", False)}
    assert shown(*both, "-v", "vd:/two") == {"/one": ("vc", True), "/two": ("vd", True)}


_WRITE = "touch /v/made; stat -c %u:%g /v /v/made; stat -c %u /v/others"


def test_a_bind_mount_that_belongs_to_the_containers_user(engine: Engine, tmp_path: pathlib.Path) -> None:
    """moby#2259: no chown, and what is made is the owner's on the host."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "others").touch()
    os.chown(shared, 4321, 4322)
    os.chown(shared / "others", 555, 555)
    mount = f"type=bind,source={shared},target=/v"
    for run, user, words in (
        (engine.sampan, "1000:1000", ("--mount", f"{mount},idmap=match-user")),
        (engine.sampan, "user", ("--mount", f"{mount},idmap")),
        (engine.docker, "1000:1000", ("-v", f"{shared}:/v:idmap")),
    ):
        seen = run("run", "--rm", "-u", user, *words, "box", "sh", "-c", _WRITE)
        assert (seen.stdout, seen.stderr) == ("1000:1000\n1000:1000\n555\n", "")
        made = (shared / "made").stat()
        assert (made.st_uid, made.st_gid) == (4321, 4322)
        (shared / "made").unlink()
    # Another user of the container's may be named; and root, who may do what he may with every mount.
    seen = engine.sampan("run", "--rm", "--mount", f"{mount},idmap=match-user:user", "box", "sh", "-c", _WRITE)
    assert seen.stdout == "1000:1000\n0:0\n555\n"
    seen = engine.sampan("run", "--rm", "--mount", f"{mount},idmap=match-user", "box", "stat", "-c", "%u", "/v")
    assert seen.stdout == "0\n"


def test_ids_that_cannot_be_mapped(engine: Engine, tmp_path: pathlib.Path) -> None:
    """A mount whose ids are mapped already, or a file system that does not know how: said, and nothing is left."""
    for source, message in (("/proc/sys", "mapping its ids: invalid argument"),):
        mount = f"type=bind,source={source},target=/v,idmap=match-user"
        ran = engine.sampan("run", "--rm", "-u", "1000", "--mount", mount, "box", "true")
        assert ran.returncode == 125 and message in ran.stderr
    ran = engine.sampan("run", "--rm", "--mount", f"type=bind,source={tmp_path},target=/v,idmap=userns", "box", "true")
    assert ran.returncode == 125 and "IDMapping by a user namespace is not supported" in ran.stderr
    ran = engine.sampan(
        "run", "--rm", "--mount", f"type=bind,source={tmp_path},target=/v,idmap=match-user:nobody", "box", "true"
    )
    assert ran.returncode == 125 and "unable to find user nobody" in ran.stderr
    assert engine.left_over() == []


def test_mounts_that_are_given_to_the_containers_user(engine: Engine, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    given = tmp_path / "given"
    (given / "deep").mkdir(parents=True)
    (given / "deep/file").touch()
    (given / "link").symlink_to(outside)
    for source in (str(given), "named"):
        look = "stat -c %u:%g /v; [ ! -e /v/deep ] || stat -c %u:%g /v/deep/file"
        seen = _run(engine, "-u", "user", "-v", f"{source}:/v:U", "box", "sh", "-c", look)
        assert set(seen.split()) == {"1000:1000"}
    assert outside.stat().st_uid == 0
    assert (given / "link").lstat().st_uid == 1000
    for system in ("/", "/etc", "/usr/lib", "/etc/../var/lib/"):
        refused = engine.docker("run", "--rm", "-u", "1000", "-v", f"{system}:/v:U", "box", "true")
        assert refused.returncode == 125 and "is the system's own: its owner is not changed" in refused.stderr


# --- The API --------------------------------------------------------------------------------------------------


def test_filters_and_prune(engine: Engine) -> None:
    call = engine.client.call
    for name, labels in (("t1", {"a": "b"}), ("t2", {"c": ""}), ("xt", None)):
        call("POST", "/volumes/create", {"Name": name, "Labels": labels})
    engine.docker("volume", "create", *_TMPFS, "opt", check=True)
    engine.docker("create", "--name", "user", "-v", "xt:/v", "box", "true", check=True)

    def listed(**filters: list[str]) -> set[str]:
        return {each["Name"] for each in call("GET", "/volumes", filters=filters)["Volumes"]}

    assert listed(dangling=["true"]) == {"t1", "t2", "opt"}
    assert listed(dangling=["0"]) == {"xt"}
    assert listed(name=["^t1$", "x"]) == {"t1", "xt"}
    assert listed(name=["t."]) == {"t1", "t2"}
    assert listed(label=["a"]) == {"t1"}
    assert listed(driver=["other"]) == set()
    with pytest.raises(SampanError, match=r"invalid filter 'label!'"):
        listed(**{"label!": ["a"]})
    assert call("POST", "/volumes/prune")["VolumesDeleted"] == []
    assert call("POST", "/volumes/prune", filters={"all": ["1"], "label!": ["a"]})["VolumesDeleted"] == ["t2"]
    # Before API 1.42 all were meant, named ones too.
    assert _called(engine, "1.41", "/volumes/prune")["VolumesDeleted"] == ["t1"]
    with pytest.raises(Conflict, match="volume is in use"):
        call("DELETE", "/volumes/xt", force=True)
    assert listed() == {"xt", "opt"}
