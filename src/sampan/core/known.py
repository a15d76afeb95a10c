"""Where a layer can be had: the blobs that hold it, and the repositories that have them.

A layer's own blob is dropped once its tar is here (`ImageStore.needs`). What was verified to be that layer is
remembered for as long as the layer is here: so a push finds it in the registry, or has it mounted from another
repository there, and compresses only what no registry is known to have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampan.core.metadata import Metadata
from sampan.oci.digest import Digest
from sampan.oci.image import Descriptor

_SCHEMA = (
    """CREATE TABLE known_blob (
        diff_id TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
        repository TEXT NOT NULL, PRIMARY KEY (diff_id, digest, repository)) WITHOUT ROWID""",
)


@dataclass(frozen=True)
class Known:
    """A blob, and the paths of a registry's repositories that have it."""

    blob: Descriptor
    paths: list[str]


class KnownBlobs:
    """Safe to use from several threads."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        metadata.migrate("known-blobs-1", _SCHEMA)

    def remember(self, diff_id: Digest, blob: Descriptor, repository: str) -> None:
        """`repository`: with its domain. Only of a blob whose content is known to be that layer: what a manifest merely
        says may be a lie, and would go out again under another image's name."""
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO known_blob VALUES (?, ?, ?, ?, ?)",
                (diff_id, blob.digest, blob.size, blob.media_type, repository),
            )

    def of(self, diff_id: Digest, domain: str) -> Sequence[Known]:
        """What repositories of a registry hold a layer as."""
        with self._metadata.transaction() as cursor:
            rows = cursor.execute(
                "SELECT digest, size, media_type, repository FROM known_blob WHERE diff_id = ?", (diff_id,)
            ).fetchall()
        found: dict[Digest, Known] = {}
        for digest, size, media_type, repository in rows:
            host, _, path = repository.partition("/")
            if host == domain:
                blob = Descriptor(media_type=media_type, digest=Digest(digest), size=size)
                found.setdefault(blob.digest, Known(blob, [])).paths.append(path)
        return list(found.values())

    def forget_unused(self) -> None:
        """What is known of layers that are not here any more."""
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM known_blob WHERE diff_id NOT IN (SELECT diff_id FROM layer)")
