"""Kernel parameters: only those that belong to a namespace of the container's own, as the host has the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sampan.errors import InvalidArgument

_IPC = frozenset((
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
))  # fmt: skip


def checked(values: Mapping[str, str], own: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The parameters, by their paths below /proc/sys. `own`: the kinds of the namespaces that are not the host's.

    Raises InvalidArgument for one that would change the host.
    """
    return tuple((_name(name, own), value) for name, value in values.items())


def _name(given: str, own: Collection[str]) -> str:
    # Whichever separator comes first is the one; the other is then part of a name (net.ipv4.conf.eth0/1).
    first = min((at for at in (given.find("."), given.find("/")) if at >= 0), default=-1)
    path = given if first >= 0 and given[first] == "/" else given.translate(str.maketrans("./", "/."))
    if "\0" in given or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidArgument(f"sysctl {given!r} is not a parameter's name")
    dotted = path.replace("/", ".")
    if dotted in _IPC or dotted.startswith("fs.mqueue."):
        kind = "ipc"
    elif dotted.startswith("net."):
        kind = "network"
    elif dotted in ("kernel.domainname", "kernel.hostname"):
        kind = "uts"
    elif dotted.startswith("user."):
        kind = "user"
    else:
        raise InvalidArgument(f"sysctl {given!r} is not in a separate kernel namespace")
    if kind not in own:
        raise InvalidArgument(f"sysctl {given!r} is not allowed in the host's {kind} namespace")
    return path
