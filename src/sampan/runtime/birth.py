"""The birth of a container's process, by clone3(2), in the namespaces that it is to have.

With a user namespace and others that are joined, one process is not enough: what belongs to the host must be
joined before the user namespace is entered, what belongs to the user namespace after, and a pid namespace is a matter
of birth. So a midwife does the joining, bears the child as its own sibling (CLONE_PARENT) and ends::

    parent              midwife                     child
      │ clone ───────────▶ │ joins, one by one
      │                    │ clone ─────────────────▶ │
      │ ◀── pid and pidfd ─│ _exit
      │ reaps it                                      │ a child of the parent's

An exec's process always comes so. Those in the container see it from its birth on, by their /proc: by then its root,
its mounts and its descriptors must be the container's, and not the host's. And it is born hidden (`_fork`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

from sampan.errors import Internal, InvalidArgument, SampanError
from sampan.linux import namespaces, process
from sampan.linux.namespaces import CLONE_PARENT, FLAGS
from sampan.runtime import sync

Prepare = Callable[[list[int]], list[int]]


def join(kind: str, path: str) -> None:
    """Join the namespace at `path`. Raises InvalidArgument where there is none of that kind."""
    try:
        _join(kind, path)
    except OSError as error:
        raise _refused(kind, path, error) from error


def _join(kind: str, path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(descriptor, FLAGS[kind])
    finally:
        os.close(descriptor)


def _refused(kind: str, path: str, error: OSError) -> InvalidArgument:
    return InvalidArgument(f"join the {kind} namespace {path}: {(error.strerror or '').lower()}")


def clone(flags: int, joins: Sequence[tuple[str, str]], group: int | None) -> tuple[int, int]:
    """Fork into namespaces: (pid, pidfd) in the parent, (0, -1) in the child.

    `flags`: CLONE_NEW*, CLONE_PARENT. `joins`: kind and path; all are joined if there is a user namespace, or else only
    the pid namespace, as every other one can be joined by the child itself. `group`: a cgroup v2 directory to be born
    in.
    """
    kinds = dict(joins)
    if joins and ("user" in kinds or flags & namespaces.CLONE_NEWUSER):

        def join_all(own: list[int]) -> list[int]:
            _join_in_turn(joins)
            return own

        return _by_midwife(join_all, flags, () if group is None else (group,))
    if "pid" not in kinds:
        return _fork(flags, group)
    join("pid", kinds["pid"])
    return _and_back(flags, group)


def clone_inside(prepare: Prepare, groups: Sequence[int]) -> tuple[int, int]:
    """Fork into a container. `prepare` joins its namespaces; it is given the midwife's own descriptors, closes all but
    these and those that the child is to have, and returns their new numbers, which the child closes.

    `groups`: cgroup v2 directories to be born in, the first one that the kernel allows; empty on v1.
    """
    return _by_midwife(prepare, 0, groups)


def _fork(flags: int, group: int | None) -> tuple[int, int]:
    """The child is born hidden, if it can be: those who are in its namespaces already could otherwise take what it has
    of the host by ptrace or /proc before it hides itself (CVE-2016-9962). What hides is inherited.

    An ordinary user could not write the maps of a hidden child's user namespace, as its /proc files are root's.
    """
    try:
        if flags & namespaces.CLONE_NEWUSER and os.geteuid():
            return namespaces.clone(flags, group)
        shown = process.prctl(process.PR_GET_DUMPABLE)
        process.hide()
        pid = -1
        try:
            pid, pidfd = namespaces.clone(flags, group)
        finally:
            if pid and shown == 1:
                process.prctl(process.PR_SET_DUMPABLE, 1)
    except OSError as error:
        raise Internal(f"fork: {(error.strerror or '').lower()}") from error
    return pid, pidfd


def _and_back(flags: int, group: int | None) -> tuple[int, int]:
    """Fork, and have this process's own pid namespace for its children again."""
    pid = -1
    try:
        pid, pidfd = _fork(flags, group)
    finally:
        if pid:
            _join("pid", "/proc/self/ns/pid")
    return pid, pidfd


def _join_in_turn(joins: Sequence[tuple[str, str]]) -> None:
    """First with the host's powers, then what is left with those that the user namespace gives."""
    left: list[tuple[str, str]] = []
    for kind, path in joins:
        if kind != "user":
            try:
                _join(kind, path)
            except PermissionError:
                left.append((kind, path))
            except OSError as error:
                raise _refused(kind, path, error) from error
    for kind, path in joins:
        if kind == "user":
            join(kind, path)
    for kind, path in left:
        join(kind, path)


def _by_midwife(prepare: Prepare, flags: int, groups: Sequence[int]) -> tuple[int, int]:
    ours, its = sync.pair()
    with ours:
        with its:
            midwife, watched = _fork(flags & CLONE_PARENT, None)
            if midwife == 0:
                ours.close()
                if _deliver(its, prepare, flags, groups):
                    return 0, -1
        os.close(watched)
        try:
            message, pidfds = sync.receive(ours)
        finally:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(midwife, 0)
    if not pidfds:
        raise Internal("the process died while its container was being set up")
    return int.from_bytes(message[1:], "little"), pidfds[0]


def _deliver(connection: socket.socket, prepare: Prepare, flags: int, groups: Sequence[int]) -> bool:
    """In the midwife, of which only the child returns."""
    try:
        own = prepare([connection.fileno(), *groups])
        if own[0] != connection.fileno():
            connection.detach()
            connection = socket.socket(fileno=own[0])
        pid, pidfd = _into_one_of(flags | CLONE_PARENT, own[1:])
    except (SampanError, OSError) as error:
        _end(connection, error)
    if pid == 0:
        connection.close()
        return True
    try:
        sync.send(connection, sync.BORN + pid.to_bytes(4, "little"), pidfd)
    finally:
        os._exit(0)


def _into_one_of(flags: int, groups: Sequence[int]) -> tuple[int, int]:
    for group in groups[:-1]:
        try:
            return _fork(flags, group)
        except Internal as error:
            # A container that divided its group has no processes in the group itself any more, nor may have.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EBUSY:
                raise
    return _fork(flags, groups[-1] if groups else None)


def _end(connection: socket.socket, error: BaseException) -> NoReturn:
    sync.send_failure(connection, error)
    os._exit(1)
