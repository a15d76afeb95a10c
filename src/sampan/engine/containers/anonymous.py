"""Anonymous volumes, which come and go with a container: what a kill cuts short, the next engine finishes."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from sampan.core.metadata import Metadata
from sampan.engine.containers.record import MountPoint
from sampan.errors import SampanError

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_KIND = "anonymous-volumes"


def of(points: Sequence[MountPoint]) -> list[str]:
    """The names of those among these mounts."""
    return [point.name for point in points if point.type == "volume" and point.anonymous]


@contextlib.contextmanager
def announced(metadata: Metadata, container_id: str, names: Sequence[str]) -> Iterator[None]:
    """While they are made along with their container, or removed with it."""
    if not names:
        yield
        return
    intent = metadata.begin(_KIND, container_id, msgspec.json.encode(names))
    try:
        yield
    finally:
        metadata.settle(intent)


def finish(engine: Engine, known: Collection[str]) -> None:
    """Remove those whose container was never recorded, or is gone. `known`: the ids of the containers."""
    metadata = engine.core.metadata
    for intent in metadata.pending(_KIND):
        if intent.subject not in known:
            for name in msgspec.json.decode(intent.detail, type=list[str]):
                if not engine.containers.using_volume(name):
                    with contextlib.suppress(SampanError):
                        engine.volumes.remove(name)
        metadata.settle(intent.id)
