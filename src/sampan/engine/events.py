"""The event bus: what happens to containers, images, volumes and networks, told to whoever listens.

The last 256 events are kept, as Docker keeps them, for a client that asks what happened since a moment. Listeners
live on the engine's loop; a publisher, in whatever thread, never waits for one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType

import msgspec

from sampan.api.events import Actor, EventMessage

_KEPT = 256
_BEHIND = 4096
"""Events that a listener may be behind before it is dropped: it does not read, and memory is finite."""
_WITH_OLD_FORM = frozenset({"container", "image"})
_BY_NAME = {"container": "container", "volume": "volume", "network": "network", "plugin": "plugin", "daemon": "daemon"}


class EventFilter:
    """Docker's event filters: values of one name are alternatives, names must all match; unknown names are ignored."""

    def __init__(self, filters: Mapping[str, list[str]]) -> None:
        self._filters = {name: values for name, values in filters.items() if values}

    def matches(self, event: EventMessage) -> bool:
        """Whether the listener wants it."""
        return all(self._matches(name, values, event) for name, values in self._filters.items())

    @staticmethod
    def _matches(name: str, values: list[str], event: EventMessage) -> bool:
        attributes = event.actor.attributes
        if name == "type":
            return event.type in values
        if name == "scope":
            return event.scope in values
        if name == "event":
            # `health_status: healthy` and `exec_start: CMD` are found by what stands before the colon too.
            return event.action in values or event.action.partition(":")[0] in values
        if name == "label":
            return all(_has_label(attributes, label) for label in values)
        if name == "image":
            wanted = {value for each in (event.actor.id, attributes.get("name", ""), attributes.get("image", ""))
                      for value in (each, _without_tag(each)) if value}  # fmt: skip
            return event.type in _WITH_OLD_FORM and not wanted.isdisjoint(values)
        if name in _BY_NAME:
            if event.type != _BY_NAME[name]:
                return False
            own_name = attributes.get("name", "")
            return any(value and (value == own_name or event.actor.id.startswith(value)) for value in values)
        return True


def _has_label(attributes: Mapping[str, str], label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def _without_tag(image: str) -> str:
    name, colon, tag = image.rpartition(":")
    return name if colon and "/" not in tag and not image.startswith("sha256:") else image


class Subscription:
    """What one listener has coming. Used as an async context manager and iterator; ends when the bus closes."""

    def __init__(self, bus: EventBus, wanted: EventFilter) -> None:
        self._bus = bus
        self._wanted = wanted
        self._queue: deque[EventMessage] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def offer(self, event: EventMessage) -> None:
        """Take an event if it is wanted; ends the subscription of a listener that has stopped reading."""
        if self._ended or not self._wanted.matches(event):
            return
        if len(self._queue) >= _BEHIND:
            self.end()
            return
        self._queue.append(event)
        self._news.set()

    def end(self) -> None:
        """No more events; the iteration ends after those that are there."""
        self._ended = True
        self._news.set()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.unsubscribe(self)

    async def __aiter__(self) -> AsyncIterator[EventMessage]:
        while True:
            while self._queue:
                yield self._queue.popleft()
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()


class EventBus:
    """Publish and subscribe. Made on the engine's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._past: deque[EventMessage] = deque(maxlen=_KEPT)
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self._last = 0

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._subscriptions)

    def publish(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None:  # noqa: A002
        """Tell what happened to a container, image, volume or network (`type`) with this id. From any thread."""
        if threading.get_ident() == self._thread:
            self._publish(type, action, id, attributes)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, type, action, id, attributes)

    def _publish(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None) -> None:  # noqa: A002
        # Two events of one nanosecond would be one to a client that goes on from the last that it saw.
        now = self._last = max(time.time_ns(), self._last + 1)
        attributes = dict(sorted((attributes or {}).items()))
        old_form = type in _WITH_OLD_FORM
        event = EventMessage(
            status=action if old_form else msgspec.UNSET,
            id=id if old_form and id else msgspec.UNSET,
            from_=attributes.get("image", "") or msgspec.UNSET if old_form else msgspec.UNSET,
            type=type, action=action, actor=Actor(id=id, attributes=attributes), time=now // 10**9, time_nano=now,
        )  # fmt: skip
        self._past.append(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)

    def subscribe(self, wanted: EventFilter, since: int | None = None) -> Subscription:
        """Listen from now on, after the kept events from `since` (nanoseconds since the epoch) on."""
        subscription = Subscription(self, wanted)
        if since is not None:
            for event in self.past(since):
                subscription.offer(event)
        if self._closed:
            subscription.end()
        self._subscriptions.add(subscription)
        return subscription

    def past(self, since: int, until: int | None = None) -> Iterator[EventMessage]:
        """The kept events between two moments, in nanoseconds since the epoch, both included."""
        return (
            event for event in self._past
            if event.time_nano >= since and (until is None or event.time_nano <= until)
        )  # fmt: skip

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop telling it. Idempotent."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription: the engine goes."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.end()
