"""`--user` and USER: strict, bounded, and by the container's own files, whatever they are."""

from __future__ import annotations

import os
import pathlib

import pytest

from sampan.engine.containers.users import resolve_user
from sampan.errors import InvalidArgument

PASSWD = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/:\n77:x:0:0::/:\nbig:x:4294967296:0::/:\nneg:x:-1:0::/:\n"
GROUP = "root:x:0:\nextra:x:2000:user\nbad:x:99999999999:user\n88:x:0:\n"


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "uid", "gid", "groups"),
    [
        ("", 0, 0, (0,)), ("root", 0, 0, (0,)), ("0", 0, 0, (0,)), ("user", 1000, 1001, (1001, 2000)),
        ("1000", 1000, 1001, (1001, 2000)), ("user:extra", 1000, 2000, (2000,)), ("1", 1, 0, (0,)),
        ("5:6", 5, 6, (6,)), ("007", 7, 0, (0,)), ("77", 77, 0, (0,)), ("5:88", 5, 88, (88,)),
    ],
)  # fmt: skip
def test_who_is_meant(root: pathlib.Path, wanted: str, uid: int, gid: int, groups: tuple[int, ...]) -> None:
    found = resolve_user(str(root), wanted)
    assert (found.uid, found.gid, found.additional_gids) == (uid, gid, groups)


@pytest.mark.parametrize(
    "wanted",
    [
        "4294967296", "2147483648", "99999999999999999999", "9" * 5000, "0:4294967296", "-1", "+1", " 1", "1 ", "0x0",
        "1e0", "\u00b2", "\u0661", "nobody", "big", "neg", "user:bad", "user:nothing", "1:-1",
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused(root: pathlib.Path, wanted: str) -> None:
    with pytest.raises(InvalidArgument):
        resolve_user(str(root), wanted)


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "huge", "missing", "link"])
def test_files_that_are_none(root: pathlib.Path, kind: str) -> None:
    """A number needs no file; a name is not found."""
    for name in ("passwd", "group"):
        path = root / "etc" / name
        path.unlink()
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "directory":
                path.mkdir()
            case "socket":
                os.mknod(path, 0o140644)
            case "huge":
                with open(path, "w") as file:
                    file.truncate(1 << 40)
            case "link":
                path.symlink_to("/proc/self/environ")
    assert resolve_user(str(root), "5").uid == 5
    with pytest.raises(InvalidArgument, match="no matching entries"):
        resolve_user(str(root), "user")
