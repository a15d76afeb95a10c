"""Speaking to systemd: over a bus or its own socket, with what can go wrong. The other end is played by this test."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from sampan.linux import dbus, systemd
from sampan.linux.systemd import Systemd, addresses, user_sockets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("unix:path=/run/user/1000/bus", ["/run/user/1000/bus"]),
        ("unix:path=/a%20b,guid=0123", ["/a b"]),
        ("tcp:host=x,port=1;unix:abstract=/tmp/x,guid=1;unix:path=/y", ["\0/tmp/x", "/y"]),
        ("unix:tmpdir=/tmp;nonsense", []),
    ],
)
def test_addresses(text: str, expected: list[str]) -> None:
    assert addresses(text) == expected


def test_a_users_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/a")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/5")
    assert user_sockets() == ["/a", "/run/user/5/bus", "/run/user/5/systemd/private"]
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(FileNotFoundError, match="DBUS_SESSION_BUS_ADDRESS"):
        Systemd(user_sockets())


# --- The other end -------------------------------------------------------------------------------------------

Answer = Callable[[str, tuple[str | int | float, ...]], list[bytes]]


class Peer:
    """A bus, or systemd itself: `answer` is given a call's name and first arguments, and gives whole messages; those
    that are replies are numbered here."""

    def __init__(self, path: str, answer: Answer, greeting: bytes = b"DATA\r\nOK 0123\r\n") -> None:
        self.calls: list[tuple[str, tuple[str | int | float, ...]]] = []
        self._answer = answer
        self._greeting = greeting
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            stream = connection.makefile("rb")
            assert stream.read(1) == b"\0"
            assert stream.readline() == b"AUTH EXTERNAL\r\n"
            assert stream.readline() == b"DATA\r\n"
            for byte in self._greeting:  # However it is cut.
                connection.sendall(bytes([byte]))
            if stream.readline() != b"BEGIN\r\n":
                return
            while head := stream.read(16):
                body, serial, fields = struct.unpack_from("<III", head, 4)
                message = dbus.decode(head + stream.read(fields + -fields % 8 + body))
                self.calls.append((message.member, message.values))
                for each in self._answer(message.member, message.values):
                    connection.sendall(each[:8] + each[8:].replace(b"SERI", struct.pack("<I", serial)))

    def close(self) -> None:
        self._socket.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


def message(kind: int, signature: str = "", body: bytes = b"", **fields: str) -> bytes:
    codes = {"member": (3, "s"), "error": (4, "s")}
    made = dbus.Encoder()
    made.data += struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), 1, 0)
    made.pad(8)
    made.data += b"\x05\x01u\0SERI"  # The reply's serial.
    for name, text in fields.items():
        made.pad(8)
        made.data.append(codes[name][0])
        made.variant(codes[name][1], text)
    if signature:
        made.pad(8)
        made.data.append(8)
        made.variant("g", signature)
    struct.pack_into("<I", made.data, 12, len(made.data) - 16)
    made.pad(8)
    return bytes(made.data) + body


def reply(signature: str = "", body: dbus.Encoder | None = None) -> bytes:
    return message(dbus.RETURN, signature, bytes(body.data) if body else b"")


def refusal(name: str, words: str) -> bytes:
    return message(dbus.ERROR, "s", bytes(dbus.Encoder().string(words).data), error=f"org.freedesktop.systemd1.{name}")


def job_removed(path: str, unit: str, result: str) -> bytes:
    body = dbus.Encoder().value("u", 7).string(path, unit, result)
    return message(dbus.SIGNAL, "uoss", bytes(body.data), member="JobRemoved")


@contextlib.contextmanager
def spoken(directory: pathlib.Path, answer: Answer, name: str = "bus", **more: bytes) -> Iterator[tuple[Peer, str]]:
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    path = str(directory / name)
    peer = Peer(path, answer, **more)
    try:
        yield peer, path
    finally:
        peer.close()


def started(member: str, values: tuple[str | int | float, ...]) -> list[bytes]:
    if member == "StartTransientUnit":
        job = reply("o", dbus.Encoder().string("/job/1"))
        return [job_removed("/job/0", "other.scope", "failed"), job, job_removed("/job/1", str(values[0]), "done")]
    return [reply()]


def test_a_scope_over_a_bus(short_dir: pathlib.Path) -> None:
    with spoken(short_dir, started) as (peer, path), Systemd([str(short_dir / "none"), path]) as manager:
        manager.start_scope("a.scope", [("Delegate", "b", 1), ("PIDs", "au", (5, 6)), ("MemoryMax", "t", 1 << 40)])
    assert [name for name, _ in peer.calls] == ["Hello", "AddMatch", "Subscribe", "StartTransientUnit"]
    assert peer.calls[3][1] == ("a.scope", "fail")


def test_a_scope_by_systemds_own_socket(short_dir: pathlib.Path) -> None:
    with spoken(short_dir, started, "systemd/private") as (peer, path), Systemd([path]) as manager:
        manager.start_scope("a.scope", [])
    assert [name for name, _ in peer.calls] == ["Subscribe", "StartTransientUnit"]


def test_a_scope_that_has_failed_gives_way(short_dir: pathlib.Path) -> None:
    refused: list[str] = []

    def answer(member: str, values: tuple[str | int | float, ...]) -> list[bytes]:
        if member == "StartTransientUnit" and not refused:
            refused.append(member)
            return [refusal("UnitExists", "Unit a.scope was already loaded")]
        return started(member, values)

    with spoken(short_dir, answer) as (peer, path), Systemd([path]) as manager:
        manager.start_scope("a.scope", [])
    assert [name for name, _ in peer.calls].count("ResetFailedUnit") == 1


def test_a_scope_that_is_there_stays(short_dir: pathlib.Path) -> None:
    def answer(member: str, values: tuple[str | int | float, ...]) -> list[bytes]:
        if member == "StartTransientUnit":
            return [refusal("UnitExists", "Unit a.scope was already loaded")]
        return [reply()]

    with (
        spoken(short_dir, answer) as (_, path),
        Systemd([path]) as manager,
        pytest.raises(FileExistsError, match="already loaded"),
    ):
        manager.start_scope("a.scope", [])


def test_a_job_that_fails(short_dir: pathlib.Path) -> None:
    def answer(member: str, values: tuple[str | int | float, ...]) -> list[bytes]:
        if member == "StartTransientUnit":
            return [reply("o", dbus.Encoder().string("/job/1")), job_removed("/job/1", "a.scope", "failed")]
        return [reply()]

    with (
        spoken(short_dir, answer) as (peer, path),
        Systemd([path]) as manager,
        pytest.raises(OSError, match=r"could not start a\.scope: failed"),
    ):
        manager.start_scope("a.scope", [])
    assert peer.calls[-1][0] == "ResetFailedUnit"


def test_stopping_what_is_not_there(short_dir: pathlib.Path) -> None:
    def answer(member: str, values: tuple[str | int | float, ...]) -> list[bytes]:
        return [refusal("NoSuchUnit", "Unit a.scope not loaded.")] if member == "StopUnit" else [reply()]

    with spoken(short_dir, answer) as (_, path), Systemd([path]) as manager:
        manager.stop("a.scope")


def test_what_the_manager_says_of_itself(short_dir: pathlib.Path) -> None:
    said = {"Version": "252.39-1~deb12u1", "ControlGroup": "/user.slice/user-5.slice/user@5.service"}

    def answer(member: str, values: tuple[str | int | float, ...]) -> list[bytes]:
        if member != "Get":
            return [reply()]
        body = dbus.Encoder()
        body.variant("s", said[str(values[1])])
        return [reply("v", body)]

    with spoken(short_dir, answer) as (_, path), Systemd([path]) as manager:
        assert manager.version() == 252
        assert manager.control_group() == said["ControlGroup"]


@pytest.mark.parametrize("greeting", [b"REJECTED EXTERNAL\r\n", b"DATA\r\nERROR\r\n"])
def test_a_connection_that_is_refused(short_dir: pathlib.Path, greeting: bytes) -> None:
    with (
        spoken(short_dir, started, greeting=greeting) as (_, path),
        pytest.raises(PermissionError, match="refused the connection"),
    ):
        Systemd([path])


def test_a_silent_bus_is_not_waited_for_for_ever(short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_TIMEOUT", 0.2)
    with spoken(short_dir, lambda *_: []) as (_, path), pytest.raises(TimeoutError):
        Systemd([path])


@pytest.mark.parametrize(
    ("signature", "value", "encoded"),
    [
        ("b", 1, "01000000"),
        ("t", 2, "0200000000000000"),
        ("s", "ab", "02000000616200"),
        ("au", (1, 2), "080000000100000002000000"),
        ("ay", b"\x07\x02", "020000000702"),
        ("as", ("a", "b"), "0e0000000100000061000000010000006200"),
        ("at", (1,), "08000000000000000100000000000000"),
        ("d", 0.5, "000000000000e03f"),
        ("n", -2, "feff"),
    ],
)
def test_values_as_the_specification_lays_them_out(signature: str, value: object, encoded: str) -> None:
    assert dbus.Encoder().value(signature, value).data.hex() == encoded


def test_properties_as_the_specification_lays_them_out() -> None:
    words = [
        "0100000075000000",  # The text before, padded;
        "2800000000000000",  # the length of the elements, and padding up to the first;
        "0100000041000162", "0000000001000000",  # its name, type and value;
        "0100000042000174", "0000000000000000", "0200000000000000",  # and the second's.
    ]  # fmt: skip
    properties: list[dbus.Property] = [("A", "b", 1), ("B", "t", 2)]
    assert dbus.Encoder().string("u").properties(properties).data.hex() == "".join(words)


@pytest.mark.parametrize(("signature", "value"), [("t", "x"), ("s", 1), ("t", -1), ("t", 1 << 64), ("(s)", "x")])
def test_a_value_of_another_type_is_refused(signature: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"encode|is no"):
        dbus.Encoder().value(signature, value)
