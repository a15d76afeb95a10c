"""Listening sockets, the pid file's lock, and idleness."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import stat

import pytest

from sampan.engine.config import Config, Host
from sampan.engine.daemon import AlreadyServed, Lock
from sampan.engine.idle import IdleWatch
from sampan.engine.listeners import close_listeners, is_served, notify, open_listeners
from sampan.errors import Conflict, InvalidArgument, ResourceExhausted


def test_a_unix_socket_for_root_and_one_group(short_dir: pathlib.Path) -> None:
    path = short_dir / "run" / "s.sock"
    [listener] = open_listeners([Host("unix", str(path))], str(os.getgid()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert path.stat().st_gid == os.getgid()
    assert is_served(Host("unix", str(path)))
    with pytest.raises(Conflict, match="another engine is listening there"):
        open_listeners([Host("unix", str(path))], "")
    # The engine that was killed leaves the path, which is taken over.
    close_listeners([listener])
    assert not is_served(Host("unix", str(path)))
    close_listeners(open_listeners([Host("unix", str(path))], ""))
    assert [each.name for each in path.parent.iterdir()] == ["s.sock"]


def test_what_is_no_socket_stays(short_dir: pathlib.Path) -> None:
    path = short_dir / "precious"
    path.write_text("x")
    with pytest.raises(Conflict, match="exists and is not a socket"):
        open_listeners([Host("unix", str(path))], "")
    assert path.read_text() == "x"


def test_an_unknown_group(short_dir: pathlib.Path) -> None:
    with pytest.raises(InvalidArgument, match="group nobody-has-this not found"):
        open_listeners([Host("unix", str(short_dir / "s"))], "nobody-has-this")
    assert list(short_dir.iterdir()) == []


def test_a_port_in_use_closes_the_others(short_dir: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = short_dir / "s"
        with pytest.raises(ResourceExhausted, match=f"can't listen on tcp://127.0.0.1:{port}: address already in use"):
            open_listeners([Host("unix", str(path)), Host("tcp", "127.0.0.1", port)], "")
    assert not is_served(Host("unix", str(path)))


def test_sockets_that_were_not_passed() -> None:
    with pytest.raises(InvalidArgument, match="no sockets named web found via socket activation"):
        open_listeners([Host("fd", "web")], "")


def test_the_service_manager_is_told(short_dir: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_dir / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(short_dir / "n"))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


def test_one_engine_on_a_data_root(short_dir: pathlib.Path) -> None:
    def config(run: str, *, on_demand: bool = False) -> Config:
        return Config(data_root=f"{short_dir}/data", exec_root=f"{short_dir}/{run}", on_demand=on_demand)

    first = Lock(config("run"))
    assert (short_dir / "run" / "sampan.pid").read_text() == f"{os.getpid()}\n"
    with pytest.raises(Conflict, match=rf"another engine \(process {os.getpid()}\) is using {short_dir}/data"):
        Lock(config("other"))
    assert not (short_dir / "other" / "sampan.pid").exists()
    # Where the one that has it answers, a second one for the same clients is not needed.
    listeners = open_listeners([Host("unix", config("run").paths.socket)], "")
    with pytest.raises(AlreadyServed):
        Lock(config("run", on_demand=True))
    close_listeners(listeners)
    first.remove()
    assert not (short_dir / "run" / "sampan.pid").exists()
    Lock(config("other")).remove()


async def test_idle_only_when_nothing_is_under_way() -> None:
    expired = asyncio.Event()
    busy = True
    watch = IdleWatch(0.03, lambda: busy, expired.set)
    watch.start()
    await asyncio.sleep(0.08)
    assert not expired.is_set()
    busy = False
    with watch.hold():
        with watch.hold():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
        assert (watch.under_way, expired.is_set()) == (1, False)
    await asyncio.wait_for(expired.wait(), 1)


async def test_never_idle_without_a_time() -> None:
    expired = asyncio.Event()
    watch = IdleWatch(0, lambda: False, expired.set)
    watch.start()
    with watch.hold():
        pass
    await asyncio.sleep(0.02)
    assert not expired.is_set()
