"""What a run takes and gives back, told as events of the volumes and of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine.containers import networking
from sampan.engine.containers.record import Record

if TYPE_CHECKING:
    from sampan.engine.services import Engine


def taken(engine: Engine, record: Record) -> None:
    """The volumes are mounted, the network is connected."""
    for point in record.mounts:
        if point.type == "volume":
            attributes = {
                "container": record.id, "driver": "local", "destination": point.destination,
                "propagation": point.propagation, "read/write": "true" if point.writable else "false",
            }  # fmt: skip
            engine.events.publish("volume", "mount", point.name, attributes)
    networking.announce(engine, record, "connect")


def given_back(engine: Engine, record: Record) -> None:
    """The other way round."""
    networking.announce(engine, record, "disconnect")
    for point in record.mounts:
        if point.type == "volume":
            engine.events.publish("volume", "unmount", point.name, {"container": record.id, "driver": "local"})
