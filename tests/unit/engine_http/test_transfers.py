"""Archives through a pipe: whole, paced, and honest about what breaks on either side."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

import pytest

from sampan.engine.transfers import receive, send
from sampan.errors import DataCorrupt, InvalidArgument

_DATA = os.urandom(1 << 20) * 5


async def _chunks(data: bytes = _DATA, size: int = 70_001, error: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
        await asyncio.sleep(0)
    if error is not None:
        raise error


async def test_received_whole() -> None:
    assert await receive(_chunks(), lambda stream: stream.read()) == _DATA


async def test_a_consumer_that_stops_early() -> None:
    """The rest is taken from the client, so that it comes to read the answer."""
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in _chunks():
            taken += len(chunk)
            yield chunk

    assert await receive(counted(), lambda stream: stream.read(10)) == _DATA[:10]
    assert taken == len(_DATA)


async def test_a_consumer_that_fails() -> None:
    def consume(stream: BinaryIO) -> None:
        stream.read(10)
        raise InvalidArgument("no tar")

    with pytest.raises(InvalidArgument, match="no tar"):
        await receive(_chunks(), consume)


async def test_a_client_that_breaks_off() -> None:
    with pytest.raises(InvalidArgument, match="cut short: gone"):
        await receive(_chunks(error=ConnectionResetError("gone")), lambda stream: stream.read())


async def test_sent_whole() -> None:
    received = bytearray()

    async def write(chunk: bytes) -> None:
        received.extend(chunk)
        await asyncio.sleep(0)

    await send(lambda stream: stream.write(_DATA), write)
    assert received == _DATA


async def test_a_reader_that_leaves_ends_the_producer() -> None:
    ended = False

    def produce(stream: BinaryIO) -> None:
        nonlocal ended
        try:
            while True:
                stream.write(_DATA)
        finally:
            ended = True

    async def write(chunk: bytes) -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await send(produce, write)
    assert ended


async def test_a_producer_that_fails_is_told() -> None:
    def produce(stream: BinaryIO) -> None:
        stream.write(b"some")
        raise DataCorrupt("bad blob")

    async def write(chunk: bytes) -> None:
        assert chunk == b"some"

    with pytest.raises(DataCorrupt, match="bad blob"):
        await send(produce, write)


async def test_no_descriptor_is_left() -> None:
    await receive(_chunks(), lambda stream: stream.read(1))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await receive(_chunks(b"x" * 100), lambda stream: stream.read(1))
        await test_sent_whole()
    assert len(os.listdir("/proc/self/fd")) == before
