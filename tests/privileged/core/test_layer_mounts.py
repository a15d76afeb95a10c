"""Containers' file systems over layers of both bodies, and who has which layer mounted."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import stat
import time
from collections.abc import Iterator

import pytest

from sampan.core.metadata import Metadata
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.errors import DataCorrupt, ResourceExhausted
from sampan.linux.mount import mounts
from sampan.oci.digest import ChainID, Digest
from tests.privileged.core.layers import BODIES, DIR, LNK, SYM, entry, tar

pytestmark = pytest.mark.requires("root", "overlay", "erofs", "kernel:6.12")

LOWEST = tar(
    entry(b"d/", DIR, mode=0o755), entry(b"d/one", data=b"1" * 5000), entry(b"d/two", data=b"2"),
    entry(b"gone", data=b"g"), entry(b"kept", data=b"k", pax={b"SCHILY.xattr.user.k": b"v"}),
    entry(b"hard", LNK, target=b"kept"), entry(b"replaced/", DIR), entry(b"replaced/old", data=b"o"),
    entry(b"lib", SYM, target=b"d"),
)  # fmt: skip
MIDDLE = tar(
    entry(b".wh.gone"), entry(b"d/.wh.one"), entry(b"replaced/.wh..wh..opq"), entry(b"replaced/new", data=b"n")
)
TOP = tar(entry(b"./", DIR, mode=0o711, uid=9), entry(b"d/three", data=b"3"), entry(b"d/one", data=b"again"))


def add(store: Overlay2, *archives: bytes) -> list[ChainID]:
    chain: list[ChainID] = []
    for data in archives:
        diff_id = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        parent = chain[-1] if chain else None
        name = f"{parent} {diff_id}" if parent else diff_id
        chain.append(ChainID("sha256:" + hashlib.sha256(name.encode()).hexdigest() if parent else name))
        store.add_layer(chain[-1], parent, store.make_body(diff_id, io.BytesIO(data)))
    return chain


def opened(at: pathlib.Path, body: str = "", linger: float = 0) -> Overlay2:
    (at / "overlay2").mkdir(exist_ok=True)
    return Overlay2(str(at / "overlay2"), Metadata(str(at / "state.db")), layers=body, linger=linger)


def mounted(store: Overlay2) -> list[str]:
    return sorted(each.point for each in mounts() if each.point.startswith(store.root + "/"))


@pytest.fixture(params=BODIES)
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Overlay2]:
    store = opened(tmp_path, request.param)
    yield store
    for each in store.containers():
        store.remove_container(each)
    for chain_id in set(store.layers()) - set(store.layers().values()):
        store.remove_layer(chain_id)
    assert mounted(store) == []


def test_layers_over_layers(store: Overlay2) -> None:
    chain = add(store, LOWEST, MIDDLE, TOP)
    store.create_container("c", chain[-1])
    root = pathlib.Path(store.mount("c"))
    assert sorted(os.listdir(root)) == ["d", "hard", "kept", "lib", "replaced"]
    assert sorted(os.listdir(root / "d")) == ["one", "three", "two"]
    assert (root / "d/one").read_text() == "again"
    assert os.listdir(root / "replaced") == ["new"]
    assert (root / "lib/three").read_text() == "3"
    found = os.stat(root)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o711, 9)
    assert os.stat(root / "hard").st_nlink == 2
    # One file system, as programs see it: find -xdev and tar --one-file-system leave nothing out.
    assert {os.lstat(at / name).st_dev for at, names in ((root, os.listdir(root)), (root / "d", os.listdir(root / "d")))
            for name in names} == {found.st_dev}  # fmt: skip
    number = os.stat(root / "d/one").st_ino
    with open(root / "kept", "a") as file:
        file.write("ept")
    assert (root / "kept").read_text() == "kept"
    assert os.getxattr(root / "kept", "user.k") == b"v"
    os.unlink(root / "d/two")
    os.rename(root / "d/three", root / "moved")
    os.setxattr(root / "d/one", "user.new", b"x")
    assert os.stat(root / "d/one").st_ino == number
    (root / "replaced/new").unlink()
    (root / "replaced").rmdir()
    store.unmount("c")
    root = pathlib.Path(store.mount("c"))
    assert sorted(os.listdir(root)) == ["d", "hard", "kept", "lib", "moved"]
    assert os.listdir(root / "d") == ["one"]
    assert (root / "moved").read_text() == "3"
    assert (root / "d/one").read_text() == "again"


def test_the_tar_is_there_as_it_came(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path)
    (chain_id,) = add(store, LOWEST + b"what is behind the end")
    tar = store.open_tar(chain_id)
    assert tar is not None
    with tar:
        assert tar.read() == LOWEST + b"what is behind the end"
    unpacked = opened(tmp_path, "unpacked")
    assert unpacked.open_tar(add(unpacked, TOP)[0]) is None
    for each in (chain_id, *store.layers()):
        store.remove_layer(each)
    assert os.listdir(store.root) == ["l"]


def test_a_layer_is_mounted_while_somebody_uses_it(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path)
    assert store.body() == "indexed"
    chain = add(store, LOWEST, MIDDLE)
    for name, top in (("a", chain[1]), ("b", chain[0]), ("c", chain[1])):
        store.create_container(name, top)
    assert mounted(store) == []
    below = store.graph_data("a").lower_dir.split(":")
    merged = {name: store.mount(name) for name in ("a", "b")}
    assert mounted(store) == sorted([*below, *merged.values()])
    assert os.listdir(below[1])
    assert store.mount("a") == merged["a"]
    store.unmount("a")
    store.unmount("a")
    assert mounted(store) == sorted([below[1], merged["b"]])
    # What is lazily unmounted keeps its layers, whatever happens to the mounts beside it.
    file = open(f"{merged['b']}/d/one", "rb")  # noqa: SIM115
    store.remove_container("b")
    assert mounted(store) == []
    assert file.read() == b"1" * 5000
    file.close()
    for name in ("a", "c"):
        store.remove_container(name)
    store.remove_layer(chain[1])
    store.remove_layer(chain[0])
    assert os.listdir(store.root) == ["l"]


def test_a_layer_stays_mounted_for_a_while(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path, linger=0.3)
    chain = add(store, LOWEST, MIDDLE)
    store.create_container("a", chain[0])
    store.create_container("b", chain[1])
    store.mount("b")
    store.unmount("b")
    below = store.graph_data("b").lower_dir.split(":")
    assert mounted(store) == sorted(below)
    number = os.stat(below[1]).st_dev
    store.mount("a")
    assert os.stat(below[1]).st_dev == number  # The same mount as before.
    deadline = time.monotonic() + 10
    while below[0] in mounted(store):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert below[1] in mounted(store)  # Somebody has it again.
    store.remove_container("a")
    assert mounted(store) == [below[1]]
    store.close()
    assert mounted(store) == []
    store.mount("b")
    store.remove_container("b")
    for each in reversed(chain):
        store.remove_layer(each)  # Mounted as it is.
    assert os.listdir(store.root) == ["l"]


def test_the_next_engine_takes_over_mounts(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path)
    chain = add(store, LOWEST, MIDDLE, TOP)
    store.create_container("lives", chain[1])
    store.create_container("dies", chain[2])
    merged = [store.mount("lives"), store.mount("dies")]
    # As a kill between the two unmounts leaves it: the container's is gone, its layers' are not.
    store._unmount(merged[1])
    again = opened(tmp_path)
    lower = again.graph_data("lives").lower_dir.split(":")
    assert mounted(again) == sorted([*lower, merged[0]])
    assert (pathlib.Path(merged[0]) / "kept").read_text() == "k"
    assert again.mount("dies") == merged[1]
    again.unmount("dies")
    assert mounted(again) == sorted([*lower, merged[0]])
    again.unmount("lives")
    assert mounted(again) == []
    for each in ("lives", "dies"):
        again.remove_container(each)
    for each in reversed(chain):
        again.remove_layer(each)
    assert os.listdir(again.root) == ["l"]


def test_a_layer_that_was_never_recorded_goes_with_its_mount(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path)
    (chain_id,) = add(store, LOWEST)
    store.create_container("c", chain_id)
    store.mount("c")
    with store._metadata.transaction() as cursor:
        cursor.execute("DELETE FROM container_layer")
        cursor.execute("DELETE FROM layer")
    again = opened(tmp_path)
    assert mounted(again) == []
    assert os.listdir(again.root) == ["l"]


def test_a_container_over_a_broken_index_is_not_mounted(tmp_path: pathlib.Path) -> None:
    store = opened(tmp_path)
    chain = add(store, LOWEST, MIDDLE)
    store.create_container("c", chain[1])
    index = pathlib.Path(store.graph_data("c").lower_dir.split(":")[1]).parent / "layer.erofs"
    index.write_bytes(bytes(8192))
    with pytest.raises(ResourceExhausted, match="mount the file system of container c"):
        store.mount("c")
    assert mounted(store) == []
    store.remove_container("c")
    store.remove_layer(chain[1])
    store.remove_layer(chain[0])


def test_a_layer_with_another_digest_leaves_nothing(store: Overlay2) -> None:
    with pytest.raises(DataCorrupt, match="its content hashes to"):
        store.make_body(Digest("sha256:" + "2" * 64), io.BytesIO(LOWEST))
    assert os.listdir(store.root) == ["l"]
    assert os.listdir(f"{store.root}/l") == []


def test_a_data_root_with_a_comma(tmp_path: pathlib.Path) -> None:
    odd = tmp_path / "a,b:c"
    odd.mkdir()
    store = opened(odd)
    assert store.body() == "indexed"
    (chain_id,) = add(store, LOWEST)
    store.create_container("c", chain_id)
    assert (pathlib.Path(store.mount("c")) / "kept").read_text() == "k"
    store.remove_container("c")
    store.remove_layer(chain_id)
    assert mounted(store) == []
