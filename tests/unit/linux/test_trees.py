"""Trees that are deep, linked and hostile."""

from __future__ import annotations

import os
import pathlib

import pytest

from sampan.linux.trees import files, remove_tree, tree_size


def deepen(path: pathlib.Path, depth: int) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


@pytest.mark.parametrize("depth", [1, 32, 33, 100, 1500])
def test_however_deep(tmp_path: pathlib.Path, depth: int) -> None:
    (tmp_path / "top").mkdir()
    deepen(tmp_path / "top", depth)
    assert tree_size(str(tmp_path / "top")).files >= depth
    remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []
    remove_tree(str(tmp_path / "top"))


def test_links_are_removed_and_not_followed(tmp_path: pathlib.Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x" * 1000)
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(kept)
    (top / "gone").symlink_to("nowhere")
    os.mkfifo(top / "fifo")
    (top / "file").write_text("x" * 10)
    os.link(top / "file", top / "again")
    assert {each.path for each in files(str(top))} == {"link", "gone", "fifo", "file", "again"}
    size = tree_size(str(top))
    assert (size.bytes, size.files) == (10, 4)
    remove_tree(str(top))
    assert (kept / "file").exists() and not top.exists()


def test_what_cannot_be_removed_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(OSError):
        remove_tree("/proc/self")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        remove_tree(str(tmp_path / "file"))
