"""The birth of a container's process, by clone3(2), in the namespaces that it is to have.

With a user namespace and others that are joined, one process is not enough: what belongs to the host must be
joined before the user namespace is entered, what belongs to the user namespace after, and a pid namespace is a matter
of birth. So a midwife does the joining, bears the child as its own sibling (CLONE_PARENT) and ends::

    parent              midwife                     child
      │ clone ───────────▶ │ joins, one by one
      │                    │ clone ─────────────────▶ │
      │ ◀── pid and pidfd ─│ _exit
      │ reaps it                                      │ a child of the parent's
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

from sampan.errors import Conflict, Internal, InvalidArgument, SampanError
from sampan.linux import namespaces
from sampan.linux.namespaces import CLONE_NEWPID, CLONE_PARENT, FLAGS
from sampan.runtime import sync


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

    `flags`: CLONE_NEW*. `joins`: kind and path; all are joined if there is a user namespace, or else only the pid
    namespace, as every other one can be joined by the child itself. `group`: a cgroup v2 directory to be born in.
    """
    kinds = dict(joins)
    if joins and ("user" in kinds or flags & namespaces.CLONE_NEWUSER):
        return _by_midwife(lambda: _join_in_turn(joins), flags, group)
    if "pid" not in kinds:
        return _fork(flags, group)
    join("pid", kinds["pid"])
    return _and_back(flags, group)


def clone_inside(pidfd: int, user: bool, group: int | None) -> tuple[int, int]:
    """Fork into the pid namespace of a container's process; if `user`, into its user namespace too.

    Raises Conflict when that process has ended.
    """
    if user:
        return _by_midwife(lambda: _enter(pidfd, CLONE_NEWPID | namespaces.CLONE_NEWUSER), 0, group)
    _enter(pidfd, CLONE_NEWPID)
    return _and_back(0, group)


def _enter(pidfd: int, flags: int) -> None:
    try:
        namespaces.setns(pidfd, flags)
    except ProcessLookupError as error:
        raise Conflict("the container's process has ended") from error
    except OSError as error:
        raise Internal(f"join the container's namespaces: {(error.strerror or '').lower()}") from error


def _fork(flags: int, group: int | None) -> tuple[int, int]:
    try:
        return namespaces.clone(flags, group)
    except OSError as error:
        raise Internal(f"fork: {(error.strerror or '').lower()}") from error


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


def _by_midwife(prepare: Callable[[], None], flags: int, group: int | None) -> tuple[int, int]:
    ours, its = sync.pair()
    with ours:
        with its:
            midwife, watched = _fork(0, None)
            if midwife == 0:
                ours.close()
                if _deliver(its, prepare, flags, group):
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


def _deliver(connection: socket.socket, prepare: Callable[[], None], flags: int, group: int | None) -> bool:
    """In the midwife, of which only the child returns."""
    try:
        prepare()
        pid, pidfd = _fork(flags | CLONE_PARENT, group)
    except (SampanError, OSError) as error:
        _end(connection, error)
    if pid == 0:
        return True
    try:
        sync.send(connection, sync.BORN + pid.to_bytes(4, "little"), pidfd)
    finally:
        os._exit(0)


def _end(connection: socket.socket, error: BaseException) -> NoReturn:
    sync.send_failure(connection, error)
    os._exit(1)
