"""The indexed body of a layer: its tar as it came, an EROFS image that points into it, and the mount of the two.

::

    overlay2/<id>/layer.tar      the diff id is its hash
    overlay2/<id>/layer.erofs    names and inodes
    overlay2/<id>/diff           where they are mounted while somebody uses the layer
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence

from sampan.core.snapshots.apply import translated
from sampan.core.snapshots.erofs import Index, root_attributes
from sampan.core.snapshots.intake import intake
from sampan.core.snapshots.tarwalk import Readable, TarWalk
from sampan.core.snapshots.tree import Tree
from sampan.linux.mount import MNT_DETACH, mount_erofs, mount_overlay, mounts, umount
from sampan.oci.digest import Digest

ONE_FILE_SYSTEM = "xino=on"
"""The overlay's option: its files have one device number for all layers, which are file systems of their own here. By
that number find -xdev, tar --one-file-system and rsync -x would leave out all that is in them."""
_TAR, _IMAGE = "layer.tar", "layer.erofs"


def add_indexed(stream: Readable, directory: str) -> tuple[int, Digest]:
    """Keep an uncompressed tar in the directory, and its index beside it, in one pass; returns the bytes of file data
    and the stream's digest. Raises as `apply.apply_layer` does."""
    with translated(), open(f"{directory}/{_TAR}", "xb", buffering=0) as tar:
        index = Index()
        with intake(stream, tar) as source:
            tree = _walked(source, index)
            digest = source.finish()
        _write_index(index, tree, directory, source.size)
    return tree.size, digest


def index_file(path: str, directory: str) -> int:
    """The same with a tar that is a file of the same file system already, whose content is known: it becomes the
    layer's by one more name. Returns the bytes of file data."""
    with translated():
        os.link(path, f"{directory}/{_TAR}")
        index = Index()
        with open(path, "rb", buffering=0) as tar:
            tree = _walked(tar, index)
            _write_index(index, tree, directory, os.fstat(tar.fileno()).st_size)
    return tree.size


def _walked(stream: Readable, index: Index) -> Tree:
    tree = Tree(index)
    for entry in TarWalk(stream):
        tree.add(entry)
    return tree


def _write_index(index: Index, tree: Tree, directory: str, tar_size: int) -> None:
    with open(f"{directory}/{_IMAGE}", "xb") as image, open(f"{directory}/{_TAR}", "rb") as data:
        # Overlayfs tells its layers apart by the number.
        index.write(tree.root, image, data, tar_size, secrets.token_bytes(16))


def is_indexed(directory: str) -> bool:
    return os.path.exists(f"{directory}/{_IMAGE}")


def tar_path(directory: str) -> str:
    return f"{directory}/{_TAR}"


def root_of(directory: str) -> tuple[int, int, int]:
    """Mode, owner and group of the layer's root, mounted or not."""
    if is_indexed(directory):
        return root_attributes(f"{directory}/{_IMAGE}")
    found = os.stat(f"{directory}/diff")
    return found.st_mode & 0o7777, found.st_uid, found.st_gid


def mount_layer(directory: str) -> None:
    mount_erofs(f"{directory}/{_IMAGE}", f"{directory}/diff", f"{directory}/{_TAR}")


def unmount_layer(directory: str) -> None:
    """Idempotent; lazily where something on the host still looks at it."""
    if os.path.ismount(f"{directory}/diff"):
        try:
            umount(f"{directory}/diff")
        except OSError:
            umount(f"{directory}/diff", MNT_DETACH)


def can_mount(root: str) -> bool:
    """Whether this kernel mounts such a layer for this user, from files of this file system, and an overlay over it."""
    try:
        at = tempfile.mkdtemp(prefix="probe-", dir=root)
    except OSError:
        return False
    try:
        for name in ("diff", "upper", "work", "merged"):
            os.mkdir(f"{at}/{name}")
        add_indexed(io.BytesIO(bytes(1024)), at)
        mount_layer(at)
        try:
            mount_overlay(f"{at}/merged", [f"{at}/diff"], f"{at}/upper", f"{at}/work", ONE_FILE_SYSTEM)
            umount(f"{at}/merged")
        finally:
            unmount_layer(at)
    except OSError:
        return False
    finally:
        shutil.rmtree(at, ignore_errors=True)
    return True


LINGER = 30.0
"""Seconds that a layer stays mounted after its last user: what starts again meanwhile finds it so, and what it reads
in the kernel's cache, which goes with the mount."""
_MOST_IDLE = 64


class LayerMounts:
    """Which layers are mounted for whom. A user is a container's directory, by name. Safe with several threads."""

    def __init__(self, root: str, linger: float = LINGER) -> None:
        self._root = root
        self._linger = linger
        self._lock = threading.Lock()
        self._users: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self._idle: dict[str, float] = {}
        """Those that are mounted for nobody, and since when; the longest first."""
        self._timer: threading.Timer | None = None

    def hold(self, user: str, layers: Sequence[str]) -> bool:
        """Have the layers mounted until `release`; returns whether there are any that need it. Idempotent. Raises
        OSError; then nothing is held."""
        with self._lock:
            if user in self._users:
                return bool(self._users[user])
            held = self._users[user] = []
            try:
                for layer in layers:
                    directory = f"{self._root}/{layer}"
                    if layer in held or not is_indexed(directory):
                        continue
                    if not os.path.ismount(f"{directory}/diff"):
                        mount_layer(directory)
                    held.append(layer)
                    self._counts[layer] = self._counts.get(layer, 0) + 1
                    self._idle.pop(layer, None)
            except BaseException:
                self._release(user)
                raise
            return bool(held)

    def release(self, user: str) -> None:
        """Let go of a user's layers: those that nobody else holds are unmounted in a while. Idempotent."""
        with self._lock:
            self._release(user)

    def _release(self, user: str) -> None:
        for layer in self._users.pop(user, ()):
            self._counts[layer] -= 1
            if not self._counts[layer]:
                del self._counts[layer]
                self._idle[layer] = time.monotonic()
        while self._idle and (not self._linger or len(self._idle) > _MOST_IDLE):
            self._unmount(next(iter(self._idle)))
        self._wait()

    def _unmount(self, layer: str) -> None:
        self._idle.pop(layer, None)
        with contextlib.suppress(OSError):  # The next opening tries again.
            unmount_layer(f"{self._root}/{layer}")

    def _wait(self) -> None:
        if self._timer is None and self._idle:
            since = next(iter(self._idle.values()))
            self._timer = threading.Timer(max(since + self._linger - time.monotonic(), 0), self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        with self._lock:
            self._timer = None
        while True:
            with self._lock:  # For one at a time: what starts meanwhile need not wait for all.
                layer = next(iter(self._idle), None)
                if layer is None or self._idle[layer] + self._linger > time.monotonic():
                    self._wait()
                    return
                self._unmount(layer)

    def drop(self, layer: str) -> None:
        """Unmount a layer that is to be removed. Idempotent."""
        with self._lock:
            self._idle.pop(layer, None)
            unmount_layer(f"{self._root}/{layer}")

    def sweep(self) -> None:
        """Unmount what nobody holds: an engine that was killed has left it."""
        with self._lock:
            self._idle.clear()
            for each in mounts():
                directory, _, name = each.point.rpartition("/")
                root, _, layer = directory.rpartition("/")
                if root == self._root and name == "diff" and layer not in self._counts:
                    self._unmount(layer)

    def close(self) -> None:
        """Unmount what nobody holds; what running containers have stays."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            for layer in list(self._idle):
                self._unmount(layer)
