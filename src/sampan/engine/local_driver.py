"""Docker's local volume driver with its options: what is mounted on a volume's directory while it is used.

`type`, `device` and `o` are mount(2)'s, with mount(8)'s words for the flags; `type=none,o=bind` is a bind mount, and so
is `type=bind`. nfs and cifs take addresses only, so names are looked up here.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import NamedTuple

from sampan.errors import Internal, InvalidArgument
from sampan.linux import mount as m
from sampan.linux.mount import FLAGS, PROPAGATION, is_mounted

_KNOWN = ("type", "o", "device", "size")
_NEEDED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?[kmgtp]?i?b?", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:^|,)addr=([^,]*)")
_PASSWORD = re.compile(r"password=[^,]*")
_READ_ONLY_BIND = m.MS_BIND | m.MS_RDONLY


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Raises InvalidArgument in Docker's words. `o` is looked at when it is used: it may be any file system's."""
    for option in options:
        if option not in _KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    if "size" in options:
        size = _SIZE.fullmatch(options["size"])
        if size is None:
            raise InvalidArgument(f"create {name}: invalid size: '{options['size']}'")
        if float(size[1]):
            raise InvalidArgument(f"create {name}: quota size requested but no quota support")
    for option, others in _NEEDED.items():
        for other in others:
            if option in options and other not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')


def is_mount(options: Mapping[str, str] | None) -> bool:
    """Whether there is anything to mount."""
    return bool(options and (options.get("type") or options.get("device")))


class MountCall(NamedTuple):
    """mount(2)'s arguments; `propagation`: kinds that are set afterwards."""

    device: str
    kind: str
    flags: int
    data: str
    propagation: tuple[int, ...] = ()


def mount_call(options: Mapping[str, str]) -> MountCall:
    """Pure."""
    kind = options.get("type", "")
    flags = m.MS_BIND if kind == "bind" else 0
    data: list[str] = []
    propagation: list[int] = []
    for word in options.get("o", "").split(","):
        if word in FLAGS:
            flag, on = FLAGS[word]
            flags = flags | flag if on else flags & ~flag
        elif word in PROPAGATION:
            propagation.append(PROPAGATION[word])
        elif word:
            data.append(word)
    return MountCall(options.get("device", ""), kind, flags, ",".join(data), tuple(propagation))


def mount(options: Mapping[str, str], target: str) -> None:
    """Blocks for as long as a server takes. On failure nothing is mounted. Raises Internal in Docker's words."""
    call = _with_addresses(mount_call(options), target)
    if not call.device:
        raise _failed(target, "missing device in volume options")
    try:
        m.mount(call.device, target, call.kind, call.flags, call.data)
    except OSError as error:
        shown = f"{call.device}:{target}"
        if call.flags:
            shown += f", flags: {call.flags:#x}"
        if call.data:
            shown += f", data: {_PASSWORD.sub('password=********', call.data)}"
        raise _failed(target, f"failed to mount local volume: mount {shown}: {_words(error)}") from error
    try:
        for kind in call.propagation:
            m.mount("", target, flags=kind)
        if call.flags & _READ_ONLY_BIND == _READ_ONLY_BIND:
            m.mount("", target, flags=call.flags | m.MS_REMOUNT)
    except OSError as error:
        with contextlib.suppress(OSError):
            unmount(target)
        raise _failed(target, f"failed to mount local volume: remount {target}: {_words(error)}") from error


def unmount(target: str) -> None:
    """All that is mounted there; lazily where somebody of the host's still uses it. Idempotent. Raises OSError."""
    while is_mounted(target):
        try:
            m.umount(target, m.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            m.umount(target, m.MNT_DETACH | m.UMOUNT_NOFOLLOW)


def _failed(target: str, message: str) -> Internal:
    return Internal(f"error while mounting volume '{target}': {message}")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _with_addresses(call: MountCall, target: str) -> MountCall:
    if call.kind == "nfs" and (named := _ADDRESS.search(call.data)) and named[1]:
        at = named.span(1)
        return call._replace(data=call.data[: at[0]] + _address(named[1], target) + call.data[at[1] :])
    if call.kind == "cifs" and call.device.startswith("//"):
        host, slash, path = call.device[2:].partition("/")
        if host:
            return call._replace(device=f"//{_address(host, target)}{slash}{path}")
    return call


def _address(host: str, target: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]")))
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _failed(
            target, f"error resolving passed in network volume address: lookup {host}: no such host"
        ) from None
    # As Go does, IPv4 first where a name has both.
    return str(sorted(found, key=lambda each: each[0] != socket.AF_INET)[0][4][0])
