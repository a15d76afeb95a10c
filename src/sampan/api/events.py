"""Events on the wire: `GET /events`, Docker Engine API 1.24 to 1.51 (`EventMessage`)."""

from __future__ import annotations

import msgspec


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Whom it happened to: a container, image, volume or network, with its labels among the attributes."""

    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] = msgspec.field(name="Attributes", default={})


class EventMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One event. The first three are an older form's (API < 1.22) that clients still read; present for containers
    and images alone. `time` in seconds and `time_nano` in nanoseconds since the epoch."""

    status: str | msgspec.UnsetType = msgspec.UNSET
    id: str | msgspec.UnsetType = msgspec.UNSET
    from_: str | msgspec.UnsetType = msgspec.field(name="from", default=msgspec.UNSET)
    type: str = msgspec.field(name="Type")
    action: str = msgspec.field(name="Action")
    actor: Actor = msgspec.field(name="Actor")
    scope: str = "local"
    time: int
    time_nano: int = msgspec.field(name="timeNano")
