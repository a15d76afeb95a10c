"""Lines for systemd's journal, by its native protocol: a datagram a line, `NAME=value` a field.

Fields as Docker writes them. A value with a newline goes as the name, a newline, its length in eight bytes, least
significant first, the value and a newline (systemd's "Native Journal Protocol").
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
from sampan.shimapi.messages import LogConfig

if TYPE_CHECKING:
    from sampan.shim.log import Piece

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {1: b"PRIORITY=6\n", 2: b"PRIORITY=3\n"}


class Journald:
    def __init__(self, config: LogConfig, loop: Loop, on_room: Callable[[], None]) -> None:
        """Raises Unavailable where no journald is."""
        place = Place(socket.AF_UNIX, socket.SOCK_DGRAM, SOCKET)
        try:
            self.sender = Sender(loop, place, config.buffer, lossy=config.lossy, on_room=on_room)
        except OSError:
            raise Unavailable("journald is not enabled on this host") from None
        epoch = os.urandom(32).hex()
        fields = {**config.attributes, "CONTAINER_LOG_EPOCH": epoch}
        self._fields = b"".join(field(name, value.encode()) for name, value in fields.items())
        self._ordinal = 0

    def lines(self, stream: int, data: bytes, now: int) -> None:
        head = self._head(stream, now)
        for line in data[:-1].split(b"\n"):
            self._give(head, line, b"")
        self.sender.flush()

    def piece(self, stream: int, text: bytes, now: int, piece: Piece) -> None:
        more = f"CONTAINER_PARTIAL_ID={piece.id}\nCONTAINER_PARTIAL_ORDINAL={piece.ordinal}\n"
        more += "CONTAINER_PARTIAL_LAST=true\n" if piece.last else (
            "CONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\n"
        )  # fmt: skip
        self._give(self._head(stream, now), text, more.encode())
        self.sender.flush()

    def _head(self, stream: int, now: int) -> bytes:
        second, fraction = divmod(now, 1_000_000_000)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return _PRIORITIES[stream] + self._fields + f"SYSLOG_TIMESTAMP={moment}.{fraction:09d}Z\n".encode()

    def _give(self, head: bytes, line: bytes, more: bytes) -> None:
        self._ordinal += 1
        self.sender.give(b"%sCONTAINER_LOG_ORDINAL=%d\n%sMESSAGE=%s\n" % (head, self._ordinal, more, line))

    def close(self) -> None:
        self.sender.close()


def field(name: str, value: bytes) -> bytes:
    """One field, as the protocol has it."""
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
