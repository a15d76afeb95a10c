"""The event bus: Docker's documents, filters, the past, and slow listeners."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import pytest

from sampan.api.events import EventMessage
from sampan.engine import events as events_module
from sampan.engine.events import EventBus, EventFilter


async def _all(bus: EventBus, wanted: EventFilter, since: int | None = None) -> list[EventMessage]:
    """What a listener has got when the bus closes."""
    async with bus.subscribe(wanted, since) as subscription:
        bus.close()
        return [event async for event in subscription]


async def test_the_document_of_a_container_has_the_old_members() -> None:
    bus = EventBus()
    bus.publish("container", "start", "c" * 64, {"name": "web", "image": "nginx:1", "b": "2"})
    [event] = bus.past(0)
    document = msgspec.json.decode(msgspec.json.encode(event))
    assert document.pop("timeNano") // 10**9 == document.pop("time")
    assert document == {
        "status": "start", "id": "c" * 64, "from": "nginx:1", "Type": "container", "Action": "start",
        "Actor": {"ID": "c" * 64, "Attributes": {"b": "2", "image": "nginx:1", "name": "web"}}, "scope": "local",
    }  # fmt: skip


async def test_documents_of_other_objects() -> None:
    bus = EventBus()
    bus.publish("volume", "create", "v", {"driver": "local"})
    bus.publish("image", "prune", "", {"reclaimed": "0"})
    volume, image = (msgspec.json.decode(msgspec.json.encode(each)) for each in bus.past(0))
    assert not {"status", "id", "from"} & volume.keys()
    # An image has no `from`, and a prune no id.
    assert image["status"] == "prune"
    assert not {"id", "from"} & image.keys()


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["create", "exec_start: sh", "tag", "destroy"]),
        ({"type": ["image", "volume"]}, ["tag", "destroy"]),
        ({"event": ["exec_start"]}, ["exec_start: sh"]),
        ({"event": ["create", "tag"], "type": ["container"]}, ["create"]),
        ({"container": ["web"]}, ["create", "exec_start: sh"]),
        ({"container": ["cc"]}, ["create", "exec_start: sh"]),
        ({"container": ["eb"]}, []),
        ({"image": ["nginx"]}, ["create", "exec_start: sh", "tag"]),
        ({"image": ["nginx:1"]}, ["create", "exec_start: sh", "tag"]),
        ({"image": ["nginx:2"]}, []),
        ({"label": ["a", "b=2"]}, ["create"]),
        ({"label": ["a=2"]}, []),
        ({"volume": ["data"]}, ["destroy"]),
        ({"scope": ["swarm"]}, []),
    ],
)
async def test_filters(filters: dict[str, list[str]], found: list[str]) -> None:
    bus = EventBus()
    bus.publish("container", "create", "c" * 64, {"name": "web", "image": "nginx:1", "a": "1", "b": "2"})
    bus.publish("container", "exec_start: sh", "c" * 64, {"name": "web", "image": "nginx:1"})
    bus.publish("image", "tag", "sha256:1", {"name": "nginx:1"})
    bus.publish("volume", "destroy", "data", {"driver": "local"})
    assert [event.action for event in await _all(bus, EventFilter(filters), since=0)] == found


async def test_the_past_is_short_and_ordered() -> None:
    bus = EventBus()
    for number in range(300):
        bus.publish("volume", "create", str(number))
    past = list(bus.past(0))
    assert [event.actor.id for event in past] == [str(number) for number in range(44, 300)]
    assert len({event.time_nano for event in past}) == 256
    assert [event.actor.id for event in bus.past(past[1].time_nano, past[2].time_nano)] == ["45", "46"]


async def test_only_from_now_on_without_since() -> None:
    bus = EventBus()
    bus.publish("volume", "create", "before")
    async with bus.subscribe(EventFilter({})) as subscription:
        assert bus.listeners == 1
        bus.publish("volume", "create", "after")
        async for event in subscription:
            assert event.actor.id == "after"
            break
    assert bus.listeners == 0


async def test_published_in_a_thread() -> None:
    bus = EventBus()
    async with bus.subscribe(EventFilter({})) as subscription:
        thread = threading.Thread(target=bus.publish, args=("volume", "create", "v"))
        thread.start()
        async with asyncio.timeout(1):
            async for event in subscription:
                assert event.actor.id == "v"
                break
        thread.join()


async def test_a_listener_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_BEHIND", 3)
    bus = EventBus()
    async with bus.subscribe(EventFilter({})) as subscription:
        for number in range(10):
            bus.publish("volume", "create", str(number))
        async with asyncio.timeout(1):
            assert [event.actor.id async for event in subscription] == ["0", "1", "2"]
