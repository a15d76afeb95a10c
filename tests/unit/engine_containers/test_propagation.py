"""Volumes that share with the host: what the root must be, and what the host must have."""

from __future__ import annotations

import os
import pathlib

import pytest

from sampan.engine.containers.mounts import parse_bind
from sampan.engine.containers.propagation import checked, of_root
from sampan.engine.containers.record import MountPoint
from sampan.errors import InvalidArgument
from sampan.linux import mount as m

FOLLOWING = {"slave", "rslave"}
SHARING = FOLLOWING | {"shared", "rshared"}


def _point(propagation: str, source: str = "/v/below") -> MountPoint:
    return MountPoint(type="bind", source=source, destination="/x", propagation=propagation)


@pytest.mark.parametrize(
    ("asked", "root"),
    [
        ((), ""), (("rprivate", ""), ""), (("slave",), "rslave"), (("rslave", "private"), "rslave"),
        (("rslave", "shared"), "shared"), (("rshared",), "shared"),
    ],
)  # fmt: skip
def test_the_root_lets_volumes_be_what_they_ask_for(asked: tuple[str, ...], root: str) -> None:
    assert of_root(_point(each) for each in asked) == root


@pytest.mark.parametrize(
    ("tags", "allowed"),
    [
        ((), set()), (("shared:3",), SHARING),
        (("master:3",), FOLLOWING), (("unbindable",), set()),
        (("shared:1", "master:3"), SHARING),
    ],
)  # fmt: skip
def test_what_the_source_must_lie_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, tags: tuple[str, ...], allowed: set[str]
) -> None:
    mounts = [
        m.Mount("/", "/", "ext4", ("shared:1",)), m.Mount("/", "/v", "tmpfs", ("shared:2",)),
        m.Mount("/", "/v", "tmpfs", tags), m.Mount("/", "/v/below-not", "tmpfs", ("shared:5",)),
    ]  # fmt: skip
    monkeypatch.setattr(m, "mounts", lambda: mounts)
    os.symlink("/v/below", tmp_path / "link")
    for source in ("/v/below", "/v", str(tmp_path / "link")):
        for kind in ("private", "rprivate", "", "shared", "rshared", "slave", "rslave"):
            if kind in allowed or kind not in SHARING:
                checked((_point(kind, source),))
            else:
                wanted = "shared or slave" if kind.endswith("slave") else "shared"
                with pytest.raises(
                    InvalidArgument, match=f"path {source} is mounted on /v but it is not a {wanted} mount"
                ):
                    checked((_point(kind, source),))


def test_what_holds_the_data_root_follows_the_host_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("/", "/var", "/var/lib/sampan", "/var/lib/sampan/volumes"):
        point = parse_bind(f"{source}:/x", "/var/lib/sampan")
        assert (point.propagation, point.follows) == ("rslave", True)
        with pytest.raises(InvalidArgument, match='must use either propagation mode "rslave" or "rshared"'):
            parse_bind(f"{source}:/x:private", "/var/lib/sampan")
        assert parse_bind(f"{source}:/x:rshared", "/var/lib/sampan").propagation == "rshared"
    for source in ("/va", "/var/lib/sampan2", "/etc"):
        assert parse_bind(f"{source}:/x", "/var/lib/sampan").propagation == "rprivate"
    point = parse_bind("/var:/x", "/var/lib/sampan")
    for tags, propagation in (((), "rprivate"), (("shared:1",), "rslave")):
        monkeypatch.setattr(m, "mounts", lambda tags=tags: [m.Mount("/", "/", "ext4", tags)])
        assert [each.propagation for each in checked((point,))] == [propagation]


def test_the_table_of_mounts() -> None:
    found = m.mounts()
    assert any(each.point == "/" for each in found)
    assert any((each.point, each.kind, each.root) == ("/proc", "proc", "/") for each in found)
    for each in found:
        assert all(tag.partition(":")[0] in ("shared", "master", "propagate_from", "unbindable") for tag in each.tags)
