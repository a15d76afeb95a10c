"""Collection: what no image and no container needs is removed. Mark and sweep, as there is never much to mark."""

from __future__ import annotations

from sampan.core.content import ContentStore
from sampan.core.images import ImageStore
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.oci.digest import ChainID


def collect(content: ContentStore, snapshots: Overlay2, images: ImageStore) -> int:
    """Remove blobs and layers without use; returns the bytes that this freed. Nothing may be loading meanwhile."""
    blobs, needed = images.referenced()
    freed = sum(content.delete(digest) for digest in content.all() if digest not in blobs)
    parents = snapshots.layers()
    for chain_id in snapshots.used_layers():
        at: ChainID | None = chain_id
        while at is not None and at not in needed:
            needed.add(at)
            at = parents[at]
    doomed = {chain_id for chain_id in parents if chain_id not in needed}
    while doomed:
        # From the top: a layer goes before the one it stands on.
        tops = doomed - {parents[each] for each in doomed if parents[each] is not None}
        freed += sum(snapshots.remove_layer(each) for each in tops)
        doomed -= tops
    return freed
