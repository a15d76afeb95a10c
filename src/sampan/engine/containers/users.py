"""`--user` and the image's USER: names looked up in the container's own /etc/passwd and /etc/group."""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument
from sampan.linux.fs import read_in_root
from sampan.oci.runtime import User

_MAX_ID = (1 << 31) - 1


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
    return [line.split(":") for line in text.decode("utf-8", "replace").splitlines() if ":" in line]


def _number(text: str) -> int | None:
    if not text.isdigit():
        return None
    value = int(text)
    if value > _MAX_ID:
        raise InvalidArgument("uids and gids must be in range 0-2147483647")
    return value


def _find_user(users: list[list[str]], name: str) -> tuple[int, int, str]:
    wanted = name or "0"
    for fields in users:
        if len(fields) >= 4 and wanted == fields[0] and fields[2].isdigit() and fields[3].isdigit():
            return int(fields[2]), int(fields[3]), fields[0]
    number = _number(wanted)
    if number is None:
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    for fields in users:
        if len(fields) >= 4 and fields[2] == wanted and fields[3].isdigit():
            return number, int(fields[3]), fields[0]
    return number, 0, ""


def _find_group(groups: list[list[str]], name: str) -> int:
    for fields in groups:
        if len(fields) >= 3 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    number = _number(name)
    if number is None:
        raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")
    return number


def _supplementary(groups: list[list[str]], username: str) -> tuple[int, ...]:
    return tuple(
        int(fields[2])
        for fields in groups
        if len(fields) >= 4 and fields[2].isdigit() and username in fields[3].strip().split(",")
    )
