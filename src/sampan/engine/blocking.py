"""The one boundary between the engine's event loop and what blocks: the stores, the network's sockets, the disk."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Nearly all of it waits for the disk or the kernel, so more than the processors; each thread costs memory, so few.
_THREADS = 6

_executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="blocking")


def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
    """Call `function` in a thread and give what it returns or raises.

    Cancelling the awaitable does not stop the call: what has begun in the world runs to its end.
    """
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_executor, lambda: context.run(function, *args, **kwargs))
