"""What the runtime remembers of a container: the directory `STATE_ROOT/ID`, made and removed with it.

`state.json` is its record; `config.json`, where another process will go on with the container, is the configuration as
it was when the container was made; `start` is the socket on which a created container waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator

import msgspec

from sampan.errors import Conflict, DataCorrupt, InvalidArgument, NotFound
from sampan.runtime import sync

_ID = re.compile(r"[A-Za-z0-9_+.-]+")
_FILE = "state.json"
CONFIG = "config.json"
START = "start"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`start_time`: the process's, in clock ticks since the boot (/proc/PID/stat): a pid alone may be another's by now.
    `created`: nanoseconds since the epoch. `cgroup_places`: by mount point, where the cgroup's paths differ. `unit`:
    systemd's, where it made the cgroup. `rootless`: an ordinary user's, as is that systemd. With a pid of 0 the
    creation has not come so far, or was killed."""

    id: str
    bundle: str
    cgroup: str
    cgroup_places: dict[str, str] | None = None
    rootfs: str
    created: int
    pid: int = 0
    start_time: int = 0
    unit: str = ""
    rootless: bool = False


def check_id(container_id: str) -> str:
    """The id, if it can be one: it becomes a directory's name. Raises InvalidArgument."""
    if not _ID.fullmatch(container_id) or container_id in (".", "..") or len(container_id) > 1024:
        raise InvalidArgument(f"invalid container id {container_id!r}")
    return container_id


@contextlib.contextmanager
def reserved(state_root: str, container_id: str) -> Iterator[int]:
    """Make the container's directory and keep it locked: nobody deletes what is being made. Yields its descriptor.

    Raises Conflict if there is one.
    """
    directory = f"{state_root}/{check_id(container_id)}"
    os.makedirs(state_root, mode=0o700, exist_ok=True)
    try:
        os.mkdir(directory, 0o711)
    except FileExistsError:
        raise Conflict(f"container with id {container_id} already exists") from None
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        # By name: children that were forked meanwhile hold the same lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def opened(state_root: str, container_id: str) -> int:
    """A descriptor of the directory, the caller's to close. Raises NotFound."""
    try:
        return os.open(f"{state_root}/{check_id(container_id)}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"container {container_id} does not exist") from None


def settled(state_root: str, container_id: str) -> bool:
    """Whether nobody is creating or deleting it at the moment."""
    descriptor = opened(state_root, container_id)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def save(state_root: str, record: Record) -> None:
    """Write the record, whole or not at all. No fsync: the state root does not outlive a reboot."""
    path = f"{state_root}/{record.id}/{_FILE}"
    with open(path + ".new", "wb") as file:
        file.write(msgspec.json.encode(record))
    os.rename(path + ".new", path)


def keep_config(state_root: str, container_id: str, content: bytes) -> None:
    """Engines remove or change the bundle while the container lives."""
    with open(f"{state_root}/{container_id}/{CONFIG}", "wb") as file:
        file.write(content)


def load(state_root: str, container_id: str) -> Record:
    """Raises NotFound."""
    try:
        with open(f"{state_root}/{check_id(container_id)}/{_FILE}", "rb") as file:
            return msgspec.json.decode(file.read(), type=Record)
    except FileNotFoundError:
        raise NotFound(f"container {container_id} does not exist") from None
    except msgspec.DecodeError as error:
        raise DataCorrupt(f"container {container_id}: {_FILE}: {error}") from error


def ids(state_root: str) -> list[str]:
    """Of all containers there are."""
    try:
        return sorted(name for name in os.listdir(state_root) if _ID.fullmatch(name) and not name.startswith("."))
    except FileNotFoundError:
        return []


def connect(state_root: str, container_id: str) -> socket.socket:
    """To the container that waits to be started. OSError where none does."""
    directory = opened(state_root, container_id)
    try:
        return sync.connect(directory, START)
    finally:
        os.close(directory)


def waits(state_root: str, container_id: str) -> bool:
    """Whether it was created and has not been started: somebody listens."""
    try:
        connect(state_root, container_id).close()
    except OSError:
        return False
    return True


def forget_socket(state_root: str, container_id: str) -> None:
    """It has been started."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{state_root}/{container_id}/{START}")


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
