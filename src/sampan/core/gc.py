"""Collection: what no image and no container needs is removed. Mark and sweep, as there is never much to mark.

What is being loaded or saved meanwhile is pinned (`core.pins`) and stays; whoever let it go collects again.
"""

from __future__ import annotations

from sampan.core.content import ContentStore
from sampan.core.images import ImageStore
from sampan.core.pins import Pins
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.oci.digest import ChainID


def collect(pins: Pins, content: ContentStore, snapshots: Overlay2, images: ImageStore) -> int:
    """Remove blobs and layers without use; returns the bytes that this freed."""
    with pins.collecting():
        blobs, needed = images.referenced()
        freed = 0
        for digest in content.all():
            if digest not in blobs:
                with pins.lock:
                    freed += 0 if pins.pinned(digest) else content.delete(digest)
        return freed + _collect_layers(pins, snapshots, needed)


def _collect_layers(pins: Pins, snapshots: Overlay2, needed: set[ChainID]) -> int:
    parents = snapshots.layers()

    def keep(chain_id: ChainID | None) -> None:
        """With all that it stands on."""
        while chain_id is not None and chain_id not in needed:
            needed.add(chain_id)
            chain_id = parents.get(chain_id)

    for chain_id in snapshots.used_layers():
        keep(chain_id)
    freed = 0
    doomed = parents.keys() - needed
    while doomed:
        # From the top: a layer goes before the one it stands on.
        tops = doomed - {parents[each] for each in doomed if parents[each] is not None}
        for each in tops:
            with pins.lock:
                if not pins.pinned(each):
                    # One that a container or another layer has come to stand on meanwhile stays.
                    freed += snapshots.remove_layer(each)
        # Whose top stayed, stays too.
        for each in tops & snapshots.layers().keys():
            keep(each)
        doomed = (doomed - tops) - needed
    return freed
