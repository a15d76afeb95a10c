"""The process that becomes the container's: from its birth in new namespaces to execve.

Everything is imported before the process is forked, and nothing after: an import would read files of the container's.
Nothing here returns; the way out is execve or _exit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from sampan.errors import CommandNotExecutable, CommandNotFound, Conflict, Internal
from sampan.linux import namespaces, terminal
from sampan.linux import process as linux_process
from sampan.linux.cgroup import Cgroup
from sampan.linux.loopback import bring_loopback_up
from sampan.linux.namespaces import CLONE_NEWCGROUP, CLONE_NEWNET, FLAGS
from sampan.oci.runtime import Process
from sampan.runtime import birth, hooks, identity, labels, rootfs, scheduling, sync
from sampan.runtime.confine import Program, confine
from sampan.runtime.plan import Plan
from sampan.runtime.process import Confinement

_FIRST_FREE = 3


def run(
    plan: Plan,
    stdio: tuple[int, int, int],
    window: tuple[int, int] | None,
    connection: socket.socket,
    unshared: int = 0,
    listener: socket.socket | None = None,
) -> NoReturn:
    """Become the container's first process. `stdio`: the three descriptors, unused if there is a terminal.

    `unshared`: namespaces (CLONE_NEW*) that the process was not born in and makes now. `listener`: where it waits to be
    started, if not on the connection.
    """
    try:
        _forbid_imports()
        if plan.time_offsets is not None:
            identity.enter_time_namespace(plan.time_offsets)
        if plan.maps is not None:
            sync.expect(connection, sync.MAPPED)
        if not plan.user_namespace:
            identity.set_oom_score("self", plan.process.oom_score_adj)
        labels.apply(plan.process)
        linux_process.hide()
        _reset_signals()
        os.setsid()
        namespaces.unshare(unshared)
        for kind, path in plan.joins:
            if kind != "pid" and not plan.user_namespace:  # These were joined before the fork: see `birth`.
                birth.join(kind, path)
        if plan.clone_flags & CLONE_NEWNET:
            bring_loopback_up()
        if plan.hostname:
            namespaces.set_hostname(plan.hostname)
        if plan.domainname:
            namespaces.set_domainname(plan.domainname)
        if plan.user_namespace:
            filter_program, mapped = _enter_group(plan, connection)
            root = rootfs.build(plan, mapped)
            rootfs.finish(root, plan)
        else:
            root = rootfs.build(plan)
            filter_program, mapped = _enter_group(plan, connection)
            rootfs.finish(root, plan, mapped)
        if plan.hooks is not None and hooks.at_creation(plan.hooks):
            sync.send(connection, sync.HOOKS)
            sync.expect(connection, sync.RESUME)
            hooks.run("createContainer", plan.hooks.create_container, plan.subject.state("creating", os.getpid()))
        master = None
        if plan.process.terminal:
            master, slave = rootfs.open_console(root)
            _take_terminal(slave, plan.process, window)
            stdio = (slave, slave, slave)
        rootfs.set_sysctls(root, plan.sysctl)
        rootfs.protect(root, plan)
        rootfs.enter(root, plan.options.pivot)
        connection, listener, master = _rearrange(stdio, plan.options.preserved, connection, listener, master)
        if plan.options.keyring:
            linux_process.join_session_keyring("_ses." + plan.cgroup.rpartition("/")[2])
        program = confine(plan.process, plan.confinement, filter_program, connection)
        if master is None:
            sync.send(connection, sync.READY)
        else:
            sync.send(connection, sync.READY, master)
            os.close(master)
        if listener is None:
            sync.await_word(connection, sync.START)
        else:
            sync.await_word(connection, sync.HOLD)
            connection = _await_start(connection, listener)
        if plan.hooks is not None:
            hooks.run("startContainer", plan.hooks.start_container, plan.subject.state("created", os.getpid()))
        if plan.reaper:
            _reap(program, plan.process, connection)
        _execute(program)
    except BaseException as error:
        sync.send_failure(connection, error)
        os._exit(1)


def enter(
    target: int, kinds: frozenset[str], process: Process, stdio: tuple[int, int, int], preserved: int, own: list[int]
) -> list[int]:  # fmt: skip
    """In an exec's midwife (see `birth`): do what takes the host's files, and go where the container's process, the
    pidfd `target`, is. `kinds`: the namespaces that the container has of its own.

    Only the descriptors that the program is to have are left, from 0 on, and behind them our `own`; returns their new
    numbers.
    """
    _forbid_imports()
    _reset_signals()
    identity.set_oom_score("self", process.oom_score_adj)
    labels.apply(process)
    scheduling.set_initial(process)
    join_all(target, kinds)
    return _leave_open((*stdio, *range(_FIRST_FREE, _FIRST_FREE + preserved)), own)


def run_exec(
    process: Process, own: Sequence[int], kinds: frozenset[str], filter_program: bytes, confinement: Confinement,
    window: tuple[int, int] | None, *, attached: bool = False,
) -> NoReturn:  # fmt: skip
    """Become one more process of the container, in whose namespaces this one was born. `own`: descriptors of the
    connection to the parent, of the container's process (a pidfd), and what the cgroup is joined by; `attached`:
    somebody else moves it there."""
    connection = socket.socket(fileno=own[0])
    try:
        if attached:
            sync.expect(connection, sync.GROUP)
        os.setsid()
        Cgroup.join_by(own[2:])
        scheduling.set_final(process)
        _join_cgroup_namespace(own[1], kinds)
        linux_process.close_from(connection.fileno() + 1)
        if "user" in kinds:
            identity.become_root()
        if process.terminal:
            master, slave = rootfs.open_terminal(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            _take_terminal(slave, process, window)
            for number in range(_FIRST_FREE):
                os.dup2(slave, number)
            sync.send(connection, sync.READY, master)
            linux_process.close_from(connection.fileno() + 1)
        linux_process.join_session_keyring("_ses.exec")
        program = confine(process, confinement, filter_program, connection)
        _execute(program)
    except BaseException as error:
        sync.send_failure(connection, error)
        os._exit(1)


def _enter_group(plan: Plan, connection: socket.socket) -> tuple[bytes, list[int]]:
    """Wait for the cgroup and join it; returns the seccomp program and the sources of id-mapped mounts."""
    program, mapped = sync.expect(connection, sync.GROUP)
    _join_cgroup(Cgroup(plan.cgroup, plan.cgroup_places), plan.new_cgroup_namespace)
    return program, mapped


def _join_cgroup(group: Cgroup, new_namespace: bool) -> None:
    """A cgroup namespace's root is the group that the process is in when it is made."""
    try:
        if not group.unified:
            group.join()
        if new_namespace:
            namespaces.unshare(CLONE_NEWCGROUP)
    except OSError as error:
        raise Internal(f"cgroup: {error.filename or group.path}: {(error.strerror or '').lower()}") from error


def _forbid_imports() -> None:
    """Modules are searched for no more: they would be found in the container's files, and be the container's code in a
    process that has the host's powers still."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def join_all(pidfd: int, kinds: frozenset[str]) -> None:
    """Join every namespace of a process but that of cgroups; children are born in its pid namespace. One call, so that
    the kernel joins all or none: the user namespace last, with the host's powers over all of them, or by itself and
    first, where these are an ordinary user's."""
    left_out = {"user", "cgroup"} if "time" in kinds else {"user", "cgroup", "time"}
    flags = sum(flag for name, flag in FLAGS.items() if name not in left_out)
    try:
        if "user" not in kinds:
            namespaces.setns(pidfd, flags)
            return
        try:
            namespaces.setns(pidfd, flags)
        except PermissionError:
            namespaces.setns(pidfd, FLAGS["user"] | sum(FLAGS[kind] for kind in kinds - left_out))
        else:
            namespaces.setns(pidfd, FLAGS["user"])
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise Conflict("the container's process has ended") from error
        raise Internal(f"join the container's namespaces: {(error.strerror or '').lower()}") from error


def _join_cgroup_namespace(pidfd: int, kinds: frozenset[str]) -> None:
    """When the group is joined: from inside, the kernel lets nobody move whom it finds outside (nsdelegate)."""
    if "cgroup" in kinds or "user" not in kinds:
        try:
            namespaces.setns(pidfd, FLAGS["cgroup"])
        except OSError as error:
            raise Internal(f"join the container's cgroup namespace: {(error.strerror or '').lower()}") from error


def _reset_signals() -> None:
    """As a program expects them: nothing handled, ignored or blocked. Python ignores SIGPIPE and SIGXFSZ."""
    # What is handled goes back to its default by the execve itself.
    for number in linux_process.ignored_signals():
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_terminal(slave: int, process: Process, window: tuple[int, int] | None) -> None:
    if window is None and process.console_size is not None:
        window = (process.console_size.width, process.console_size.height)
    if window is not None and window != (0, 0):
        terminal.set_size(slave, *window)
    terminal.make_controlling(slave)
    os.fchown(slave, process.user.uid, -1)


def _rearrange(
    stdio: tuple[int, int, int], preserved: int, connection: socket.socket, listener: socket.socket | None = None,
    master: int | None = None,
) -> tuple[socket.socket, socket.socket | None, int | None]:  # fmt: skip
    """`_leave_open` for a container's first process."""
    own = [
        each
        for each in (connection.detach(), None if listener is None else listener.detach(), master)
        if each is not None
    ]
    numbers = iter(_leave_open((*stdio, *range(_FIRST_FREE, _FIRST_FREE + preserved)), own))
    return (
        socket.socket(fileno=next(numbers)),
        None if listener is None else socket.socket(fileno=next(numbers)),
        None if master is None else next(numbers),
    )


def _leave_open(passed: Sequence[int], own: Sequence[int]) -> list[int]:
    """Leave the descriptors that the program is to have, `passed`, from 0 on, and behind them our own (close-on-exec;
    their numbers are returned). All others are closed: none of the host's may stay, and a low limit of open files must
    not meet those that the parent happens to have."""
    # Out of the way first: one of them may stand where another belongs.
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, len(passed) + len(own)) for each in (*passed, *own)]
    for number, copy in enumerate(copies):
        os.dup2(copy, number, inheritable=number < len(passed))
    linux_process.close_from(len(copies))
    return list(range(len(passed), len(copies)))


def _await_start(connection: socket.socket, listener: socket.socket) -> socket.socket:
    """Wait, for as long as it takes, for the process that starts the container; returns the connection to it."""
    connection.close()
    # Process 1 of a pid namespace is only hit by signals that it handles. The execve puts them back.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    with listener:
        while True:
            accepted = listener.accept()[0]
            if sync.receive(accepted)[0] == sync.START:
                sync.send(accepted, sync.ACCEPTED)
                return accepted
            accepted.close()  # Somebody who only looked whether we are here.


def _execute(program: Program) -> NoReturn:
    try:
        os.execve(program.path, program.arguments, program.environment)
    except OSError as error:
        kind = CommandNotFound if error.errno in (errno.ENOENT, errno.ENOTDIR) else CommandNotExecutable
        raise kind(f"exec {program.path}: {(error.strerror or '').lower()}") from error


# --- Process 1 that reaps -----------------------------------------------------------------------------

_NOT_FORWARDED = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS,
    signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip


def _reap(program: Program, process: Process, connection: socket.socket) -> NoReturn:
    """Start the program as a child and stay: pass signals on, reap orphans, and end as the program ends."""
    forwarded = set(signal.valid_signals()) - _NOT_FORWARDED
    watched = forwarded | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setpgid(0, 0)
            if process.terminal:
                # From a background group this would stop the process, if SIGTTOU were not ignored meanwhile.
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                os.tcsetpgrp(0, os.getpid())
                signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            _execute(program)
        except BaseException as error:
            sync.send_failure(connection, error)
            os._exit(127)
    connection.close()
    linux_process.close_from(_FIRST_FREE)
    linux_process.set_name("docker-init", " ".join(("/sbin/docker-init", "--", *process.args)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        arrived = signal.sigwait(watched)
        if arrived != signal.SIGCHLD:
            try:
                os.kill(child, arrived)
            except ProcessLookupError:
                continue
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
