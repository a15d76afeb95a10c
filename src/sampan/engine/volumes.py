"""Volumes: named directories that outlive their containers.

A row says that the volume exists and with what labels and options; its data is `volumes/NAME/_data`. A volume is
removed by renaming its directory away first: whatever the moment of a kill, it is there with all its data or it is
going.

What uses a volume at the moment (a container that runs, a copy into it) holds it: with its first user what the local
driver's options say is mounted, with its last it is unmounted. An engine that starts holds for the containers that
live, and `sweep` unmounts what nobody holds.

Everything here blocks and may be called from several threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sampan.core.metadata import Metadata
from sampan.engine import local_driver
from sampan.errors import Conflict, InvalidArgument, NotFound, ResourceExhausted, Unsupported
from sampan.linux.fs import exchange
from sampan.linux.mount import is_mounted
from sampan.linux.trees import remove_tree, tree_size

_log = logging.getLogger("sampan.volumes")

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_SCHEMA = (
    """CREATE TABLE volume (
        name TEXT PRIMARY KEY, created INTEGER NOT NULL, labels BLOB NOT NULL) WITHOUT ROWID""",
)
_OPTIONS = ("ALTER TABLE volume ADD COLUMN options BLOB",)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_COMING = ".import-"
"""What a directory that is being filled from an archive begins with."""
_GOING = ".removed-"
"""What a directory that is being removed begins with; no name of a volume can begin with a dot."""

Publish = Callable[[str, str, str, Mapping[str, str]], None]
Using = Callable[[str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """`created`: nanoseconds since the epoch. `mountpoint`: the directory with its data."""

    name: str
    created: int
    mountpoint: str
    labels: dict[str, str] = field(default_factory=dict)
    labelled: bool = False
    """Labels were given, if only an empty set of them: Docker's documents tell the two apart."""
    options: dict[str, str] | None = None
    """The local driver's, as they were given."""

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels

    @property
    def plain(self) -> bool:
        """Its data is in the data root: what has options may be anywhere, and is neither measured nor pruned."""
        return not self.options

    @property
    def mounted_on_use(self) -> bool:
        return local_driver.is_mount(self.options)


class Volumes:
    def __init__(self, metadata: Metadata, root: str, publish: Publish, using: Using) -> None:
        """`root`: the directory of all volumes. `publish`: EventBus.publish. `using`: ids of the containers that name
        a volume. Finishes what a kill has interrupted."""
        self._metadata = metadata
        self._root = root
        self._publish = publish
        self._using = using
        self._lock = threading.RLock()
        metadata.migrate("volume-1", _SCHEMA)
        metadata.migrate("volume-2", _OPTIONS)
        self._volumes: dict[str, Volume] = {}
        self._held: dict[str, set[str]] = {}
        self._mounting: dict[str, threading.Lock] = {}
        self._restoring: set[str] = set()
        with metadata.transaction() as cursor:
            rows = cursor.execute("SELECT name, created, labels, options FROM volume").fetchall()
        for name, created, labels, options in rows:
            self._volumes[name] = self._made(name, created, _decoded(labels), _decoded(options))
        self._recover()

    def _recover(self) -> None:
        os.makedirs(self._root, mode=0o701, exist_ok=True)
        for entry in os.listdir(self._root):
            if entry.startswith(_GOING):
                self._forget(entry.removeprefix(_GOING))
                with contextlib.suppress(OSError):
                    local_driver.unmount(f"{self._root}/{entry}/_data")
                    remove_tree(f"{self._root}/{entry}")
            elif entry.startswith(_COMING):
                with contextlib.suppress(OSError):
                    remove_tree(f"{self._root}/{entry}")
            elif entry not in self._volumes and _NAME.fullmatch(entry):
                # A creation that was interrupted left nothing inside; data without a row is a volume, as with Docker.
                try:
                    os.rmdir(f"{self._root}/{entry}/_data")
                    os.rmdir(f"{self._root}/{entry}")
                except OSError:
                    if os.path.isdir(f"{self._root}/{entry}/_data"):
                        self._record(self._made(entry, time.time_ns(), None))
        for volume in self._volumes.values():
            # What may be mounted there is not looked at: a server that is gone would hold the engine up.
            with contextlib.suppress(FileExistsError):
                os.makedirs(volume.mountpoint)

    def _made(
        self, name: str, created: int, labels: Mapping[str, str] | None, options: Mapping[str, str] | None = None
    ) -> Volume:
        return Volume(
            name=name, created=created, mountpoint=f"{self._root}/{name}/_data", labels=dict(labels or {}),
            labelled=labels is not None, options=None if options is None else dict(options),
        )  # fmt: skip

    def _record(self, volume: Volume) -> None:
        labels = msgspec.json.encode(volume.labels if volume.labelled else None)
        options = msgspec.json.encode(volume.options)
        with self._metadata.transaction() as cursor:
            cursor.execute("INSERT INTO volume VALUES (?, ?, ?, ?)", (volume.name, volume.created, labels, options))
        self._volumes[volume.name] = volume

    def _forget(self, name: str) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM volume WHERE name = ?", (name,))
        self._volumes.pop(name, None)

    def create(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """The volume of that name, made if it is not there. Raises InvalidArgument, NotFound (no such driver),
        ResourceExhausted."""
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        if len(name) == 1 and _NAME.fullmatch(name):
            raise InvalidArgument(
                f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
            )
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        with self._lock:
            known = self._volumes.get(name)
            if known is not None:
                return known
            local_driver.check_options(name, options or {})
            volume = self._made(name, time.time_ns(), labels, options)
            try:
                os.mkdir(f"{self._root}/{name}", 0o701)
                os.mkdir(volume.mountpoint, 0o755)
            except OSError as error:
                raise ResourceExhausted(f"create {name}: {(error.strerror or '').lower()}") from error
            self._record(volume)
        self._publish("volume", "create", name, {"driver": "local"})
        return volume

    def anonymous(
        self, labels: Mapping[str, str] | None = None, *, driver: str = "", options: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Volume:  # fmt: skip
        """A new volume with a name of its own, that `prune` and `rm -v` take away. Raises as `create`."""
        labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        return self.create(name or os.urandom(32).hex(), labels, driver=driver, options=options)

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        with self._lock:
            if name not in self._volumes:
                raise NotFound(f"get {name}: no such volume")
            return self._volumes[name]

    def list(self) -> list[Volume]:
        """All of them, oldest first."""
        with self._lock:
            return sorted(self._volumes.values(), key=lambda volume: (volume.created, volume.name))

    def users(self, name: str) -> Sequence[str]:
        """Ids of the containers that name the volume, running or not."""
        return self._using(name)

    # --- Use --------------------------------------------------------------------------------------

    def hold(self, name: str, user: str) -> None:
        """`user` has the volume now: a container's id, or another word of its own."""
        with self._lock:
            self._held.setdefault(name, set()).add(user)

    def use(self, name: str, user: str) -> Volume:
        """Hold the volume and mount what its options say, if nobody has yet. Raises NotFound, Conflict (it is being
        restored), Internal; then it is not held."""
        with self._lock:
            volume = self.get(name)
            if name in self._restoring:
                raise Conflict(f"volume {name} is being restored from an archive")
            self.hold(name, user)
        if volume.mounted_on_use:
            try:
                with self._mounting_of(name):
                    if not is_mounted(volume.mountpoint):
                        local_driver.mount(volume.options or {}, volume.mountpoint)
            except BaseException:
                self.let_go(user, (name,))
                raise
        return volume

    def mounts_on_use(self, name: str) -> bool:
        """Whether `use` and `let_go` of the volume may block."""
        with self._lock:
            volume = self._volumes.get(name)
        return volume is not None and volume.mounted_on_use

    def let_go(self, user: str, names: Iterable[str]) -> None:
        """`user` has no more of these volumes. Idempotent."""
        for name in names:
            with self._lock:
                users = self._held.get(name, set())
                users.discard(user)
                if users:
                    continue
                self._held.pop(name, None)
                volume = self._volumes.get(name)
            if volume is not None and volume.mounted_on_use:
                self._unmount_unheld(volume)

    @contextlib.contextmanager
    def restored(self, name: str) -> Iterator[str]:
        """An empty directory, whose content becomes the volume's at the end, as a whole; if it fails, or the engine is
        killed, the volume is as it was. Nobody uses it meanwhile. Raises NotFound, Conflict, Unsupported."""
        with self._lock:
            volume = self.get(name)
            if volume.mounted_on_use:
                raise Unsupported(f"import {name}: what is mounted by its options can't be replaced")
            if users := sorted(self._held.get(name, ())):
                raise Conflict(f"import {name}: volume is in use - [{', '.join(users)}]")
            self._restoring.add(name)
            self.hold(name, "import")
        coming = f"{self._root}/{_COMING}{name}"
        try:
            remove_tree(coming)
            os.mkdir(coming, 0o700)
            yield coming
            exchange(coming, volume.mountpoint)
        except OSError as error:
            raise ResourceExhausted(f"import {name}: {(error.strerror or str(error)).lower()}") from error
        finally:
            with contextlib.suppress(OSError):
                remove_tree(coming)
            with self._lock:
                self._restoring.discard(name)
            self.let_go("import", (name,))

    def sweep(self) -> None:
        """Unmount what nobody holds: an engine was killed."""
        for volume in self.list():
            if volume.mounted_on_use:
                self._unmount_unheld(volume)

    def _unmount_unheld(self, volume: Volume) -> None:
        with self._mounting_of(volume.name):
            if not self._held.get(volume.name):
                try:
                    local_driver.unmount(volume.mountpoint)
                except OSError as error:
                    _log.warning("unmount volume %s: %s", volume.name, error)

    def _mounting_of(self, name: str) -> threading.Lock:
        """One at a time for each volume; the others go on, as a server may take its time."""
        with self._lock:
            return self._mounting.setdefault(name, threading.Lock())

    # --- Removal ----------------------------------------------------------------------------------

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove the volume and its data; what is mounted there while it is used is not its own and stays. Raises
        NotFound (unless `force`), and Conflict while a container names it or something else holds it."""
        with self._lock:
            if name not in self._volumes:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            users = self._using(name) or sorted(self._held.get(name, ()))
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            going = f"{self._root}/{_GOING}{name}"
            try:
                local_driver.unmount(self._volumes[name].mountpoint)
                os.rename(f"{self._root}/{name}", going)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise Conflict(f"remove {name}: {(error.strerror or '').lower()}") from error
            self._forget(name)
            # Inside the lock, as a new volume of the name may be removed next. What cannot be removed now goes
            # when the engine starts next.
            with contextlib.suppress(OSError):
                remove_tree(going)
        self._publish("volume", "destroy", name, {"driver": "local"})

    def prune(self, wanted: Callable[[Volume], bool]) -> tuple[tuple[str, ...], int]:
        """Remove the volumes that are `wanted` and that no container names: their names and the bytes they held. As in
        Docker, none with options."""
        names: tuple[str, ...] = ()
        reclaimed = 0
        for volume in self.list():
            if not volume.plain or not wanted(volume) or self._using(volume.name):
                continue
            size = self.usage(volume.name)
            try:
                self.remove(volume.name)
            except (Conflict, NotFound):  # Taken into use, or removed, in the meantime.
                continue
            names += (volume.name,)
            reclaimed += size
        self._publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return names, reclaimed

    def usage(self, name: str) -> int:
        """Bytes that the volume's files have; a file with several names counts once."""
        return tree_size(self.get(name).mountpoint).bytes


def _decoded(text: bytes | None) -> dict[str, str] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, str] | None)
