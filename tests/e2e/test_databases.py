"""Databases of this machine's distribution keep what they have committed, in a volume: killed, removed, made anew."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import postgresql
from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")

_ROUNDS = 3


@pytest.fixture(autouse=True)
def _nothing_left(engine: Engine) -> Iterator[None]:
    yield
    engine.remove_containers()
    for each in engine.client.call("GET", "/volumes")["Volumes"]:
        engine.client.call("DELETE", f"/volumes/{each['Name']}")
    for image in ("postgres", "redis"):
        engine.sampan("rmi", "-f", image)
    assert engine.left_over() == []


def _until(ask: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ask() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask()


def _kill(engine: Engine, name: str, turn: int) -> None:
    """As hard as it goes: by the engine, by the kernel, and with the engine first."""
    pid = engine.client.call("GET", f"/containers/{name}/json")["State"]["Pid"]
    if turn == 0:
        engine.sampan("kill", name, check=True)
    elif turn == 1:
        os.kill(pid, signal.SIGKILL)
    else:
        engine.stop(signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        engine.start()
    _until(lambda: not engine.client.call("GET", f"/containers/{name}/json")["State"]["Running"])


@pytest.mark.requires("program:redis-server", "program:redis-cli")
def test_redis(engine: Engine) -> None:
    sampan = engine.sampan
    sampan("image", "from-host", "redis", "redis-server", "redis-cli", check=True)

    def ask(*words: str) -> str:
        return sampan("exec", "redis", "redis-cli", *words).stdout.strip()

    for turn in range(_ROUNDS):
        sampan(
            "run", "-d", "--name", "redis", "--network", "none", "-u", "nobody", "-v", "rd:/data:U", "-w", "/data",
            "redis", "redis-server", "--appendonly", "yes", "--appendfsync", "always", check=True,
        )  # fmt: skip
        _until(lambda: ask("ping") == "PONG")
        assert ask("llen", "rounds") == str(turn)
        assert ask("rpush", "rounds", f"number {turn}") == str(turn + 1)
        _kill(engine, "redis", turn)
        sampan("rm", "redis", check=True)
    assert "rd" in sampan("volume", "ls", "-q").stdout.split()


@pytest.mark.requires("postgresql")
def test_postgresql(engine: Engine) -> None:
    sampan, binaries = engine.sampan, postgresql()
    version = binaries.split("/")[-2]
    sampan(
        "image", "from-host", "postgres", *(f"{binaries}/{name}" for name in ("postgres", "initdb", "psql")), "sh",
        f"/usr/share/postgresql/{version}", f"/usr/lib/postgresql/{version}/lib", "/usr/share/zoneinfo", check=True,
        timeout=300,
    )  # fmt: skip
    place = ("--network", "none", "-u", "nobody", "-v", "pg:/data:U", "postgres")
    initialise = (f"{binaries}/initdb", "-D", "/data", "-A", "trust", "-U", "me")
    sampan("run", "--rm", *place, *initialise, check=True, timeout=300)
    client = (f"{binaries}/psql", "-h", "/tmp", "-U", "me", "-d", "postgres", "-Atqc")

    def ask(statement: str) -> str:
        return sampan("exec", "db", *client, statement).stdout.strip()

    for turn in range(_ROUNDS):
        sampan("run", "-d", "--name", "db", *place, f"{binaries}/postgres", "-D", "/data", "-k", "/tmp", check=True)
        _until(lambda: ask("select 1") == "1")
        if turn == 0:
            ask("create table kept (turn int, payload text)")
        assert ask("select count(*), count(distinct turn) from kept") == f"{turn * 1000}|{turn}"
        assert ask(f"insert into kept select {turn}, repeat('x', 500) from generate_series(1, 1000) returning 1") != ""
        # What is not committed when it is killed is not there afterwards.
        sampan("exec", "-d", "db", *client, "begin; insert into kept values (99, ''); select pg_sleep(600)", check=True)
        _until(lambda: ask("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") == "1")
        _kill(engine, "db", turn)
        sampan("rm", "db", check=True)
