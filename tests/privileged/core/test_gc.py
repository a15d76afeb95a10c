"""Collection beside what goes on: nothing in use is taken, and nothing else stays."""

from __future__ import annotations

import io
import os
import pathlib
import tarfile
import threading
import time
from collections.abc import Iterator

import pytest

from sampan.core.images import Image
from sampan.core.paths import Paths
from sampan.core.service import Core
from sampan.oci.image import RunConfig
from sampan.oci.reference import parse_reference

pytestmark = pytest.mark.requires("root", "overlay")


def tar(name: str) -> io.BytesIO:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    output.seek(0)
    return output


@pytest.fixture
def core(short_dir: pathlib.Path) -> Iterator[Core]:
    core = Core(Paths(str(short_dir / "data"), str(short_dir / "run")))
    yield core
    core.close()


def add(core: Core, name: str) -> Image:
    return core.import_file_system(tar(name), parse_reference(name), RunConfig())


def held(core: Core) -> tuple[int, int]:
    """Blobs and layers."""
    return len(list(core.content.all())), len([name for name in os.listdir(core.paths.overlay2) if name != "l"])


def test_what_is_found_to_be_there_stays_until_the_end(core: Core) -> None:
    image = add(core, "one")
    with core.loading():
        assert core.content.has(image.id)
        core.remove_image("one")
        assert core.content.has(image.id)
        assert held(core)[0] == 1
    core.gc()
    assert held(core) == (0, 0)


def test_other_collections_go_on_beside_a_load(core: Core) -> None:
    add(core, "one")
    with core.loading():
        core.content.write(b"under way")
        removed = [each.untagged or each.deleted[:7] for each in core.remove_image("one")]
        # The layer too: who loads something else keeps nothing of this.
        assert removed == ["one:latest", "sha256:", "sha256:"]
        assert held(core) == (1, 0)
    core.gc()
    assert held(core) == (0, 0)


def test_an_image_that_comes_while_the_owners_are_read_stays(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    referenced = core.images.referenced
    made: list[Image] = []
    thread = threading.Thread(target=lambda: made.append(add(core, "late")))

    def slow() -> object:
        monkeypatch.setattr(core.images, "referenced", referenced)
        found = referenced()
        thread.start()
        while not core.images.all():
            time.sleep(0.01)
        return found

    monkeypatch.setattr(core.images, "referenced", slow)
    # The whole load fits between the look at the owners and the sweep; its own collection waits for this one.
    core.gc()
    thread.join(20)
    assert core.images.get("late").id == made[0].id
    core.gc()
    assert held(core) == (2, 1)
    assert core.content.has(made[0].id) and core.snapshots.has_layer(made[0].chain[0])


def test_a_layer_goes_with_the_last_that_stands_on_it(core: Core) -> None:
    image = add(core, "one")
    core.snapshots.create_container("c" * 64, image.top)
    removed = core.remove_image("one", force=True)
    assert [each.untagged for each in removed] == ["one:latest", ""]
    assert held(core) == (0, 2)
    core.snapshots.remove_container("c" * 64)
    core.gc()
    assert held(core) == (0, 0)


def test_a_large_layer_goes_in_the_background(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    remove = core.snapshots._remove_directory

    def slow(name: str) -> None:
        assert go_on.wait(20)
        remove(name)

    monkeypatch.setattr(core.snapshots._rubbish, "_remove", slow)
    monkeypatch.setattr("sampan.core.snapshots.overlay2._LARGE", 0)
    add(core, "one")
    core.remove_image("one")
    # Nobody sees it any more, and the same image can come again meanwhile.
    assert core.snapshots.layers() == {}
    assert held(core) == (0, 1)
    again = add(core, "one")
    assert held(core) == (2, 2)
    go_on.set()
    deadline = time.monotonic() + 20
    while held(core) != (2, 1):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert core.snapshots.has_layer(again.chain[0])


def test_rubbish_that_was_not_removed_goes_at_the_next_opening(
    short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(str(short_dir / "data"), str(short_dir / "run"))
    core = Core(paths)
    monkeypatch.setattr(core.snapshots._rubbish, "_remove", lambda name: None)
    monkeypatch.setattr("sampan.core.snapshots.overlay2._LARGE", 0)
    add(core, "one")
    core.remove_image("one")
    core.close()
    assert held(core)[1] == 1
    again = Core(paths)
    assert held(again) == (0, 0)
    again.close()
