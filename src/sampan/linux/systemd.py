"""Asking systemd for a scope: D-Bus method calls over the bus's unix socket, with as much of its encoding as they take.

D-Bus specification: "Message Protocol" and "Authentication Protocol"; org.freedesktop.systemd1(5) for calls. Nothing
here is imported before a container asks for the systemd driver. Raises OSError: EIO with systemd's own words where it
refuses, TimeoutError where it does not answer.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

SYSTEM_BUS = "/run/dbus/system_bus_socket"
_TIMEOUT = 30.0
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_LARGEST = 1 << 20
_FIXED_HEADER = 16

Property = tuple[str, str, object]
"""Name, signature (`b`, `t`, `s`, `au` or `ay`), value."""


def _pad(data: bytearray, to: int) -> None:
    data.extend(bytes(-len(data) % to))


def _string(data: bytearray, text: str) -> None:
    encoded = text.encode()
    _pad(data, 4)
    data.extend(struct.pack("<I", len(encoded)) + encoded + b"\0")


def _signature(data: bytearray, text: str) -> None:
    data.extend(bytes([len(text)]) + text.encode() + b"\0")


def _variant(data: bytearray, signature: str, value: object) -> None:
    _signature(data, signature)
    match signature, value:
        case (("s" | "o"), str()):
            _string(data, value)
        case "g", str():
            _signature(data, value)
        case (("u" | "b"), int()):
            _pad(data, 4)
            data.extend(struct.pack("<I", value))
        case "t", int():
            _pad(data, 8)
            data.extend(struct.pack("<Q", value))
        case "au", (list() | tuple()):
            _pad(data, 4)
            data.extend(struct.pack(f"<I{len(value)}I", 4 * len(value), *value))
        case "ay", bytes():
            _pad(data, 4)
            data.extend(struct.pack("<I", len(value)) + value)
        case _:
            raise ValueError(f"cannot encode {value!r} as {signature!r}")


def _properties(data: bytearray, properties: Iterable[Property]) -> None:
    """a(sv): the length is that of the elements, without the padding before the first."""
    _pad(data, 4)
    at = len(data)
    data.extend(bytes(4))
    _pad(data, 8)
    start = len(data)
    for name, signature, value in properties:
        _pad(data, 8)
        _string(data, name)
        _variant(data, signature, value)
    struct.pack_into("<I", data, at, len(data) - start)


def encode_call(
    serial: int, destination: str, path: str, interface: str, member: str, signature: str = "", body: bytes = b""
) -> bytes:
    """A method call, little-endian."""
    fields: list[tuple[int, str, str]] = [
        (_PATH, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", member), (_DESTINATION, "s", destination),
    ]  # fmt: skip
    if signature:
        fields.append((_SIGNATURE, "g", signature))
    data = bytearray(struct.pack("<cBBBIII", b"l", _CALL, 0, 1, len(body), serial, 0))
    for code, kind, value in fields:
        _pad(data, 8)
        data.append(code)
        _variant(data, kind, value)
    struct.pack_into("<I", data, 12, len(data) - _FIXED_HEADER)
    _pad(data, 8)
    return bytes(data) + body


@dataclass(frozen=True)
class Message:
    """A message that came: what its header says, and its body's strings in order (of the types s, o, u only)."""

    kind: int
    reply_serial: int
    member: str
    error: str
    values: tuple[str | int, ...]


class _Reader:
    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order, self.at = data, order, 0

    def align(self, to: int) -> None:
        self.at += -self.at % to

    def number(self) -> int:
        self.align(4)
        (value,) = struct.unpack_from(self.order + "I", self.data, self.at)
        self.at += 4
        return int(value)

    def string(self, length: int) -> str:
        if self.at + length >= len(self.data):
            raise struct.error("a string is longer than its message")
        text = self.data[self.at : self.at + length].decode("utf-8", "replace")
        self.at += length + 1
        return text

    def value(self, kind: str) -> str | int:
        if kind in ("s", "o"):
            return self.string(self.number())
        if kind == "g":
            self.at += 1
            return self.string(self.data[self.at - 1])
        if kind == "u":
            return self.number()
        raise struct.error(f"unexpected type {kind!r}")


def decode(data: bytes) -> Message:
    """Raises OSError (EBADMSG) for what is no message."""
    try:
        order = {0x6C: "<", 0x42: ">"}[data[0]]
        reader = _Reader(data, order)
        reader.at = 12
        end = _FIXED_HEADER + reader.number()
        fields: dict[int, str | int] = {}
        while reader.at < end:
            reader.align(8)
            code = data[reader.at]
            reader.at += 1
            fields[code] = reader.value(str(reader.value("g")))
        reader.align(8)
        values: list[str | int] = []
        for kind in str(fields.get(_SIGNATURE, "")):
            if kind not in "sou":
                break
            values.append(reader.value(kind))
    except (KeyError, IndexError, struct.error) as error:
        raise OSError(errno.EBADMSG, f"a malformed message from the bus: {error}") from error
    return Message(
        data[1], int(fields.get(_REPLY_SERIAL, 0)), str(fields.get(_MEMBER, "")), str(fields.get(_ERROR_NAME, "")),
        tuple(values),
    )  # fmt: skip


class Systemd:
    """A connection to the system bus; use as a context manager."""

    def __init__(self, path: str = SYSTEM_BUS) -> None:
        self._serial = 0
        self._signals: list[Message] = []
        self._deadline = time.monotonic() + _TIMEOUT
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_TIMEOUT)
            self._socket.connect(path)
            # The credentials come from the kernel; the name is the user id's digits as hexadecimal.
            self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
            answer = self._socket.recv(1024)
            if not answer.startswith(b"OK "):
                raise PermissionError(errno.EACCES, "the bus refused the connection", path)
            self._socket.sendall(b"BEGIN\r\n")
            self._bus("Hello")
        except OSError as error:
            self._socket.close()
            error.filename = error.filename or path
            raise

    def __enter__(self) -> Systemd:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def start_scope(self, unit: str, properties: Iterable[Property]) -> None:
        """StartTransientUnit, until its job is done. FileExistsError: the unit is there."""
        rule = "type='signal',sender='org.freedesktop.systemd1',member='JobRemoved'"
        data = bytearray()
        _string(data, rule)
        self._bus("AddMatch", "s", bytes(data))
        self._manager("Subscribe")
        data = bytearray()
        _string(data, unit)
        _string(data, "fail")
        _properties(data, properties)
        _pad(data, 4)
        data.extend(bytes(4))  # No auxiliary units: an empty array,
        _pad(data, 8)  # padded as its elements would be.
        job = self._manager("StartTransientUnit", "ssa(sv)a(sa(sv))", bytes(data)).values[0]
        result = self._job_result(str(job))
        if result != "done":
            raise OSError(errno.EIO, f"systemd could not start {unit}: {result}")

    def set_properties(self, unit: str, properties: Iterable[Property]) -> None:
        """SetUnitProperties, until the next boot."""
        data = bytearray()
        _string(data, unit)
        _pad(data, 4)
        data.extend(struct.pack("<I", 1))
        _properties(data, properties)
        self._manager("SetUnitProperties", "sba(sv)", bytes(data))

    def _job_result(self, job: str) -> str:
        while True:
            for message in self._signals:
                if message.member == "JobRemoved" and len(message.values) == 4 and message.values[1] == job:
                    return str(message.values[3])
            self._signals = [self._receive()]

    def _bus(self, member: str, signature: str = "", body: bytes = b"") -> Message:
        name = "org.freedesktop.DBus"
        return self._call(name, "/org/freedesktop/DBus", name, member, signature, body)

    def _manager(self, member: str, signature: str = "", body: bytes = b"") -> Message:
        name = "org.freedesktop.systemd1"
        return self._call(name, "/org/freedesktop/systemd1", f"{name}.Manager", member, signature, body)

    def _call(self, destination: str, path: str, interface: str, member: str, signature: str, body: bytes) -> Message:
        self._serial += 1
        self._socket.sendall(encode_call(self._serial, destination, path, interface, member, signature, body))
        while True:
            message = self._receive()
            if message.kind == _SIGNAL:
                self._signals.append(message)
            elif message.reply_serial == self._serial:
                if message.kind == _ERROR:
                    number = errno.EEXIST if message.error.endswith(".UnitExists") else errno.EIO
                    words = str(message.values[0]) if message.values else message.error
                    raise OSError(number, f"systemd: {words}")
                return message

    def _receive(self) -> Message:
        head = self._exactly(_FIXED_HEADER)
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
