"""Who the container's users are on the host: user namespaces and their mappings. user_namespaces(7)

The parent writes the maps of a child that waits for it; the child then becomes the namespace's root::

    parent                                child (in the new user namespace, still with the parent's ids)
      │ clone ─────────────────────────────▶ │ time namespace and its offsets, cgroup
      │ uid_map, gid_map, oom_score_adj      │ …waits
      │ ── MAPPED ─────────────────────────▶ │ opens the root and what is to be bound; setresuid(0)
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence

import msgspec

from sampan.errors import Internal, InvalidArgument, Unsupported
from sampan.linux import namespaces, process
from sampan.linux.capabilities import NUMBERS, effective
from sampan.oci.runtime import IDMapping, User

HIGHEST_ID = (1 << 32) - 2
"""An id has 32 bits, and the highest one means "no change" to setresuid(2) and chown(2)."""
_MOST_LINES = 340
"""Of a map: user_namespaces(7)."""


class Maps(msgspec.Struct, frozen=True):
    """The ids of a user namespace, and what its maps are written along with."""

    uids: tuple[IDMapping, ...]
    gids: tuple[IDMapping, ...]


def check_id(number: int, what: str) -> int:
    """The id, if it is one: it is never cut to 32 bits, where a huge number would become root's 0."""
    if not 0 <= number <= HIGHEST_ID:
        raise InvalidArgument(f"{what}: {number} is not an id (0 to {HIGHEST_ID})")
    return number


def checked_maps(uids: tuple[IDMapping, ...], gids: tuple[IDMapping, ...], what: str) -> Maps:
    """Both maps, if the kernel would take them. Raises InvalidArgument."""
    for kind, lines in (("uidMappings", uids), ("gidMappings", gids)):
        name = f"{what}.{kind}"
        if not lines:
            raise InvalidArgument(f"{name} is missing")
        if len(lines) > _MOST_LINES:
            raise InvalidArgument(f"{name} has more than {_MOST_LINES} entries")
        for line in lines:
            if line.size < 1:
                raise InvalidArgument(f"{name}: size {line.size} is not positive")
            for start in (line.container_id, line.host_id):
                check_id(start, name)
                check_id(start + line.size - 1, name)
        for ends in (
            sorted((line.container_id, line.container_id + line.size) for line in lines),
            sorted((line.host_id, line.host_id + line.size) for line in lines),
        ):
            if any(first[1] > second[0] for first, second in itertools.pairwise(ends)):
                raise InvalidArgument(f"{name}: entries overlap")
    return Maps(uids, gids)


def check_mapped(user: User, maps: Maps) -> None:
    """Raises InvalidArgument for a user that does not exist in the namespace."""
    for what, number, lines in (("uid", user.uid, maps.uids), ("gid", user.gid, maps.gids)):
        if not any(line.container_id <= number < line.container_id + line.size for line in lines):
            raise InvalidArgument(f"process.user.{what}: {number} is not in linux.{what}Mappings")


def write_maps(pid: int, maps: Maps) -> None:
    """Give the child's new user namespace its ids. Raises InvalidArgument for what the kernel does not allow."""
    for kind, capability, lines in (("gid", "CAP_SETGID", maps.gids), ("uid", "CAP_SETUID", maps.uids)):
        if effective() >> NUMBERS[capability] & 1:
            _write_map(pid, kind, lines)
        elif _only_own(lines, os.getegid() if kind == "gid" else os.geteuid()):
            if kind == "gid":
                # Without it a user could leave a group that a file denies access to (CVE-2014-8989).
                _write(f"/proc/{pid}/setgroups", "deny")
            _write_map(pid, kind, lines)
        else:
            _run_helper(f"new{kind}map", pid, lines)


def _only_own(lines: tuple[IDMapping, ...], number: int) -> bool:
    return len(lines) == 1 and lines[0].size == 1 and lines[0].host_id == number


def _text(lines: tuple[IDMapping, ...]) -> str:
    return "".join(f"{line.container_id} {line.host_id} {line.size}\n" for line in lines)


def _write_map(pid: int, kind: str, lines: tuple[IDMapping, ...]) -> None:
    try:
        _write(f"/proc/{pid}/{kind}_map", _text(lines))
    except OSError as error:
        text = _text(lines).strip().replace("\n", ", ")
        raise InvalidArgument(f"linux.{kind}Mappings ({text}): {(error.strerror or '').lower()}") from error


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())  # The kernel takes a map in one write only.
    finally:
        os.close(descriptor)


def _run_helper(name: str, pid: int, lines: tuple[IDMapping, ...]) -> None:
    """newuidmap(1), newgidmap(1): they are set-uid and grant what /etc/subuid and /etc/subgid list."""
    import shutil  # Only an ordinary user comes here: no shim loads them.
    import subprocess

    program = shutil.which(name)
    if program is None:
        raise Unsupported(f"mapping more than one's own id takes the command {name}, which is not installed")
    done = subprocess.run([program, str(pid), *_text(lines).split()], capture_output=True, check=False, timeout=30)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().replace("\n", "; ")
        raise InvalidArgument(f"{name}: {reason or f'status {done.returncode}'}")


def set_oom_score(pid: int | str, value: int | None) -> None:
    """By the host's /proc. A child's is set by its parent: in a user namespace it could not lower it itself.

    Raises InvalidArgument for a lower one than the host allows.
    """
    if value is not None:
        try:
            _write(f"/proc/{pid}/oom_score_adj", str(value))
        except PermissionError as error:
            raise InvalidArgument(f"process.oomScoreAdj {value}: {(error.strerror or '').lower()}") from error


def become_root() -> None:
    """Be user and group 0 of the user namespace that this process is in, with no other groups."""
    try:
        set_groups(())
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        process.hide()
    except OSError as error:
        raise InvalidArgument(f"user namespace: it has no root to become: {(error.strerror or '').lower()}") from error


def set_groups(groups: tuple[int, ...]) -> None:
    """setgroups(2), each once: engines name a group twice that is the user's and asked for.

    A namespace that an unprivileged user made by itself forbids it. Then none can be added."""
    try:
        os.setgroups(tuple(dict.fromkeys(groups)))
    except PermissionError:
        if groups:
            raise InvalidArgument("process.user.additionalGids: this user namespace allows no setgroups") from None


def enter_time_namespace(offsets: Sequence[tuple[str, int, int]]) -> None:
    """Make one and be in it: a namespace's clocks are set before its first process enters. time_namespaces(7)"""
    try:
        namespaces.unshare(namespaces.CLONE_NEWTIME)
        if offsets:
            _write("/proc/self/timens_offsets", "".join(f"{clock} {secs} {nanos}\n" for clock, secs, nanos in offsets))
        descriptor = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(descriptor, namespaces.CLONE_NEWTIME)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidArgument(f"time namespace: {(error.strerror or '').lower()}") from error


@contextlib.contextmanager
def namespace_of(maps: Maps) -> Iterator[int]:
    """A descriptor of a user namespace with these maps, for a mount whose ids it translates. Nobody lives in it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = namespaces.clone(namespaces.CLONE_NEWUSER)
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        os.close(reading)
        write_maps(pid, maps)
        descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Internal(f"make a user namespace: {(error.strerror or '').lower()}") from error
    finally:
        os.close(writing)
        os.waitpid(pid, 0)
        os.close(pidfd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
