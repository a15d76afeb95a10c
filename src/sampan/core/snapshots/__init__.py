"""Layers on disk and containers' file systems over them: what containerd calls snapshots.

`Snapshotter` is the interface; `overlay2.Overlay2` is the one implementation, with layers whose body is indexed
(`indexed`) or unpacked (`apply`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import msgspec

from sampan.oci.digest import ChainID, Digest


class GraphData(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """Where a file system's parts lie on the host: `GraphDriver.Data` of Docker's inspect."""

    id: str = msgspec.field(name="ID", default="")
    lower_dir: str = ""
    upper_dir: str = ""
    merged_dir: str = ""
    work_dir: str = ""


class View:
    """A container's files, by descriptors that stay good whatever is unmounted. `root`: the whole; `upper`: what it has
    written, as overlayfs keeps it; `lowers`: the layers below, topmost first."""

    def __init__(self, root: str, upper: str, lowers: Sequence[str]) -> None:
        self._opened: list[int] = []
        try:
            self.root, self.upper, *self.lowers = (self._open(each) for each in (root, upper, *lowers))
        except BaseException:
            self.close()
            raise

    def _open(self, path: str) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._opened.append(descriptor)
        return descriptor

    def close(self) -> None:
        """Idempotent."""
        while self._opened:
            os.close(self._opened.pop())


@dataclass(frozen=True, kw_only=True)
class Body:
    """A layer's files that have no place in a chain yet. `name`: for the snapshotter. `size`: bytes of file data."""

    name: str
    diff_id: Digest
    size: int


class Snapshotter(Protocol):
    """Layers are named by chain id and never change once they are there; a container's layer is named by its id."""

    def has_layer(self, chain_id: ChainID) -> bool: ...

    def make_body(self, diff_id: Digest, tar: BinaryIO) -> Body:
        """A layer's files from its uncompressed tar, verified against `diff_id`; on no parent yet, so that several are
        made at once. `add_layer` or `discard` takes it."""

    def adopt_body(self, diff_id: Digest, path: str) -> Body:
        """The same from the tar in a file, which `diff_id` is known to name."""

    def add_layer(self, chain_id: ChainID, parent: ChainID | None, body: Body) -> None:
        """Give a body its place, over a parent that is there. It is used up, whatever happens."""

    def remove_layer(self, chain_id: ChainID) -> int: ...

    def layers(self) -> dict[ChainID, ChainID | None]:
        """Every layer, with its parent."""

    def open_tar(self, chain_id: ChainID) -> BinaryIO | None:
        """The layer's own tar, byte for byte and open; None where it is not kept."""

    def open_view(self, container_id: str) -> View:
        """A container's files as they are now. The caller keeps the container from starting and ending meanwhile."""

    def create_container(self, container_id: str, chain_id: ChainID | None) -> None:
        """Make a writable layer on top."""

    def mount(self, container_id: str, *, volatile: bool = False) -> str:
        """Mount a container's file system; returns where. Idempotent. `volatile`: what is written need not outlive
        the machine, and is never waited for."""

    def unmount(self, container_id: str) -> None: ...

    def remove_container(self, container_id: str) -> None: ...

    def forget_container(self, container_id: str) -> str | None:
        """Half of the removal: a name for `discard`, which is done at the next opening if it is not done before."""

    def discard(self, name: str) -> None: ...

    def graph_data(self, container_id: str) -> GraphData: ...

    def image_graph_data(self, chain_id: ChainID) -> GraphData: ...

    def usage(self, container_id: str) -> int:
        """Bytes in the writable layer."""
