"""Reading a log that is written, rotated, compressed and removed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
from collections.abc import Callable

import pytest

from sampan.engine.containers.log_formats import Format, JsonFormat, LocalFormat
from sampan.engine.containers.logs import Log, Query, opened
from sampan.shim.locallog import LocalLog
from sampan.shim.logfile import compress
from sampan.shimapi.messages import LogConfig

SECOND = 1_000_000_000
BEGIN = 1767225600 * SECOND


def write_json(path: pathlib.Path, *texts: str, stream: str = "stdout") -> None:
    with open(path, "a") as file:
        for text in texts:
            moment = f"2026-01-01T00:00:{len(text):02}.5Z"
            file.write(json.dumps({"log": f"{text}\n", "stream": stream, "time": moment}) + "\n")


def write_local(path: pathlib.Path, *texts: str, stream: str = "stdout") -> None:
    log = LocalLog(LogConfig(driver="local", path=str(path)))
    for text in texts:
        log.lines(1 if stream == "stdout" else 2, f"{text}\n".encode(), BEGIN + len(text) * SECOND + SECOND // 2)
    log.close()


FORMATS: dict[str, tuple[Format, Callable[..., None]]] = {
    "json": (JsonFormat(), write_json),
    "local": (LocalFormat(), write_local),
}


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def said(path: pathlib.Path, query: Query, kind: str = "json") -> list[str]:
    with Log(str(path), query, FORMATS[kind][0]) as log:
        return b"".join(log.read()).decode().splitlines()


def plain(tail: int = -1, since: int = 0, until: int = 0, *, stderr: bool = True, timestamps: bool = False) -> Query:
    return Query(framed=False, tail=tail, since=since, until=until, stderr=stderr, timestamps=timestamps)


def test_what_there_is(tmp_path: pathlib.Path, kind: str) -> None:
    path, write = tmp_path / "log", FORMATS[kind][1]
    assert said(path, plain(), kind) == said(path, plain(tail=0), kind) == []
    write(tmp_path / "log.2", "")
    compress(f"{path}.2")
    write(tmp_path / "log.1", "a")
    write(path, "bb", "ccc")
    write(path, "dddd", stream="stderr")
    with open(path, "ab") as file:
        file.write(b'{"log":"cut' if kind == "json" else b"\0\0\0\x17\x0a\x06std")
    assert said(path, plain(), kind) == ["", "a", "bb", "ccc", "dddd"]
    assert said(path, plain(tail=2), kind) == ["ccc", "dddd"]
    assert said(path, plain(tail=4), kind) == ["a", "bb", "ccc", "dddd"]
    assert said(path, plain(tail=9), kind) == ["", "a", "bb", "ccc", "dddd"]
    assert said(path, plain(tail=1, stderr=False), kind) == ["ccc"]
    assert said(path, plain(tail=0), kind) == []
    assert said(path, plain(since=BEGIN + 2 * SECOND), kind) == ["bb", "ccc", "dddd"]
    assert said(path, plain(since=BEGIN + 2 * SECOND, until=BEGIN + 4 * SECOND), kind) == ["bb", "ccc"]
    assert said(path, plain(tail=1, timestamps=True), kind) == ["2026-01-01T00:00:04.500000000Z dddd"]


def test_ends_of_a_long_log(tmp_path: pathlib.Path, kind: str) -> None:
    path, write = tmp_path / "log", FORMATS[kind][1]
    lines = [f"{number:05} {'x' * 50}" for number in range(3000)]
    write(path, *lines)
    for tail in (1, 1500, 2999, 3000, 3001):
        assert said(path, plain(tail=tail), kind) == lines[-tail:]
    assert said(path, plain(), kind) == lines


async def test_it_is_followed_to_the_end_wherever_the_file_goes(tmp_path: pathlib.Path, kind: str) -> None:
    path, write = tmp_path / "log", FORMATS[kind][1]
    write(path, "before")
    running = True
    heard: list[str] = []

    async def follow() -> None:
        with Log(str(path), plain(), FORMATS[kind][0]) as log:
            heard.extend(b"".join(log.read()).decode().splitlines())
            async for lines in log.follow(lambda: running):
                heard.extend(lines.decode().splitlines())

    async def until(text: str) -> None:
        async with asyncio.timeout(5):
            while not heard or heard[-1] != text:
                await asyncio.sleep(0.01)

    following = asyncio.create_task(follow())
    await until("before")
    # Two rotations before anybody looks.
    write(path, "old")
    os.rename(path, f"{path}.1")
    write(path, "between")
    os.rename(f"{path}.1", f"{path}.2")
    os.rename(path, f"{path}.1")
    write(path, "new")
    await until("new")
    write(path, "last")
    os.unlink(path)
    running = False
    async with asyncio.timeout(5):
        await following
    assert heard == ["before", "old", "between", "new", "last"]


async def test_a_log_that_begins_later_is_followed(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / "log"
    running = [True]
    heard = b""
    with Log(str(path), plain(), FORMATS[kind][0]) as log:
        assert b"".join(log.read()) == b""
        async with asyncio.timeout(5):
            FORMATS[kind][1](path, "one")
            async for lines in log.follow(lambda: bool(running)):
                heard += lines
                running.clear()
    assert heard == b"one\n"


def test_the_format_is_told_by_the_name(tmp_path: pathlib.Path) -> None:
    write_json(tmp_path / "abc-json.log", "j")
    write_local(tmp_path / "container.log", "l")
    for name, text in (("abc-json.log", b"j\n"), ("container.log", b"l\n")):
        with opened(str(tmp_path / name), plain()) as log:
            assert b"".join(log.read()) == text
