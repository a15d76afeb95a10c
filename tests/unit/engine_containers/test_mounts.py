"""`-v`, `--mount` and `--volumes-from`: what they mean, and what is refused, in Docker's words."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from sampan.api.containers import HostConfig, IDMapping, Mount
from sampan.engine.containers.mounts import borrowed, from_mount, parse_bind, wanted_mounts
from sampan.engine.containers.ownership import exchanged
from sampan.engine.containers.record import MountPoint
from sampan.errors import InvalidArgument, SampanError, Unsupported

ROOT = "/var/lib/sampan"


def mount(**members: Any) -> MountPoint:
    return from_mount(msgspec.convert({"Target": "/v", **members}, Mount), ROOT)


@pytest.mark.parametrize(
    ("mode", "writable", "shown"), [("ro", False, "ro"), ("", True, "z"), ("Z,rw", True, "Z,rw"), ("U", True, "U")]
)
def test_modes(mode: str, writable: bool, shown: str) -> None:
    point = parse_bind(f"data:/v:{mode}" if mode else "data:/v", ROOT)
    assert (point.writable, point.mode, point.chown) == (writable, shown, mode == "U")


def test_words_of_binds() -> None:
    assert parse_bind("/srv:/v:idmap", ROOT).id_mapping == IDMapping(source="match-user")
    assert not parse_bind("data:/v:nocopy", ROOT).copy
    assert parse_bind("/srv:/v:ro,rshared,z", ROOT).propagation == "rshared"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/a:/v:ro,rw", "invalid mode: ro,rw"),
        ("/a:/v:z,Z", "invalid mode: z,Z"),
        ("/a:/v:rslave,rshared", "invalid mode: rslave,rshared"),
        ("/a:/v:zz", "invalid mode: zz"),
        ("/a:/v:bind", "invalid mode: bind"),
        ("data:/v:rslave", 'invalid mount config for type "volume": field BindOptions must not be specified'),
        ("data:/v:idmap", 'invalid mount config for type "volume": field BindOptions must not be specified'),
        ("/a:/v:nocopy", 'invalid mount config for type "bind": field VolumeOptions must not be specified'),
    ],
)
def test_bad_modes(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        parse_bind(text, ROOT)


@pytest.mark.parametrize(
    ("members", "kind", "message"),
    [
        ({"Type": "cluster"}, InvalidArgument, 'for type "cluster": mount type unknown'),
        ({"Type": "image"}, InvalidArgument, "field Source must not be empty"),
        ({"Type": "image", "Source": "a", "VolumeOptions": {}}, InvalidArgument,
         'VolumeOptions must not be specified on mount type "image"'),
        ({"Type": "volume", "Source": "a", "BindOptions": {}}, InvalidArgument,
         'BindOptions must not be specified on mount type "volume"'),
        ({"Type": "volume", "VolumeOptions": {"Subpath": "x"}}, InvalidArgument,
         "must not set Subpath when using anonymous volumes"),
        ({"Type": "volume", "Source": "a", "VolumeOptions": {"Subpath": "/x"}}, InvalidArgument,
         "subpath must be a relative path within the volume"),
        ({"Type": "volume", "Source": "a", "VolumeOptions": {"Subpath": "x/../.."}}, InvalidArgument,
         "subpath must be a relative path within the volume"),
        ({"Type": "bind", "Source": "/", "BindOptions": {"ReadOnlyForceRecursive": True}}, InvalidArgument,
         "mount options conflict: !ReadOnly && BindOptions.ReadOnlyForceRecursive"),
        ({"Type": "bind", "Source": "/", "BindOptions": {"ReadOnlyNonRecursive": True}}, InvalidArgument,
         "mount options conflict: !ReadOnly && BindOptions.ReadOnlyNonRecursive"),
        ({"Type": "bind", "Source": "/", "ReadOnly": True,
          "BindOptions": {"ReadOnlyNonRecursive": True, "ReadOnlyForceRecursive": True}}, InvalidArgument,
         "mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive"),
        ({"Type": "bind", "Source": "/tmp", "BindOptions": {"IDMapping": {"Source": "x"}}}, InvalidArgument,
         "invalid IDMapping.Source: 'x'"),
        ({"Type": "bind", "Source": "/tmp", "BindOptions": {"IDMapping": {"Source": "userns"}}}, Unsupported,
         "IDMapping by a user namespace is not supported"),
        ({"Type": "tmpfs", "TmpfsOptions": {"Options": [["uid", "7"]]}}, InvalidArgument, "invalid option: uid"),
        ({"Type": "tmpfs", "TmpfsOptions": {"Options": [["a", "b", "c"]]}}, InvalidArgument,
         "invalid option array length"),
    ],
)  # fmt: skip
def test_bad_mounts(members: dict[str, Any], kind: type[SampanError], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        mount(**members)


def test_mounts() -> None:
    assert mount(Type="tmpfs", TmpfsOptions={"SizeBytes": 4096, "Mode": 0o700, "Options": [["exec"]]}).options == (
        "size=4096", "mode=700", "exec",
    )  # fmt: skip
    point = mount(Type="image", Source="box", ImageOptions={"Subpath": "data"})
    assert (point.writable, point.propagation, point.subpath) == (False, "rprivate", "data")
    assert not mount(
        Type="bind", Source="/tmp", ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True}
    ).deep_read_only


def test_of_those_that_are_borrowed_the_last_counts() -> None:
    first = [MountPoint(type="volume", name="a", destination="/one", mode="z"),
             MountPoint(type="volume", name="b", destination="/two", mode="ro", writable=False)]  # fmt: skip
    second = [MountPoint(type="volume", name="c", destination="/one"), MountPoint(type="tmpfs", destination="/t")]
    points = wanted_mounts(HostConfig(binds=("d:/two",)), (), ROOT, [*borrowed(first, ""), *borrowed(second, "ro")])
    assert {point.destination: (point.name, point.writable, point.mode) for point in points} == {
        "/one": ("c", False, ""), "/two": ("d", True, "z"),
    }  # fmt: skip
    assert not borrowed(first, "rw")[1].writable


@pytest.mark.parametrize(("outside", "inside"), [(0, 0), (0, 1000), (1000, 0), (7, 8), (8, 7), (5, (1 << 32) - 2)])
def test_two_ids_change_places_and_all_others_stay(outside: int, inside: int) -> None:
    pieces = [(each.container_id, each.host_id, each.size) for each in exchanged(outside, inside)]

    def seen(identifier: int) -> int:
        (found,) = [there + identifier - here for here, there, size in pieces if here <= identifier < here + size]
        return found

    others = {0, 1, 6, 9, 999, 1001, (1 << 32) - 3} - {outside, inside}
    assert (seen(outside), seen(inside)) == (inside, outside)
    assert all(seen(each) == each for each in others)
    assert sum(size for _, _, size in pieces) == (1 << 32) - 1
