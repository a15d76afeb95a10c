"""What takes the disk's space, part by part: `GET /system/explain`. Ours alone, no other engine tells it."""

from __future__ import annotations

from sampan.api.containers import APIStruct


class Part(APIStruct, frozen=True, kw_only=True):
    """What belongs together. `kind`: content (a blob of images), layer, writable (a container's layer), container (its
    other files), log, volume, transfer (what is on its way in), trash (what is on its way out), database, engine, other
    (not ours). `path`: below the data root. `size`: bytes that it takes on the disk; `files`: how many there are.
    `images` and `containers`: by name, whose it is."""

    kind: str
    name: str
    path: str
    size: int
    files: int
    images: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()


class GrowingFile(APIStruct, frozen=True, kw_only=True):
    """One in a container's writable layer. `grown`: bytes within the interval."""

    path: str
    size: int
    grown: int
    bytes_per_second: int


class Advice(APIStruct, frozen=True, kw_only=True):
    """`option`: of run and create, which has the directory's files lie in a volume."""

    directory: str
    size: int
    grown: int
    option: str


class Growth(APIStruct, frozen=True, kw_only=True):
    """A running container's writable layer: the files that grow, the fastest first, then the largest."""

    container: str
    id: str
    size: int
    files: tuple[GrowingFile, ...] = ()
    advice: tuple[Advice, ...] = ()


class Explanation(APIStruct, frozen=True, kw_only=True):
    """`size`: bytes that everything below the data root takes, the sum of its parts. `interval`: seconds between the
    two looks at what grows."""

    data_root: str
    size: int
    parts: tuple[Part, ...]
    interval: float
    growth: tuple[Growth, ...] = ()
