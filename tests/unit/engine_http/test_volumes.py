"""The volumes service: names, use, removal, and what a kill leaves."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import pytest

from sampan.core.metadata import Metadata
from sampan.engine.volumes import ANONYMOUS_LABEL, Volumes
from sampan.errors import Conflict, InvalidArgument, NotFound, SampanError


class Host:
    """A data root, whose volumes can be opened again as after a kill."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.root = directory / "volumes"
        self.users: dict[str, list[str]] = {}
        self.events: list[tuple[str, str]] = []
        self._database = str(directory / "state.db")
        self.metadata = Metadata(self._database)

    def _publish(self, kind: str, action: str, name: str, attributes: Mapping[str, str]) -> None:
        assert kind == "volume"
        self.events.append((action, name))

    def open(self) -> Volumes:
        self.metadata.close()
        self.metadata = Metadata(self._database)
        return Volumes(self.metadata, str(self.root), self._publish, lambda name: self.users.get(name, []))


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.metadata.close()


def test_created_once_and_kept(host: Host) -> None:
    volumes = host.open()
    made = volumes.create("data", {"a": "b"})
    (pathlib.Path(made.mountpoint) / "file").write_text("x")
    assert volumes.create("data", {"other": ""}) == made
    again = host.open()
    assert again.get("data") == made
    assert (pathlib.Path(made.mountpoint) / "file").read_text() == "x"
    assert made.mountpoint == f"{host.root}/data/_data"
    assert host.events == [("create", "data")]


def test_labels_that_were_not_given_are_not_an_empty_set(host: Host) -> None:
    volumes = host.open()
    volumes.create("none")
    volumes.create("empty", {})
    again = host.open()
    assert (again.get("none").labelled, again.get("empty").labelled) == (False, True)


@pytest.mark.parametrize(
    ("name", "driver", "options", "kind", "message"),
    [
        ("a", "", {}, InvalidArgument, "create a: volume name is too short"),
        ("../x", "", {}, InvalidArgument, r'create \.\./x: "\.\./x" includes invalid characters'),
        (".hidden", "", {}, InvalidArgument, "includes invalid characters"),
        ("data", "nfs", {}, NotFound, 'create data: error looking up volume plugin nfs: plugin "nfs" not found'),
        ("data", "local", {"zz": "1"}, InvalidArgument, 'create data: invalid option: "zz"'),
        ("data", "local", {"type": "nfs"}, InvalidArgument, 'create data: missing required option: "device"'),
        ("data", "local", {"device": "x"}, InvalidArgument, 'create data: missing required option: "type"'),
        ("data", "local", {"o": "x"}, InvalidArgument, 'create data: missing required option: "device"'),
        ("data", "local", {"size": "x"}, InvalidArgument, "create data: invalid size: 'x'"),
        ("data", "local", {"size": "1g"}, InvalidArgument, "create data: quota size requested but no quota support"),
    ],
)
def test_refused(
    host: Host, name: str, driver: str, options: dict[str, str], kind: type[SampanError], message: str
) -> None:
    volumes = host.open()
    with pytest.raises(kind, match=message):
        volumes.create(name, driver=driver, options=options)
    assert list(host.root.iterdir()) == []
    assert volumes.list() == []


def test_removal(host: Host) -> None:
    volumes = host.open()
    volumes.create("data")
    host.users["data"] = ["c1", "c2"]
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[c1, c2\]"):
        volumes.remove("data", force=True)
    host.users.clear()
    volumes.remove("data")
    assert list(host.root.iterdir()) == []
    with pytest.raises(NotFound, match="get data: no such volume"):
        volumes.remove("data")
    volumes.remove("data", force=True)
    assert host.events == [("create", "data"), ("destroy", "data")]


def test_prune_takes_what_is_wanted_and_not_used(host: Host) -> None:
    volumes = host.open()
    used, unused = volumes.anonymous(), volumes.anonymous({"x": "y"})
    volumes.create("named")
    (pathlib.Path(unused.mountpoint) / "file").write_bytes(b"12345")
    (pathlib.Path(unused.mountpoint) / "again").hardlink_to(pathlib.Path(unused.mountpoint) / "file")
    host.users[used.name] = ["c1"]
    assert unused.labels == {"x": "y", ANONYMOUS_LABEL: ""}
    assert volumes.prune(lambda volume: volume.anonymous) == ((unused.name,), 5)
    assert {volume.name for volume in volumes.list()} == {used.name, "named"}
    assert host.events[-1] == ("prune", "")


def test_options_are_kept(host: Host) -> None:
    volumes = host.open()
    tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    volumes.create("mounted", options=tmpfs)
    volumes.create("empty", options={})
    volumes.create("size", options={"size": "0"})
    again = host.open()
    found = [(again.get(name).options, again.get(name).mounted_on_use) for name in ("mounted", "empty", "size")]
    assert found == [(tmpfs, True), ({}, False), ({"size": "0"}, False)]
    # What has options is nowhere that a prune may measure or remove.
    assert again.prune(lambda volume: True)[0] == ("empty",)


def test_a_database_of_the_version_before(host: Host) -> None:
    with host.metadata.transaction() as cursor:
        cursor.execute(
            "CREATE TABLE volume (name TEXT PRIMARY KEY, created INTEGER NOT NULL, labels BLOB NOT NULL) WITHOUT ROWID"
        )
        cursor.execute("INSERT INTO migration VALUES ('volume-1')")
        cursor.execute("INSERT INTO volume VALUES ('old', 5, 'null')")
    volumes = host.open()
    assert (volumes.get("old").created, volumes.get("old").options) == (5, None)


def test_what_is_held_is_not_removed(host: Host) -> None:
    volumes = host.open()
    volumes.create("data")
    volumes.use("data", "one")
    volumes.use("data", "two")
    volumes.let_go("one", ["data"])
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[two\]"):
        volumes.remove("data", force=True)
    volumes.let_go("two", ["data"])
    volumes.let_go("two", ["data", "gone"])
    volumes.remove("data")
    with pytest.raises(NotFound):
        volumes.use("data", "one")


def test_what_a_kill_leaves(host: Host) -> None:
    volumes = host.open()
    for name in ("kept", "going", "gone"):
        made = volumes.create(name)
        (pathlib.Path(made.mountpoint) / "file").write_text(name)
    # Killed in the middle of a removal: after the rename, and after the row.
    (host.root / "going").rename(host.root / ".removed-going")
    volumes.remove("gone")
    (host.root / ".removed-gone" / "_data").mkdir(parents=True)
    # In the middle of a creation, which had put nothing inside yet; and a row lost with its data there.
    (host.root / "begun" / "_data").mkdir(parents=True)
    (host.root / "found" / "_data").mkdir(parents=True)
    (host.root / "found" / "_data" / "file").write_text("precious")
    again = host.open()
    assert [volume.name for volume in again.list()] == ["kept", "found"]
    assert {path.name for path in host.root.iterdir()} == {"kept", "found"}
    assert (host.root / "found" / "_data" / "file").read_text() == "precious"
    again.create("going")
    assert host.open().get("found").name == "found"
