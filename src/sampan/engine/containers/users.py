"""`--user` and the image's USER: names looked up in the container's own /etc/passwd and /etc/group."""

from __future__ import annotations

import os
import re

from sampan.errors import InvalidArgument
from sampan.linux.fs import read_in_root
from sampan.oci.runtime import User

_MAX_ID = (1 << 31) - 1
_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)


def resolve_user(root: str, wanted: str, groups: tuple[str, ...] = ()) -> User:
    """`user`, `uid`, `user:group`, … in the file system at `root`; empty: root. `groups`: additional ones.

    Raises InvalidArgument in Docker's words for a name that is not there.
    """
    name, _, group = wanted.partition(":")
    if not groups and not group and name in ("", "0", "root"):
        return User(uid=0, gid=0, additional_gids=_with_own(0, _supplementary(_table(root, "/etc/group"), "root")))
    users, all_groups = _table(root, "/etc/passwd"), _table(root, "/etc/group")
    uid, gid, username = _find_user(users, name)
    extra: tuple[int, ...] = ()
    if group:
        gid = _find_group(all_groups, group)
    elif username:
        extra = _supplementary(all_groups, username)
    added = tuple(_find_group(all_groups, each) for each in groups)
    return User(uid=uid, gid=gid, additional_gids=_with_own(gid, (*extra, *added)))


def _with_own(gid: int, groups: tuple[int, ...]) -> tuple[int, ...]:
    """The primary group is among the others too: a file of a group that denies its members must deny this one."""
    return tuple(dict.fromkeys((gid, *groups)))


def _table(root: str, path: str) -> list[list[str]]:
    """The colon-separated lines of a file in the container; empty if there is none, or if it is no regular file."""
    try:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            text = read_in_root(directory, path)
        finally:
            os.close(directory)
    except OSError:
        return []
    return [line.split(":") for line in text.decode("utf-8", "replace").split("\n") if ":" in line]


def _entry(text: str) -> int | None:
    """An id in a line of a table, if it is one; other lines are not there."""
    if not _DIGITS.fullmatch(text) or int(text) > _MAX_ID:
        return None
    return int(text)


def _given(text: str) -> int | None:
    """The id, if a number was asked for. It is never looked up as a name, nor cut to what fits: an image with a user of
    that name could make it root (CVE-2024-40635, CVE-2026-46680). Raises InvalidArgument for one that is none."""
    if not text.isdecimal():
        return None
    number = _entry(text)
    if number is None:
        raise InvalidArgument(f"uids and gids must be in range 0-{_MAX_ID}")
    return number


def _find_user(users: list[list[str]], name: str) -> tuple[int, int, str]:
    number = _given(name or "0")
    for fields in users:
        if len(fields) < 4:
            continue
        uid, gid = _entry(fields[2]), _entry(fields[3])
        if uid is not None and gid is not None and (name == fields[0] if number is None else number == uid):
            return uid, gid, fields[0]
    if number is None:
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    return number, 0, ""


def _find_group(groups: list[list[str]], name: str) -> int:
    number = _given(name)
    if number is not None:
        return number
    for fields in groups:
        if len(fields) >= 3 and fields[0] == name and (gid := _entry(fields[2])) is not None:
            return gid
    raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")


def _supplementary(groups: list[list[str]], username: str) -> tuple[int, ...]:
    found = (_entry(fields[2]) for fields in groups if len(fields) >= 4 and username in fields[3].strip().split(","))
    return tuple(gid for gid in found if gid is not None)
