"""Listening sockets: made here, or passed by systemd (sd_listen_fds(3)); and the word to it that all is ready."""

from __future__ import annotations

import grp
import logging
import os
import socket
import stat
from collections.abc import Iterable

from sampan.engine.config import Host
from sampan.errors import Conflict, InvalidArgument, ResourceExhausted, SampanError

_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_DEFAULT_GROUP = "docker"

_log = logging.getLogger("sampan.daemon")


def open_listeners(hosts: Iterable[Host], group: str, *, guarded: bool = False) -> list[socket.socket]:
    """All of them, listening, non-blocking. `guarded`: TLS lets known clients alone in by TCP.

    Raises SampanError; then none is left.
    """
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            if host.scheme == "unix":
                sockets.append(_unix(host.path, group))
            elif host.scheme == "tcp":
                if not guarded:
                    _log.warning("listening on tcp://%s:%d: whoever reaches it is root here", host.path, host.port)
                sockets.append(_tcp(host.path, host.port))
            else:
                sockets.extend(_passed(host.path))
        for each in sockets:
            each.setblocking(False)
    except BaseException:
        close_listeners(sockets)
        raise
    return sockets


def close_listeners(sockets: Iterable[socket.socket]) -> None:
    """Close them. A path stays: another engine may have taken it over, and a client knows a dead one."""
    for each in sockets:
        each.close()


def _unix(path: str, group: str) -> socket.socket:
    """A socket that root and one group can use. A path left by an engine that died is taken over."""
    owner = _group_id(group)
    try:
        os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
        if _answers(path):
            raise Conflict(f"can't listen on {path}: another engine is listening there")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Under a name of its own until its owner and mode are right: nobody else can connect in between,
        # and whoever waits for the path finds a socket that answers.
        temporary = f"{path}.{os.getpid() % 1000}"
        try:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            listener.bind(temporary)
            os.chmod(temporary, 0o660)
            os.chown(temporary, -1, owner)
            listener.listen(128)
            os.rename(temporary, path)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ResourceExhausted(f"can't listen on {path}: {(error.strerror or str(error)).lower()}") from error
    return listener


def is_served(host: Host) -> bool:
    """Whether somebody listens on that unix socket; other hosts are not asked."""
    return host.scheme == "unix" and _answers(host.path)


def _answers(path: str) -> bool:
    """Whether somebody listens there. Raises Conflict for a path that is no socket: it is not ours to replace."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"can't listen on {path}: it exists and is not a socket")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
    return True


def _group_id(group: str) -> int:
    """The number of the group that may connect; root's when there is no group `docker` and none was asked for."""
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group or _DEFAULT_GROUP).gr_gid
    except KeyError:
        if group:
            raise InvalidArgument(f"group {group} not found") from None
        return 0


def _tcp(address: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(resolved)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ResourceExhausted(f"can't listen on tcp://{address}:{port}: {reason}") from error
    return listener


def _passed(name: str) -> list[socket.socket]:
    """What systemd passed: all of it, or the ones with that name or number."""
    count = int(os.environ.get("LISTEN_FDS", "0") or 0) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    chosen: list[int] = []
    for at in range(count):
        descriptor = _FIRST_PASSED + at
        if name in ("", str(descriptor), names[at] if at < len(names) else ""):
            os.set_inheritable(descriptor, False)
            chosen.append(descriptor)
    if not chosen:
        raise no_sockets(name)
    return [socket.socket(fileno=descriptor) for descriptor in chosen]


def no_sockets(name: str) -> SampanError:
    """The refusal of fd:// without a socket."""
    wanted = f" named {name}" if name else ""
    return InvalidArgument(
        f"no sockets{wanted} found via socket activation: make sure the service was started by systemd"
    )


def notify(state: str) -> None:
    """Tell the service manager, if there is one (sd_notify(3)); silent when it does not listen."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            _log.warning("%s: %s", path, error.strerror)
