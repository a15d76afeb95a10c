"""What is kept of a container, and where: one row each in the metadata database."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from sampan.api.containers import ContainerConfig, EndpointSettings, HostConfig, IDMapping, Mount, VolumeOptions
from sampan.core.metadata import Metadata
from sampan.errors import Conflict
from sampan.shimapi.messages import Health

_SCHEMA = (
    """CREATE TABLE container (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) WITHOUT ROWID""",
)


class MountPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One mount of a container, resolved. `type`: bind, volume, image or tmpfs. `source`: the host's directory, or
    empty. `name`: the volume's, or what the image was called; `image`: its id. `mode`: the options as they were given
    (`ro,z`). `copy`: fill an empty volume from the image. `follows`: its propagation was not asked for, and is as good
    as the source allows. `subpath`: what of the volume or image is mounted. `deep_read_only`: if it is read-only, so
    are the mounts in it. `chown`: it becomes the container's user's at every start. `id_mapping`: its files look like
    that user's. `volume_options`: how to make the volume; gone when it is there.
    """

    type: str
    destination: str
    source: str = ""
    name: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    follows: bool = False
    copy: bool = False
    recursive: bool = True
    options: tuple[str, ...] = ()
    anonymous: bool = False
    create_source: bool = False
    image: str = ""
    subpath: str = ""
    deep_read_only: bool = True
    chown: bool = False
    id_mapping: IDMapping | None = None
    volume_options: VolumeOptions | None = None


class LastState(msgspec.Struct, frozen=True, kw_only=True):
    """How it stood when it was last heard of. Times in nanoseconds since the epoch, 0: never."""

    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    restart_count: int = 0
    stopped_by_user: bool = False
    health: Health | None = None
    """Of a container that is or was checked; while it runs, kept when its status changes."""
    running: bool = False
    """It was started and its end is not known: what an engine finds so after a kill, it has to look into."""


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """What the next start makes true; None: it stays as it is. `points`: all mounts, when any was changed."""

    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    binds: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    tmpfs: dict[str, str] | None = None
    points: tuple[MountPoint, ...] | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A container. `image`: the image's id; `config.image` is the name that it was created by. `networks`: what was
    asked for of its place on each network, by name; `endpoints`: what came of it at the last start, and
    `linked_env`: what it was told then of those that it is linked with."""

    id: str
    name: str
    created: int
    image: str
    config: ContainerConfig
    host_config: HostConfig
    mounts: tuple[MountPoint, ...] = ()
    networks: dict[str, EndpointSettings] = {}
    endpoints: dict[str, EndpointSettings] = {}
    linked_env: tuple[str, ...] = ()
    state: LastState = LastState()
    platform: str = "linux"
    edit: Edit | None = None

    @property
    def all_mounts(self) -> tuple[MountPoint, ...]:
        """Those that it has, and those that it will have."""
        return (*self.mounts, *((self.edit.points or ()) if self.edit is not None else ()))


class Records:
    """All records, in memory and in the database."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        metadata.migrate("containers-1", _SCHEMA)
        self._encoder = msgspec.msgpack.Encoder()
        decoder = msgspec.msgpack.Decoder(Record)
        with metadata.transaction() as cursor:
            rows = cursor.execute("SELECT record FROM container").fetchall()
        self._records = {record.id: record for record in (decoder.decode(row[0]) for row in rows)}
        self._ids = {record.name: record.id for record in self._records.values()}

    def all(self) -> Iterable[Record]:
        """The newest first."""
        return sorted(self._records.values(), key=lambda record: record.created, reverse=True)

    def get(self, container_id: str) -> Record | None:
        return self._records.get(container_id)

    def by_name(self, name: str) -> Record | None:
        container_id = self._ids.get(name)
        return self._records[container_id] if container_id else None

    def by_prefix(self, prefix: str) -> list[Record]:
        return [record for record in self._records.values() if record.id.startswith(prefix)]

    def check_free(self, name: str) -> None:
        """Raises Conflict, in Docker's words, for a name in use."""
        holder = self._ids.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". You have to '
                "remove (or rename) that container to be able to reuse that name."
            )

    def add(self, record: Record) -> None:
        """Raises Conflict for a name in use."""
        self.check_free(record.name)
        self._save(record)

    def replace(self, record: Record) -> None:
        """Keep what has changed; a new name must be free."""
        old = self._records[record.id]
        if old == record:
            return
        if old.name != record.name:
            del self._ids[old.name]
        self._save(record)

    def _save(self, record: Record) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "INSERT INTO container VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
                (record.id, record.name, self._encoder.encode(record)),
            )
        self._records[record.id] = record
        self._ids[record.name] = record.id

    def remove(self, container_id: str) -> None:
        """Idempotent."""
        record = self._records.get(container_id)
        if record is None:
            return
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM container WHERE id = ?", (container_id,))
        del self._records[container_id]
        self._ids.pop(record.name, None)


def rfc3339(nanoseconds: int) -> str:
    """A time as Docker's documents write it; 0 is Go's zero time."""
    if not nanoseconds:
        return "0001-01-01T00:00:00Z"
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
