"""`GET /events`: what happens, as it happens."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from sampan.engine.events import EventFilter
from sampan.engine.http.request import Request
from sampan.engine.http.router import RouteDef
from sampan.engine.http.stream import MessageStream
from sampan.engine.services import Engine
from sampan.engine.timestamps import parse_timestamp
from sampan.errors import InvalidArgument


def routes(engine: Engine) -> list[RouteDef]:
    async def events(request: Request) -> web.StreamResponse:
        since, until = request.text_parameter("since"), request.text_parameter("until")
        first = parse_timestamp(since) if since else None
        last = parse_timestamp(until) if until else None
        if first is not None and last is not None and first > last:
            raise InvalidArgument(f"`since` time ({since}) cannot be after `until` time ({until})")
        wanted = EventFilter(request.filters())
        # The head goes out at once: a client waits for it before it does what it wants to watch.
        async with MessageStream(request) as stream, engine.events.subscribe(wanted, first) as subscription:
            await stream.begin()
            # Without a wait there are only the past ones to tell: a timeout of nothing would not tell even these.
            seconds = None if last is None else max(0.0, (last - time.time_ns()) / 10**9)
            timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, subscription.end)
            try:
                async for event in subscription:
                    if last is None or event.time_nano <= last:
                        await stream.send(event)
            finally:
                if timer is not None:
                    timer.cancel()
        return stream.response

    return [RouteDef("GET", "/events", events, cancellable=True)]
