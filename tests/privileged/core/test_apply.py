"""Hostile and ordinary archives, applied."""

from __future__ import annotations

import io
import os
import pathlib
import stat
import tarfile

import pytest

from sampan.core.content import ContentStore
from sampan.core.paths import Paths
from sampan.core.service import Core
from sampan.core.snapshots.apply import apply_layer
from sampan.errors import DataCorrupt, InvalidArgument, NotFound, SampanError
from sampan.oci.image import RunConfig
from sampan.oci.reference import parse_reference

pytestmark = pytest.mark.requires("root", "overlay")

Entry = tuple[str, bytes, str]
"""A name, tarfile's type, and the target of a link or the content of a file."""


def archive(*entries: Entry, **more: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
            for key, value in more.items():
                setattr(entry, key, value)
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
                file.addfile(entry, io.BytesIO(text.encode()))
            else:
                entry.linkname = text
                file.addfile(entry)
    return buffer.getvalue()


DIR, REG, SYM, LNK = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [("../out", REG, "x")],
        [("a/../../out", REG, "x")],
        [("link", SYM, "/"), ("link/out", REG, "x")],
        [("link", SYM, "../../.."), ("link/out", REG, "x")],
        [("a", SYM, "b"), ("b", SYM, "/"), ("a/out", REG, "x")],
        [("hard", LNK, "../secret")],
        [("link", SYM, ".."), ("hard", LNK, "link/secret")],
        [(".wh...", REG, "")],
        [("/out", REG, "x")],
        [("d/.wh.", REG, "")],
    ],
)
def test_nothing_leaves_the_layer(tmp_path: pathlib.Path, entries: list[Entry]) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (tmp_path / "secret").write_text("secret")
    before = sorted(os.listdir("/"))
    try:
        apply_layer(io.BytesIO(archive(*entries)), str(layer))
    except SampanError as error:
        assert "\n" not in error.message
    assert sorted(os.listdir(tmp_path)) == ["layer", "secret"]
    assert sorted(os.listdir("/")) == before
    for at, _, names in os.walk(layer):
        for name in names:
            assert not os.path.samefile(tmp_path / "secret", f"{at}/{name}") or os.path.islink(f"{at}/{name}")


def test_what_an_archive_says_is_what_there_is(tmp_path: pathlib.Path) -> None:
    data = archive(
        ("d/deep/file", REG, "one"), ("d/deep/file", REG, "two"), ("d/hard", LNK, "d/deep/file"),
        ("d/sym", SYM, "deep"),
        uid=5, gid=6, mtime=1_000_000_000, pax_headers={"mtime": "1000000000.123456789", "SCHILY.xattr.user.k": "v"},
    )  # fmt: skip
    apply_layer(io.BytesIO(data), str(tmp_path))
    found = os.stat(tmp_path / "d/deep/file")
    assert (tmp_path / "d/deep/file").read_text() == "two"
    assert (found.st_uid, found.st_gid, found.st_mtime_ns, found.st_nlink) == (5, 6, 1_000_000_000_123_456_789, 2)
    assert os.getxattr(tmp_path / "d/hard", "user.k") == b"v"
    assert os.readlink(tmp_path / "d/sym") == "deep"


def test_whiteouts_are_overlayfs_own(tmp_path: pathlib.Path) -> None:
    apply_layer(io.BytesIO(archive((".wh.gone", REG, ""), ("d/.wh..wh..opq", REG, ""))), str(tmp_path))
    gone = os.stat(tmp_path / "gone")
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(tmp_path / "d", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(tmp_path)) == ["d", "gone"]


@pytest.fixture
def core(tmp_path: pathlib.Path) -> Core:
    return Core(Paths(f"{tmp_path}/data", f"{tmp_path}/run"))


def test_a_broken_archive_leaves_nothing(core: Core) -> None:
    whole = archive(("big", REG, "x" * 100_000))
    for data in (whole[:50_000], b"\x1f\x8b" + b"junk" * 100, b"no tar" * 1000):
        with pytest.raises((DataCorrupt, InvalidArgument)):
            core.import_file_system(io.BytesIO(data), parse_reference("bad"), RunConfig())
    assert os.listdir(core.paths.overlay2) == ["l"]
    assert os.listdir(f"{core.paths.overlay2}/l") == []
    assert list(core.content.all()) == []
    core.close()


def test_an_image_from_import_to_mount_to_removal(core: Core) -> None:
    data = archive(("file", REG, "hello"))
    image = core.import_file_system(io.BytesIO(data), parse_reference("it"), RunConfig(cmd=("x",)))
    assert core.images.get("it").id == image.id
    core.snapshots.create_container("c", image.top)
    merged = core.snapshots.mount("c")
    try:
        assert pathlib.Path(merged, "file").read_text() == "hello"
        pathlib.Path(merged, "new").write_text("12345")
        assert core.snapshots.usage("c") == 5
        assert core.snapshots.graph_data("c").merged_dir == merged
        core.remove_image("it", force=True)
        assert pathlib.Path(merged, "file").read_text() == "hello"  # A container keeps its layers.
    finally:
        core.snapshots.unmount("c")
        core.snapshots.remove_container("c")
    core.gc()
    assert os.listdir(core.paths.overlay2) == ["l"]
    with pytest.raises(NotFound, match="No such image: it:latest"):
        core.images.get("it")
    core.close()


def test_a_volatile_mount_is_the_containers_that_need_nothing_kept(core: Core) -> None:
    core.import_file_system(io.BytesIO(archive(("file", REG, "hello"))), parse_reference("it"), RunConfig())
    top = core.images.get("it").top
    for _ in range(2):
        core.snapshots.create_container("c", top)
        merged = core.snapshots.mount("c", volatile=True)
        assert is_volatile(merged)
        core.snapshots.unmount("c")
        # Mounted again, as after a start that failed: the kernel refuses a layer of which it can't tell a crash.
        assert core.snapshots.mount("c", volatile=True) == merged
        core.snapshots.unmount("c")
        assert not is_volatile(core.snapshots.mount("c"))
        core.snapshots.remove_container("c")
    core.close()


def is_volatile(target: str) -> bool:
    mounts = map(str.split, pathlib.Path("/proc/mounts").read_text().splitlines())
    options = next(options for _, where, _, options, *_ in mounts if where == target)
    return not {"volatile", "fsync=volatile"}.isdisjoint(options.split(","))  # The kernel's words, old and new.


def test_a_removal_that_was_interrupted_is_done_at_the_next_opening(core: Core) -> None:
    core.snapshots.create_container("c", None)
    merged = core.snapshots.mount("c")
    name = core.snapshots.forget_container("c")
    assert name is not None
    assert core.snapshots.forget_container("c") is None
    assert os.path.ismount(merged)
    core.close()
    again = Core(core.paths)
    assert os.listdir(again.paths.overlay2) == ["l"]
    assert os.listdir(f"{again.paths.overlay2}/l") == []
    again.close()


def test_what_an_interrupted_operation_left_goes(core: Core) -> None:
    core.close()
    os.makedirs(f"{core.paths.overlay2}/{'ab' * 32}/diff")
    pathlib.Path(core.paths.content, "ingest/half").write_text("x")
    again = Core(core.paths)
    assert os.listdir(again.paths.overlay2) == ["l"]
    assert os.listdir(f"{again.paths.content}/ingest") == []
    again.close()


def test_a_blob_is_what_its_digest_says(tmp_path: pathlib.Path) -> None:
    store = ContentStore(str(tmp_path))
    digest = store.write(b"data")
    assert store.read(digest) == b"data"
    with pytest.raises(DataCorrupt), store.ingest() as blob:
        blob.write(b"other")
        blob.commit(digest)
    assert os.listdir(tmp_path / "ingest") == []
