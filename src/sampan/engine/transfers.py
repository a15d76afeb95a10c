"""Archives between a client and the stores: the client's side is asynchronous, the stores read and write files.

A pipe stands between them, so that nothing is kept in memory or written twice, and whoever is slower sets the pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import BinaryIO, TypeVar

from sampan.engine.blocking import run_blocking
from sampan.errors import DataCorrupt, InvalidArgument

T = TypeVar("T")

_CHUNK = 256 << 10
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SIZE = 1031


async def _drain(chunks: AsyncIterable[bytes]) -> None:
    async for _ in chunks:
        pass


def _pipe() -> tuple[int, int]:
    """Wide, where the kernel allows it: fewer turns between the two sides."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(writing, _F_SETPIPE_SIZE, _PIPE_SIZE)
    return reading, writing


async def receive(chunks: AsyncIterable[bytes], consume: Callable[[BinaryIO], T]) -> T:
    """Run `consume` in a thread on a file that has what comes in; returns what it returns.

    It need not read all: the rest is thrown away. A client that goes away in the middle looks like a short file; then
    what `consume` said of it counts, or InvalidArgument if it found nothing wrong. What is corrupt is the client's
    doing: InvalidArgument, where `consume` raises DataCorrupt.
    """
    reading, writing = _pipe()

    def work() -> T:
        with open(reading, "rb", buffering=_CHUNK) as stream:
            return consume(stream)

    consumed = asyncio.ensure_future(run_blocking(work))
    lost: Exception | None = None
    try:
        await _feed(chunks, writing)
    except BrokenPipeError:
        # The consumer has read enough, or failed. The client still wants to send it all before it reads the answer.
        with contextlib.suppress(ConnectionError, OSError):
            await _drain(chunks)
    except Exception as error:
        lost = error
    try:
        result = await consumed
    except DataCorrupt as error:
        raise InvalidArgument(error.message) from error
    if lost is not None:
        raise InvalidArgument(f"the transfer was cut short: {lost}") from lost
    return result


async def _feed(chunks: AsyncIterable[bytes], writing: int) -> None:
    """Write all to the pipe and close it."""
    loop = asyncio.get_running_loop()
    os.set_blocking(writing, False)
    try:
        async for chunk in chunks:
            view = memoryview(chunk)
            while view:
                try:
                    view = view[os.write(writing, view) :]
                except BlockingIOError:
                    await _ready(loop.add_writer, loop.remove_writer, writing)
    finally:
        os.close(writing)


async def _ready(
    add: Callable[[int, Callable[[], object]], None], remove: Callable[[int], bool], descriptor: int
) -> None:
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)


async def send(produce: Callable[[BinaryIO], object], write: Callable[[bytes], Awaitable[None]]) -> None:
    """Run `produce` in a thread on a file whose content goes to `write`. Raises what either of them raises."""
    loop = asyncio.get_running_loop()
    reading, writing = _pipe()

    def work() -> None:
        # A client that leaves closes the other end: then there is nobody to write for.
        with contextlib.suppress(BrokenPipeError), open(writing, "wb", buffering=_CHUNK) as stream:
            produce(stream)

    produced = asyncio.ensure_future(run_blocking(work))
    os.set_blocking(reading, False)
    try:
        while True:
            try:
                chunk = os.read(reading, _CHUNK)
            except BlockingIOError:
                await _ready(loop.add_reader, loop.remove_reader, reading)
                continue
            if not chunk:
                break
            await write(chunk)
    finally:
        os.close(reading)
        await asyncio.wait({produced})
    produced.result()
