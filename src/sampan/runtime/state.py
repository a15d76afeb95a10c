"""What the runtime remembers of a container: `STATE_ROOT/ID/state.json`, made and removed with it."""

from __future__ import annotations

import contextlib
import os
import re

import msgspec

from sampan.errors import Conflict, InvalidArgument, NotFound

_ID = re.compile(r"[A-Za-z0-9_+.-]+")
_FILE = "state.json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`start_time`: the process's, in clock ticks since the boot (/proc/PID/stat): a pid alone may be another's by now.
    `created`: nanoseconds since the epoch. `unit`: systemd's, where it made the cgroup."""

    id: str
    bundle: str
    cgroup: str
    pid: int
    start_time: int
    created: int
    unit: str = ""


def check_id(container_id: str) -> str:
    """The id, if it can be one: it becomes a directory's name. Raises InvalidArgument."""
    if not _ID.fullmatch(container_id) or container_id in (".", "..") or len(container_id) > 1024:
        raise InvalidArgument(f"invalid container id {container_id!r}")
    return container_id


def reserve(state_root: str, container_id: str) -> str:
    """Make the container's directory; raises Conflict if there is one."""
    directory = f"{state_root}/{check_id(container_id)}"
    os.makedirs(state_root, mode=0o700, exist_ok=True)
    try:
        os.mkdir(directory, 0o711)
    except FileExistsError:
        raise Conflict(f"container with id {container_id} already exists") from None
    return directory


def save(state_root: str, record: Record) -> None:
    """Write the record, whole or not at all. No fsync: the state root does not outlive a reboot."""
    path = f"{state_root}/{record.id}/{_FILE}"
    with open(path + ".new", "wb") as file:
        file.write(msgspec.json.encode(record))
    os.rename(path + ".new", path)


def load(state_root: str, container_id: str) -> Record:
    """Raises NotFound."""
    try:
        with open(f"{state_root}/{check_id(container_id)}/{_FILE}", "rb") as file:
            return msgspec.json.decode(file.read(), type=Record)
    except FileNotFoundError:
        raise NotFound(f"container {container_id} does not exist") from None


def remove(state_root: str, container_id: str) -> None:
    """Idempotent. (Not by shutil, whose import costs every container's shim a library of three compressions.)"""
    directory = f"{state_root}/{check_id(container_id)}"
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)


def start_time(pid: int) -> int:
    """When the process was born; 0 if there is none, or if it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name is in parentheses and may hold anything, parentheses and spaces too.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
