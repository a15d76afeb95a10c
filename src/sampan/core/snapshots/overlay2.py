"""Layers and containers' file systems in the directories of Docker's overlay2 driver.

::

    overlay2/<id>/diff     a layer's files (unpacked, or mounted while they are used: `indexed`), or what a container
                           has written
    overlay2/<id>/link     a short name, which is a link l/<short> -> ../<id>/diff
    overlay2/<id>/lower    the short names of all layers below, topmost first
    overlay2/<id>/work     overlayfs's own (containers only)
    overlay2/<id>/merged   where a container's file system is mounted while it runs

A directory without a row in the database is what an interrupted operation left, and is removed when the store is
opened: a row is written when its directory is complete, and deleted before its directory is.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import logging
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable
from typing import BinaryIO

from sampan.core.metadata import Metadata
from sampan.core.snapshots import Body, GraphData, View
from sampan.core.snapshots.apply import apply_layer
from sampan.core.snapshots.indexed import (
    LINGER,
    ONE_FILE_SYSTEM,
    LayerMounts,
    add_indexed,
    can_mount,
    index_file,
    is_indexed,
    root_of,
    tar_path,
)
from sampan.core.snapshots.rubbish import Rubbish
from sampan.errors import DataCorrupt, NotFound, ResourceExhausted
from sampan.linux.mount import MNT_DETACH, is_mounted, mount, mount_overlay, mounts, umount
from sampan.linux.trees import remove_tree, tree_size
from sampan.oci.digest import ChainID, Digest

_SCHEMA = (
    """CREATE TABLE layer (
        chain_id TEXT PRIMARY KEY, diff_id TEXT NOT NULL, parent TEXT REFERENCES layer (chain_id),
        cache_id TEXT NOT NULL UNIQUE, size INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE container_layer (
        container_id TEXT PRIMARY KEY, cache_id TEXT NOT NULL UNIQUE, parent TEXT REFERENCES layer (chain_id))
        WITHOUT ROWID""",
)
_log = logging.getLogger("sampan.snapshots")
_PAGE = 4096
_LARGE = 32 << 20
"""Bytes of a layer whose files are not waited for when it is removed: a file system takes a second for 2 GB."""


class Overlay2:
    """See `Snapshotter`."""

    def __init__(self, root: str, metadata: Metadata, *, layers: str = "", linger: float = LINGER) -> None:
        """`layers`: the body of those that are added, `indexed` or `unpacked`; by default as this kernel can. `linger`:
        seconds that a layer stays mounted after its last container."""
        self.root = root
        self._metadata = metadata
        self._layers = layers
        self._mounts = LayerMounts(root, linger)
        self._probing = threading.Lock()
        self._rubbish = Rubbish(self._remove_directory)
        metadata.migrate("snapshots-1", _SCHEMA)
        os.makedirs(f"{root}/l", mode=0o710, exist_ok=True)
        self._sweep()

    def close(self) -> None:
        """Leave only what running containers have mounted."""
        self._rubbish.close()
        self._mounts.close()

    def _sweep(self) -> None:
        with self._metadata.transaction() as cursor:
            containers = cursor.execute("SELECT cache_id, parent FROM container_layer").fetchall()
            known = {row[0] for row in cursor.execute("SELECT cache_id FROM layer")} | {row[0] for row in containers}
        mounted = {each.point for each in mounts()}
        for cache_id, parent in containers:
            if f"{self.root}/{cache_id}/merged" in mounted:
                with contextlib.suppress(OSError):
                    self._mounts.hold(cache_id, self._cache_ids(parent))
        self._mounts.sweep()
        for name in os.listdir(self.root):
            if name != "l" and name not in known:
                try:
                    self._remove_directory(name)
                except OSError as error:  # An immutable file, say: nothing to refuse every start for.
                    _log.warning("remove %s/%s: %s", self.root, name, error)
        for name in os.listdir(f"{self.root}/l"):
            if not os.path.exists(f"{self.root}/l/{name}"):
                os.unlink(f"{self.root}/l/{name}")

    def _remove_directory(self, cache_id: str) -> None:
        directory = f"{self.root}/{cache_id}"
        self._unmount(f"{directory}/merged")
        self._mounts.release(cache_id)
        self._mounts.drop(cache_id)
        with contextlib.suppress(FileNotFoundError), open(f"{directory}/link", encoding="ascii") as file:
            os.unlink(f"{self.root}/l/{file.read()}")
        remove_tree(directory)

    def _make_directory(self) -> str:
        """All or nothing."""
        cache_id = secrets.token_hex(32)
        directory = f"{self.root}/{cache_id}"
        short = base64.b32encode(secrets.token_bytes(17)).decode()[:26]
        try:
            os.mkdir(directory, 0o710)
            os.mkdir(f"{directory}/diff", 0o755)
            os.symlink(f"../{cache_id}/diff", f"{self.root}/l/{short}")
            _write(f"{directory}/link", short)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.root}/l/{short}")
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return cache_id

    def _put_on(self, cache_id: str, parent: ChainID | None) -> None:
        if parent is not None:
            _write(f"{self.root}/{cache_id}/lower", ":".join(self._lower_names(parent)))

    def _row(self, chain_id: ChainID) -> tuple[str, ChainID | None]:
        with self._metadata.transaction() as cursor:
            row = cursor.execute("SELECT cache_id, parent FROM layer WHERE chain_id = ?", (chain_id,)).fetchone()
        if row is None:
            raise NotFound(f"layer {chain_id} not found")
        return row[0], row[1]

    def _cache_ids(self, chain_id: ChainID | None) -> list[str]:
        """The directories of a chain, topmost first."""
        with self._metadata.transaction() as cursor:
            rows = cursor.execute(
                "WITH RECURSIVE chain (cache_id, parent, depth) AS ("
                "SELECT cache_id, parent, 0 FROM layer WHERE chain_id = ? UNION ALL "
                "SELECT layer.cache_id, layer.parent, depth + 1 FROM layer JOIN chain "
                "ON layer.chain_id = chain.parent) "
                "SELECT cache_id FROM chain ORDER BY depth",
                (chain_id,),
            ).fetchall()
        if chain_id is not None and not rows:
            raise NotFound(f"layer {chain_id} not found")
        return [row[0] for row in rows]

    def _lower_names(self, chain_id: ChainID) -> list[str]:
        names: list[str] = []
        for cache_id in self._cache_ids(chain_id):
            with open(f"{self.root}/{cache_id}/link", encoding="ascii") as file:
                names.append("l/" + file.read())
        return names

    # --- Layers -----------------------------------------------------------------------------------

    def has_layer(self, chain_id: ChainID) -> bool:
        with self._metadata.transaction() as cursor:
            return cursor.execute("SELECT 1 FROM layer WHERE chain_id = ?", (chain_id,)).fetchone() is not None

    def make_body(self, diff_id: Digest, tar: BinaryIO) -> Body:
        """Raises DataCorrupt, InvalidArgument and ResourceExhausted; then nothing of it is left."""

        def fill(directory: str) -> int:
            if self.body() == "indexed":
                size, actual = add_indexed(tar, directory)
            else:
                size, actual = apply_layer(tar, f"{directory}/diff")
            if actual != diff_id:
                raise DataCorrupt(f"layer {diff_id}: its content hashes to {actual}")
            return size

        return self._body(diff_id, fill)

    def adopt_body(self, diff_id: Digest, path: str) -> Body:
        """As `make_body`."""
        if self.body() == "indexed":
            return self._body(diff_id, lambda directory: index_file(path, directory))
        with open(path, "rb") as tar:
            return self.make_body(diff_id, tar)

    def _body(self, diff_id: Digest, fill: Callable[[str], int]) -> Body:
        try:
            cache_id = self._make_directory()
        except OSError as error:
            raise _full(error) from error
        try:
            return Body(name=cache_id, diff_id=diff_id, size=fill(f"{self.root}/{cache_id}"))
        except BaseException:
            self._remove_directory(cache_id)
            raise

    def add_layer(self, chain_id: ChainID, parent: ChainID | None, body: Body) -> None:
        """Raises ResourceExhausted, NotFound (the parent)."""
        ours = False
        try:
            self._put_on(body.name, parent)
            with self._metadata.transaction() as cursor:
                # Somebody else may have made the same layer meanwhile: the first one stays.
                cursor.execute(
                    "INSERT OR IGNORE INTO layer VALUES (?, ?, ?, ?, ?)",
                    (chain_id, body.diff_id, parent, body.name, body.size),
                )
                ours = cursor.rowcount == 1
        except OSError as error:
            raise _full(error) from error
        except sqlite3.IntegrityError:
            raise NotFound(f"layer {parent} not found") from None
        finally:
            if not ours:
                self._remove_directory(body.name)

    def with_tar(self) -> set[ChainID]:
        """The layers whose own tar is kept (`open_tar`)."""
        with self._metadata.transaction() as cursor:
            rows = cursor.execute("SELECT chain_id, cache_id FROM layer").fetchall()
        return {chain_id for chain_id, cache_id in rows if is_indexed(f"{self.root}/{cache_id}")}

    def body(self) -> str:
        """Which body the next layer gets."""
        with self._probing:
            if not self._layers:
                self._layers = "indexed" if can_mount(self.root) else "unpacked"
        return self._layers

    def open_tar(self, chain_id: ChainID) -> BinaryIO | None:
        """A layer's uncompressed tar, byte for byte as it came; None for one that is unpacked. Raises NotFound."""
        directory = f"{self.root}/{self._row(chain_id)[0]}"
        return open(tar_path(directory), "rb") if is_indexed(directory) else None

    def remove_layer(self, chain_id: ChainID) -> int:
        """Remove a layer, unless another one or a container stands on it; returns the bytes of file data that it had.
        Idempotent."""
        try:
            with self._metadata.transaction() as cursor:
                row = cursor.execute("SELECT cache_id, size FROM layer WHERE chain_id = ?", (chain_id,)).fetchone()
                if row is None:
                    return 0
                cursor.execute("DELETE FROM layer WHERE chain_id = ?", (chain_id,))
        except sqlite3.IntegrityError:
            return 0
        if row[1] < _LARGE:
            self._remove_directory(row[0])
        else:
            self._rubbish.remove(row[0])
        return int(row[1])

    def layers(self) -> dict[ChainID, ChainID | None]:
        with self._metadata.transaction() as cursor:
            return dict(cursor.execute("SELECT chain_id, parent FROM layer").fetchall())

    def layer_sizes(self) -> dict[ChainID, int]:
        """The bytes of file data of each layer."""
        with self._metadata.transaction() as cursor:
            return dict(cursor.execute("SELECT chain_id, size FROM layer").fetchall())

    def used_layers(self) -> set[ChainID]:
        """Those that containers stand on directly."""
        with self._metadata.transaction() as cursor:
            return {row[0] for row in cursor.execute("SELECT parent FROM container_layer WHERE parent IS NOT NULL")}

    def directories(self) -> tuple[dict[str, ChainID], dict[str, str]]:
        """Whose the directories are: layers by chain id, and writable layers by their container's id."""
        with self._metadata.transaction() as cursor:
            layers = dict(cursor.execute("SELECT cache_id, chain_id FROM layer").fetchall())
            return layers, dict(cursor.execute("SELECT cache_id, container_id FROM container_layer").fetchall())

    def parents(self) -> dict[str, ChainID | None]:
        """By container: the layer that it stands on."""
        with self._metadata.transaction() as cursor:
            return dict(cursor.execute("SELECT container_id, parent FROM container_layer").fetchall())

    # --- Containers -------------------------------------------------------------------------------

    def create_container(self, container_id: str, chain_id: ChainID | None) -> None:
        """Make a writable layer over `chain_id`. Its root has the mode and the owner of the image's."""
        try:
            cache_id = self._make_directory()
        except OSError as error:
            raise _full(error) from error
        directory = f"{self.root}/{cache_id}"
        try:
            self._put_on(cache_id, chain_id)
            os.mkdir(f"{directory}/work", 0o700)
            os.mkdir(f"{directory}/merged", 0o700)
            if chain_id is not None:
                mode, uid, gid = root_of(f"{self.root}/{self._row(chain_id)[0]}")
                os.chown(f"{directory}/diff", uid, gid)
                os.chmod(f"{directory}/diff", mode)
            with self._metadata.transaction() as cursor:
                cursor.execute("INSERT INTO container_layer VALUES (?, ?, ?)", (container_id, cache_id, chain_id))
        except OSError as error:
            self._remove_directory(cache_id)
            raise _full(error) from error
        except sqlite3.IntegrityError:
            self._remove_directory(cache_id)
            raise NotFound(f"layer {chain_id} not found") from None
        except BaseException:
            self._remove_directory(cache_id)
            raise

    def _container(self, container_id: str) -> tuple[str, ChainID | None]:
        with self._metadata.transaction() as cursor:
            row = cursor.execute(
                "SELECT cache_id, parent FROM container_layer WHERE container_id = ?", (container_id,)
            ).fetchone()
        if row is None:
            raise NotFound(f"container {container_id} has no file system")
        return row[0], row[1]

    def has_container(self, container_id: str) -> bool:
        with contextlib.suppress(NotFound):
            return bool(self._container(container_id))
        return False

    def containers(self) -> set[str]:
        """Every container that has a layer here."""
        with self._metadata.transaction() as cursor:
            return {row[0] for row in cursor.execute("SELECT container_id FROM container_layer")}

    def mount(self, container_id: str, *, volatile: bool = False) -> str:
        """Mount at `merged`, on the host; returns the path. Idempotent. Raises ResourceExhausted.

        `volatile`: nothing in it is ever synced, not even at the unmount, which otherwise writes back the whole file
        system below: for what is removed at its end, and at the next start after a crash of the machine."""
        cache_id, parent = self._container(container_id)
        directory = f"{self.root}/{cache_id}"
        merged = f"{directory}/merged"
        if os.path.ismount(merged):
            return merged
        try:
            with open(f"{directory}/lower", encoding="ascii") as file:
                lower = [f"{self.root}/{name}" for name in file.read().split(":")]
        except FileNotFoundError:
            # An overlay has a lower layer at least: a container of an empty image stands on nothing.
            os.makedirs(f"{directory}/empty", mode=0o755, exist_ok=True)
            lower = [f"{directory}/empty"]
        upper, work = f"{directory}/diff", f"{directory}/work"
        # With this mark the kernel refuses a layer that was volatile once: it may have lost what was written.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(f"{work}/work/incompat/volatile")
        more = ["volatile"] if volatile else []
        try:
            if self._mounts.hold(cache_id, self._cache_ids(parent)):
                more.append(ONE_FILE_SYSTEM)
            options = ",".join((f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}", *more))
            if len(options) < _PAGE and not any(c in self.root for c in ",:\\"):
                mount("overlay", merged, "overlay", 0, options)
            else:
                mount_overlay(merged, lower, upper, work, *more)
        except OSError as error:
            self._mounts.release(cache_id)
            raise _full(error, f"mount the file system of container {container_id[:12]}") from error
        return merged

    def unmount(self, container_id: str) -> None:
        """Idempotent; lazily where something still uses it."""
        cache_id, _ = self._container(container_id)
        self._unmount(f"{self.root}/{cache_id}/merged")
        self._mounts.release(cache_id)

    @staticmethod
    def _unmount(path: str) -> None:
        while True:
            try:
                umount(path)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno == errno.EINVAL:  # Not mounted (any more).
                    return
                if error.errno != errno.EBUSY or not is_mounted(path):
                    raise
                umount(path, MNT_DETACH)

    def remove_container(self, container_id: str) -> None:
        """Idempotent."""
        if (name := self.forget_container(container_id)) is not None:
            self.discard(name)

    def forget_container(self, container_id: str) -> str | None:
        """Half of the removal, which `discard` ends, or the sweep at the next opening."""
        with self._metadata.transaction() as cursor:
            row = cursor.execute(
                "SELECT cache_id FROM container_layer WHERE container_id = ?", (container_id,)
            ).fetchone()
            if row is None:
                return None
            cursor.execute("DELETE FROM container_layer WHERE container_id = ?", (container_id,))
        return str(row[0])

    def discard(self, name: str) -> None:
        """Unmount and remove what `forget_container` named, or a body."""
        self._remove_directory(name)

    def graph_data(self, container_id: str) -> GraphData:
        """As Docker's inspect shows a container: all layers below, topmost first."""
        cache_id, parent = self._container(container_id)
        directory = f"{self.root}/{cache_id}"
        return GraphData(
            id=container_id, lower_dir=":".join(f"{self.root}/{each}/diff" for each in self._cache_ids(parent)),
            upper_dir=f"{directory}/diff", merged_dir=f"{directory}/merged", work_dir=f"{directory}/work",
        )  # fmt: skip

    def image_graph_data(self, chain_id: ChainID) -> GraphData:
        """As Docker's inspect shows an image: its topmost layer over the others."""
        own, *below = self._cache_ids(chain_id)
        directory = f"{self.root}/{own}"
        return GraphData(
            lower_dir=":".join(f"{self.root}/{each}/diff" for each in below), upper_dir=f"{directory}/diff",
            merged_dir=f"{directory}/merged", work_dir=f"{directory}/work",
        )  # fmt: skip

    def open_view(self, container_id: str) -> View:
        """See `Snapshotter`. What is mounted for it is unmounted at once: the descriptors keep it."""
        cache_id, parent = self._container(container_id)
        directory = f"{self.root}/{cache_id}"
        mounted = os.path.ismount(f"{directory}/merged")
        merged = self.mount(container_id)
        try:
            return View(merged, f"{directory}/diff", [f"{self.root}/{each}/diff" for each in self._cache_ids(parent)])
        finally:
            if not mounted:
                self.unmount(container_id)

    def usage(self, container_id: str) -> int:
        """Bytes of the files in the writable layer, each counted once however many names it has."""
        cache_id, _ = self._container(container_id)
        return tree_size(f"{self.root}/{cache_id}/diff").bytes


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="ascii") as file:
        file.write(text)


def _full(error: OSError, what: str = "make a layer") -> ResourceExhausted:
    return ResourceExhausted(f"{what}: {(error.strerror or str(error)).lower()}")
