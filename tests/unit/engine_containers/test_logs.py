"""Reading a log that is written, rotated and removed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib

from sampan.engine.containers.logs import Log, Query


def write(path: pathlib.Path, *texts: str, stream: str = "stdout") -> None:
    with open(path, "a") as file:
        for text in texts:
            moment = f"2026-01-01T00:00:{len(text):02}.5Z"
            file.write(json.dumps({"log": f"{text}\n", "stream": stream, "time": moment}) + "\n")


def said(path: pathlib.Path, query: Query) -> list[str]:
    with Log(str(path), query) as log:
        return [line.log.rstrip() for line in log.read()]


def test_what_there_is(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    assert said(path, Query()) == said(path, Query(tail=0)) == []
    write(tmp_path / "log.1", "a")
    write(path, "bb", "ccc")
    write(path, "dddd", stream="stderr")
    with open(path, "a") as file:
        file.write('{"log":"cut')
    assert said(path, Query()) == ["a", "bb", "ccc", "dddd"]
    assert said(path, Query(tail=2)) == ["ccc", "dddd"]
    assert said(path, Query(tail=9)) == ["a", "bb", "ccc", "dddd"]
    assert said(path, Query(tail=1, stderr=False)) == ["ccc"]
    assert said(path, Query(tail=0)) == []
    second = 1_000_000_000
    begin = 1767225600 * second
    assert said(path, Query(since=begin + 2 * second)) == ["bb", "ccc", "dddd"]
    assert said(path, Query(since=begin + 2 * second, until=begin + 4 * second)) == ["bb", "ccc"]


async def test_it_is_followed_to_the_end_wherever_the_file_goes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    write(path, "before")
    running = True
    heard: list[str] = []

    async def follow() -> None:
        with Log(str(path), Query()) as log:
            heard.extend(line.log.rstrip() for line in log.read())
            async for lines in log.follow(lambda: running):
                heard.extend(line.log.rstrip() for line in lines)

    async def until(text: str) -> None:
        async with asyncio.timeout(5):
            while not heard or heard[-1] != text:
                await asyncio.sleep(0.01)

    following = asyncio.create_task(follow())
    await until("before")
    write(path, "old")
    os.rename(path, f"{path}.1")
    write(path, "new")
    await until("new")
    write(path, "last")
    os.unlink(path)
    running = False
    async with asyncio.timeout(5):
        await following
    assert heard == ["before", "old", "new", "last"]
