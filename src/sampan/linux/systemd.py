"""Asking systemd for a scope, over a bus's unix socket or its own.

D-Bus specification, "Authentication Protocol" and "Server Addresses"; org.freedesktop.systemd1(5) for calls. Nothing
here is imported before a container asks for the systemd driver. Raises OSError: EIO with systemd's own words where it
refuses, TimeoutError where it does not answer.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterable

from sampan.linux.dbus import ERROR, HEADER, SIGNAL, Encoder, Message, Property, decode, encode_call

_TIMEOUT = 30.0
_LARGEST = 1 << 20
_SYSTEM = ("/run/dbus/system_bus_socket", "/run/systemd/private")
_PRIVATE = "/systemd/private"
"""systemd's own socket, where there is no bus: the same calls, to nobody by name."""
_NOT_THERE = (errno.ENOENT, errno.ECONNREFUSED)

_MANAGER = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"


def system_sockets() -> list[str]:
    """Where the machine's systemd can be reached."""
    return list(_SYSTEM)


def user_sockets() -> list[str]:
    """Where an ordinary user's systemd can be reached: $DBUS_SESSION_BUS_ADDRESS, or below $XDG_RUNTIME_DIR."""
    found = addresses(os.environ.get("DBUS_SESSION_BUS_ADDRESS", ""))
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        found += [f"{runtime}/bus", runtime + _PRIVATE]
    return found


def addresses(text: str) -> list[str]:
    """The unix sockets of a D-Bus server address: `unix:path=/a%20b,guid=1;unix:abstract=c`. An abstract one's name
    begins with a null byte."""
    found: list[str] = []
    for address in text.split(";"):
        transport, _, rest = address.partition(":")
        pairs = dict(pair.partition("=")[::2] for pair in rest.split(","))
        if transport == "unix":
            path, abstract = (_unescaped(pairs.get(key, "")) for key in ("path", "abstract"))
            if path or abstract:
                found.append(path or "\0" + abstract)
    return found


def _unescaped(text: str) -> str:
    return re.sub("%([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), text)


class Systemd:
    """A connection to the first of the sockets that is there; use as a context manager."""

    def __init__(self, sockets: Iterable[str]) -> None:
        self._serial = 0
        self._signals: list[Message] = []
        self._deadline = time.monotonic() + _TIMEOUT
        self._private = False
        self._subscribed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_TIMEOUT)
            path = self._connect(sockets)
            self._private = path.endswith(_PRIVATE)
            self._authenticate(path)
            if not self._private:
                self._bus("Hello")
        except BaseException:
            self._socket.close()
            raise

    def _connect(self, sockets: Iterable[str]) -> str:
        missing: OSError = FileNotFoundError(errno.ENOENT, "no bus of systemd's: is DBUS_SESSION_BUS_ADDRESS set?")
        for path in sockets:
            try:
                self._socket.connect(path)
            except OSError as error:
                error.filename = path.replace("\0", "@")
                if error.errno not in _NOT_THERE:
                    raise
                missing = error
            else:
                return path
        raise missing

    def _authenticate(self, path: str) -> None:
        # Without a name: the socket tells who this is, in a user namespace too, where the number would be another.
        # BEGIN at once: systemd's own end never looks at a call that it has read in one piece with it.
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        buffer = b""
        while not buffer.startswith(b"OK "):
            line, end, rest = buffer.partition(b"\r\n")
            if end and line not in (b"DATA", b"DATA "):
                raise PermissionError(errno.EACCES, "the bus refused the connection", path)
            if end:
                buffer = rest
            elif len(buffer) < _LARGEST and (more := self._socket.recv(1024)):
                buffer += more
            else:
                raise PermissionError(errno.EACCES, "the bus closed the connection", path)
        while not buffer.endswith(b"\r\n"):
            buffer += self._exactly(1)

    def __enter__(self) -> Systemd:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # --- Calls --------------------------------------------------------------------------------------------

    def start_scope(self, unit: str, properties: Iterable[Property]) -> None:
        """StartTransientUnit, until its job is done. One that has failed and is still known is forgotten first.
        FileExistsError: the unit is there."""
        given = list(properties)
        try:
            result = self._start(unit, given)
        except FileExistsError:
            if not self.reset_failed(unit):
                raise
            result = self._start(unit, given)
        if result != "done":
            self.reset_failed(unit)
            raise OSError(errno.EIO, f"systemd could not start {unit}: {result}")

    def _start(self, unit: str, properties: list[Property]) -> str:
        body = Encoder().string(unit, "fail").properties(properties).no_structures()
        return self._job("StartTransientUnit", "ssa(sv)a(sa(sv))", body)

    def stop(self, unit: str) -> None:
        """StopUnit, until its job is done; whatever of the unit is left is forgotten. Idempotent."""
        try:
            self._job("StopUnit", "ss", Encoder().string(unit, "replace"))
        except FileNotFoundError:
            return
        self.reset_failed(unit)

    def reset_failed(self, unit: str) -> bool:
        """Whether there was one."""
        try:
            self._manager("ResetFailedUnit", "s", Encoder().string(unit))
        except OSError:
            return False
        return True

    def set_properties(self, unit: str, properties: Iterable[Property]) -> None:
        """SetUnitProperties, until the next boot."""
        body = Encoder().string(unit).value("b", 1).properties(properties)
        self._manager("SetUnitProperties", "sba(sv)", body)

    def attach(self, unit: str, pid: int) -> None:
        """AttachProcessesToUnit: move a process where its owner may not move it himself."""
        body = Encoder().string(unit, "").value("au", (pid,))
        self._manager("AttachProcessesToUnit", "ssau", body)

    def version(self) -> int:
        """252; 0 where it can't be told."""
        text = str(self._property("Version")).lstrip("v")
        digits = text[: next((at for at, letter in enumerate(text) if not letter.isdigit()), len(text))]
        return int(digits or 0)

    def control_group(self) -> str:
        """The group that holds the manager's units."""
        return str(self._property("ControlGroup"))

    def _property(self, name: str) -> object:
        body = Encoder().string(f"{_MANAGER}.Manager", name)
        return self._call(_MANAGER_PATH, "org.freedesktop.DBus.Properties", "Get", "ss", body).values[0]

    # --- Messages -----------------------------------------------------------------------------------------

    def _job(self, member: str, signature: str, body: Encoder) -> str:
        """Call what makes a job, and wait for the job's result: the call's return says only that it is queued."""
        self._subscribe()
        job = self._manager(member, signature, body).values[0]
        while True:
            for message in self._signals:
                if message.member == "JobRemoved" and len(message.values) == 4 and message.values[1] == job:
                    return str(message.values[3])
            self._signals = [self._receive()]

    def _subscribe(self) -> None:
        if not self._subscribed:
            if not self._private:
                rule = f"type='signal',sender='{_MANAGER}',member='JobRemoved'"
                self._bus("AddMatch", "s", Encoder().string(rule))
            self._manager("Subscribe")
            self._subscribed = True

    def _bus(self, member: str, signature: str = "", body: Encoder | None = None) -> Message:
        name = "org.freedesktop.DBus"
        return self._call("/org/freedesktop/DBus", name, member, signature, body, destination=name)

    def _manager(self, member: str, signature: str = "", body: Encoder | None = None) -> Message:
        return self._call(_MANAGER_PATH, f"{_MANAGER}.Manager", member, signature, body)

    def _call(
        self, path: str, interface: str, member: str, signature: str, body: Encoder | None,
        destination: str = _MANAGER,
    ) -> Message:  # fmt: skip
        self._serial += 1
        data = b"" if body is None else bytes(body.data)
        name = "" if self._private else destination
        self._socket.sendall(encode_call(self._serial, name, path, interface, member, signature, data))
        while True:
            message = self._receive()
            if message.kind == SIGNAL:
                self._signals.append(message)
            elif message.reply_serial == self._serial:
                if message.kind == ERROR:
                    raise _refusal(message)
                return message

    def _receive(self) -> Message:
        head = self._exactly(HEADER)
        order = ">" if head[:1] == b"B" else "<"
        body, _, fields = struct.unpack_from(order + "III", head, 4)
        rest = fields + -fields % 8 + body
        if rest > _LARGEST:
            raise OSError(errno.EBADMSG, "a message from the bus is too long")
        return decode(head + self._exactly(rest))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError(errno.ECONNRESET, "the bus closed the connection")
            data += more
        return data


_KINDS = {"UnitExists": errno.EEXIST, "NoSuchUnit": errno.ENOENT, "AccessDenied": errno.EACCES}


def _refusal(message: Message) -> OSError:
    words = str(message.values[0]) if message.values else message.error
    return OSError(_KINDS.get(message.error.rpartition(".")[2], errno.EIO), f"systemd: {words}")
