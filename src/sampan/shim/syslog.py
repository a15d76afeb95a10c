"""Lines for syslog: RFC 3164 and RFC 5424 as Docker writes them, over a unix socket, UDP, TCP or TLS (RFC 5425).

Whatever is printed on stderr has the severity `err`, all else `info`. Empty lines are left out, as by Docker.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.errors import Unavailable
from sampan.shim.loop import Loop
from sampan.shim.sender import Place, Sender
from sampan.shimapi.messages import LogConfig, SyslogConfig

if TYPE_CHECKING:
    from sampan.shim.log import Piece

_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_SEVERITIES = {1: 6, 2: 3}
_FAMILIES = {"unix": socket.SOCK_STREAM, "unixgram": socket.SOCK_DGRAM}
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Syslog:
    def __init__(self, config: LogConfig, loop: Loop, on_room: Callable[[], None]) -> None:
        """Raises Unavailable when there is no syslog."""
        assert config.syslog is not None
        self._syslog = config.syslog
        self._tag = config.tag
        self._host = os.uname().nodename
        self._counted = config.syslog.network == "tcp+tls" and config.syslog.format.startswith("rfc5424")
        self.sender = _connect(config, loop, on_room)

    def lines(self, stream: int, data: bytes, now: int) -> None:
        head = self._head(stream, now)
        for line in data[:-1].split(b"\n"):
            if line:
                self._give(head + line + b"\n")
        self.sender.flush()

    def piece(self, stream: int, text: bytes, now: int, piece: Piece) -> None:
        if text:
            self._give(self._head(stream, now) + text + b"\n")
            self.sender.flush()

    def _give(self, message: bytes) -> None:
        self.sender.give(b"%d %s" % (len(message), message) if self._counted else message)

    def _head(self, stream: int, now: int) -> bytes:
        second, fraction = divmod(now, 1_000_000_000)
        priority = self._syslog.facility << 3 | _SEVERITIES[stream]
        if self._syslog.format.startswith("rfc5424"):
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
            micro = f".{fraction // 1000:06d}" if self._syslog.format == "rfc5424micro" else ""
            return (
                f"<{priority}>1 {moment}{micro}{_zone(second)} {self._host} {self._tag} {os.getpid()} {self._tag} - "
            ).encode()  # fmt: skip
        local = time.localtime(second)
        moment = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
        host = f"{self._host} " if self._syslog.format == "rfc3164" else ""
        return f"<{priority}>{moment} {host}{self._tag}[{os.getpid()}]: ".encode()

    def close(self) -> None:
        self.sender.close()


def _zone(second: int) -> str:
    offset = time.localtime(second).tm_gmtoff // 60
    if not offset:
        return "Z"
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"


def _connect(config: LogConfig, loop: Loop, on_room: Callable[[], None]) -> Sender:
    """In Docker's words."""
    syslog = config.syslog
    assert syslog is not None
    try:
        places = _places(syslog)
    except OSError as error:
        raise Unavailable(f"dial {syslog.network} {_shown(syslog)}: {_reason(error)}") from None
    problem = "Unix syslog delivery error"
    for place in places:
        try:
            return Sender(loop, place, config.buffer, lossy=config.lossy, on_room=on_room)
        except OSError as error:
            if syslog.network:
                problem = f"dial {syslog.network.partition('+')[0]} {_shown(syslog)}: connect: {_reason(error)}"
    raise Unavailable(problem)


def _shown(syslog: SyslogConfig) -> str:
    host = f"[{syslog.host}]" if ":" in syslog.host else syslog.host
    return f"{host}:{syslog.port}" if syslog.port else syslog.host


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _places(syslog: SyslogConfig) -> list[Place]:
    """Where to try. Raises OSError: a name that is none, a certificate that can't be read."""
    if not syslog.network:
        return [
            Place(socket.AF_UNIX, kind, path)
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            for path in _LOCAL
            if os.path.exists(path)
        ]
    if syslog.network in _FAMILIES:
        return [Place(socket.AF_UNIX, _FAMILIES[syslog.network], syslog.host)]
    kind = socket.SOCK_DGRAM if syslog.network.startswith("udp") else socket.SOCK_STREAM
    context = None
    if syslog.network == "tcp+tls":
        import ssl

        context = ssl.create_default_context(cafile=syslog.ca or None)
        if syslog.certificate:
            context.load_cert_chain(syslog.certificate, syslog.key or None)
        if not syslog.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    found = socket.getaddrinfo(syslog.host or "localhost", syslog.port, type=kind)
    return [Place(family, kind, address, context, syslog.host) for family, _, _, _, address in found]
