"""Paths are made inside a root, whatever the links in it say. Needs no privileges, as the root is a plain directory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from sampan.linux.fs import make_directories, make_file


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


@pytest.fixture
def descriptor(root: pathlib.Path) -> Iterator[int]:
    opened = os.open(root, os.O_PATH | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    yield opened
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"
    os.close(opened)


def _where(opened: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{opened}")
    finally:
        os.close(opened)


@pytest.mark.parametrize("path", ["/a/b/c", "a/b/c", "//a/./b//c/", "/x/../a/b/c", "../../a/b/c"])
def test_directories_are_made(root: pathlib.Path, descriptor: int, path: str) -> None:
    assert _where(make_directories(descriptor, path)) == f"{root}/a/b/c"
    assert _where(make_directories(descriptor, path)) == f"{root}/a/b/c"


def test_the_root_itself(root: pathlib.Path, descriptor: int) -> None:
    for path in ("/", "", ".", "..", "/.."):
        assert _where(make_directories(descriptor, path)) == str(root)


@pytest.mark.parametrize(
    ("link", "lands"),
    [
        ("../target", "target"), ("/target", "target"), ("/../../../target", "target"),
        ("deep/target", "way/deep/target"), ("../second", "third"), ("../target/../other", "other"), ("/etc", "etc"),
        ("..", "."), ("/", "."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("below", ["", "/new/file"])
def test_a_link_that_dangles_is_followed_inside(
    root: pathlib.Path, descriptor: int, link: str, lands: str, below: str
) -> None:
    (root / "way").mkdir()
    (root / "second").symlink_to("third")
    (root / "way/link").symlink_to(link)
    expected = os.path.normpath(root / lands)
    if below:
        assert _where(make_file(descriptor, f"/way/link{below}")) == expected + below
    else:
        assert _where(make_directories(descriptor, "/way/link")) == expected
    assert (root / "way/link").is_symlink()
    assert not os.path.exists(root.parent / "target")


def test_a_file_where_a_link_dangles(root: pathlib.Path, descriptor: int) -> None:
    """/etc/resolv.conf of many an image."""
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert _where(make_file(descriptor, "/etc/resolv.conf")) == f"{root}/run/systemd/resolve/stub-resolv.conf"
    assert (root / "run/systemd/resolve/stub-resolv.conf").is_file()


def test_links_in_a_circle(root: pathlib.Path, descriptor: int) -> None:
    (root / "one").symlink_to("two/x")
    (root / "two").symlink_to("one/y")
    for make in (make_file, make_directories):
        with pytest.raises(OSError, match="symbolic links"):
            make(descriptor, "/one/a")


@pytest.mark.parametrize("path", ["/link", "/link/below", "/dangling", "/dangling/below"])
def test_no_link_is_followed_where_none_may_be(root: pathlib.Path, descriptor: int, path: str) -> None:
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    (root / "dangling").symlink_to("nowhere")
    for make in (make_file, make_directories):
        with pytest.raises(OSError, match="symbolic links"):
            make(descriptor, path, follow=False)
    assert sorted(os.listdir(root)) == ["dangling", "link", "real"]
    assert os.listdir(root / "real") == []


def test_a_file_in_the_way(root: pathlib.Path, descriptor: int) -> None:
    (root / "file").touch()
    for make in (make_file, make_directories):
        with pytest.raises(NotADirectoryError):
            make(descriptor, "/file/below")
    with pytest.raises(NotADirectoryError):
        make_directories(descriptor, "/file")
    assert _where(make_file(descriptor, "/file")) == f"{root}/file"
