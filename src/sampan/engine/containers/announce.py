"""What a run takes and gives back, told as events of the volumes and of the network."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sampan.engine.containers.record import Record
from sampan.errors import SampanError

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
    _tell_network(engine, record, "connect")


def given_back(engine: Engine, record: Record) -> None:
    """The other way round."""
    _tell_network(engine, record, "disconnect")
    for point in record.mounts:
        if point.type == "volume":
            engine.events.publish("volume", "unmount", point.name, {"container": record.id, "driver": "local"})


def _tell_network(engine: Engine, record: Record, action: str) -> None:
    with contextlib.suppress(SampanError):
        network = engine.network.network(record.host_config.network_mode)
        attributes = {"container": record.id, "name": network.name, "type": network.driver}
        engine.events.publish("network", action, network.id, attributes)
