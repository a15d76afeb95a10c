"""Images: configurations by id, and the names that lead to them. The rows say what is there; the blobs are in
`content`, the layers in `snapshots`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sampan.core.content import ContentStore
from sampan.core.metadata import Metadata
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.oci.digest import ChainID, Digest, chain_ids, encoded
from sampan.oci.image import ImageConfig, Manifest, decode
from sampan.oci.reference import Reference, parse_reference

_SCHEMA = (
    """CREATE TABLE image (
        id TEXT PRIMARY KEY, manifest TEXT NOT NULL, size INTEGER NOT NULL, added INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE image_tag (
        name TEXT NOT NULL, tag TEXT NOT NULL, image TEXT NOT NULL REFERENCES image (id), PRIMARY KEY (name, tag))
        WITHOUT ROWID""",
    """CREATE TABLE image_digest (
        name TEXT NOT NULL, digest TEXT NOT NULL, image TEXT NOT NULL REFERENCES image (id),
        PRIMARY KEY (name, digest)) WITHOUT ROWID""",
)
_ID_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Image:
    """`id`: the configuration's digest. `manifest`: the manifest's. `size`: bytes of file data in all layers.
    `added`: nanoseconds since the epoch. Names are in the familiar form."""

    id: Digest
    manifest: Digest
    config: ImageConfig
    size: int
    added: int
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]

    @property
    def chain(self) -> list[ChainID]:
        return chain_ids(self.config.rootfs.diff_ids)

    @property
    def top(self) -> ChainID | None:
        """The chain id of all layers together; None for an image without any."""
        chain = self.chain
        return chain[-1] if chain else None


@dataclass(frozen=True)
class Removed:
    """One line of what `remove` did: a name was untagged, or an id deleted."""

    untagged: str = ""
    deleted: str = ""


class ImageStore:
    def __init__(self, metadata: Metadata, content: ContentStore, snapshots: Overlay2) -> None:
        self._metadata = metadata
        self._content = content
        self._snapshots = snapshots
        metadata.migrate("images-1", _SCHEMA)
        self._configs: dict[Digest, ImageConfig] = {}

    # --- Looking up -------------------------------------------------------------------------------

    def _config(self, image_id: Digest) -> ImageConfig:
        """Decoded once: what a digest names never changes."""
        if image_id not in self._configs:
            self._configs[image_id] = decode(self._content.read(image_id), ImageConfig, f"image {image_id}")
        return self._configs[image_id]

    def get(self, name_or_id: str) -> Image:
        """By name, id, or a unique beginning of an id. Raises NotFound in Docker's words."""
        return self._load(self._resolve(name_or_id))

    def _resolve(self, name_or_id: str) -> Digest:
        with self._metadata.transaction() as cursor:
            full = name_or_id if name_or_id.startswith("sha256:") else f"sha256:{name_or_id}"
            row = cursor.execute("SELECT id FROM image WHERE id = ?", (full,)).fetchone()
            if row is not None:
                return Digest(row[0])
            try:
                reference = parse_reference(name_or_id)
            except InvalidArgument as error:
                reference, malformed = None, error
            if reference is not None:
                row = cursor.execute(
                    "SELECT image FROM image_digest WHERE name = ?1 AND digest = ?2 UNION "
                    "SELECT image FROM image_tag WHERE name = ?1 AND tag = ?2",
                    (reference.name, reference.digest or reference.tag or "latest"),
                ).fetchone()
                if row is not None:
                    return Digest(row[0])
            if _ID_PREFIX.fullmatch(name_or_id):
                rows = cursor.execute("SELECT id FROM image WHERE id LIKE ?", (full + "%",)).fetchall()
                if len(rows) == 1:
                    return Digest(rows[0][0])
                if len(rows) > 1:
                    raise InvalidArgument(f"ambiguous image reference: {name_or_id}")
        if reference is None and not _ID_PREFIX.fullmatch(name_or_id):
            raise malformed
        shown = reference.with_default_tag().familiar if reference else name_or_id
        raise NotFound(f"No such image: {shown}")

    def _load(self, image_id: Digest) -> Image:
        with self._metadata.transaction() as cursor:
            row = cursor.execute("SELECT manifest, size, added FROM image WHERE id = ?", (image_id,)).fetchone()
            if row is None:
                raise NotFound(f"No such image: {image_id}")
            tags = cursor.execute(
                "SELECT name, tag FROM image_tag WHERE image = ? ORDER BY name, tag", (image_id,)
            ).fetchall()
            digests = cursor.execute(
                "SELECT name, digest FROM image_digest WHERE image = ? ORDER BY name", (image_id,)
            ).fetchall()
        return Image(
            id=image_id, manifest=row[0], config=self._config(image_id), size=row[1], added=row[2],
            repo_tags=tuple(_named(name, tag=tag).familiar for name, tag in tags),
            repo_digests=tuple(_named(name, digest=digest).familiar for name, digest in digests),
        )  # fmt: skip

    def all(self) -> Sequence[Image]:
        """All, the newest first."""
        with self._metadata.transaction() as cursor:
            ids = [row[0] for row in cursor.execute("SELECT id FROM image ORDER BY added DESC")]
            return [self._load(Digest(each)) for each in ids]

    def manifest(self, image: Image) -> Manifest:
        return decode(self._content.read(image.manifest), Manifest, f"manifest {image.manifest}")

    # --- Changing ---------------------------------------------------------------------------------

    def add(
        self, image_id: Digest, manifest: Digest, *, tags: Iterable[Reference] = (), digests: Iterable[Reference] = ()
    ) -> Image:
        """Record an image whose blobs and layers are there; its names move to it. One transaction."""
        config = self._config(image_id)
        sizes = self._snapshots.layer_sizes()
        size = sum(sizes.get(each, 0) for each in chain_ids(config.rootfs.diff_ids))
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "INSERT INTO image VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest",
                (image_id, manifest, size, time.time_ns()),
            )
            for each in tags:
                cursor.execute(
                    "INSERT OR REPLACE INTO image_tag VALUES (?, ?, ?)", (each.name, each.tag or "latest", image_id)
                )
            for each in digests:
                cursor.execute(
                    "INSERT OR REPLACE INTO image_digest VALUES (?, ?, ?)", (each.name, each.digest, image_id)
                )
            return self._load(image_id)

    def tag(self, source: str, reference: Reference) -> Image:
        """Give an image one more name; taken from another image, if that has it. Raises NotFound, InvalidArgument."""
        if reference.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        image = self.get(source)
        return self.add(image.id, image.manifest, tags=[reference])

    def remove(
        self, name_or_id: str, *, force: bool = False, used_by: Sequence[tuple[str, bool]] = ()
    ) -> list[Removed]:
        """Take a name away, and with the last name the image. `used_by`: the containers that are made of it, by short
        id, and whether each runs. Raises NotFound and Conflict in Docker's words.

        Blobs and layers are freed by the collection that follows (`core.gc`).
        """
        image = self.get(name_or_id)
        names = [*image.repo_tags, *image.repo_digests]
        if self._is_id(name_or_id, image):
            _refuse_delete(image, force, used_by)
            return self._untag(image, names, delete=True)
        name = parse_reference(name_or_id).with_default_tag().familiar
        if set(image.repo_tags) - {name}:
            return self._untag(image, [name], delete=False)
        if used_by and not force:
            raise Conflict(
                f'conflict: unable to remove repository reference "{name_or_id}" (must force) - container '
                f"{used_by[0][0]} is using its referenced image {encoded(image.id)[:12]}"
            )
        # What a container is made of keeps its image, without a name.
        return self._untag(image, names, delete=not used_by)

    @staticmethod
    def _is_id(name_or_id: str, image: Image) -> bool:
        digits = name_or_id.removeprefix("sha256:")
        return _ID_PREFIX.fullmatch(name_or_id) is not None and encoded(image.id).startswith(digits)

    def _untag(self, image: Image, names: Iterable[str], *, delete: bool) -> list[Removed]:
        removed: list[Removed] = []
        with self._metadata.transaction() as cursor:
            for name in names:
                reference = parse_reference(name)
                cursor.execute("DELETE FROM image_tag WHERE name = ? AND tag = ?", (reference.name, reference.tag))
                cursor.execute(
                    "DELETE FROM image_digest WHERE name = ? AND digest = ?", (reference.name, reference.digest or "")
                )
                removed.append(Removed(untagged=name))
            if delete:
                cursor.execute("DELETE FROM image WHERE id = ?", (image.id,))
                removed.append(Removed(deleted=image.id))
        if delete:
            self._configs.pop(image.id, None)
        return removed

    def referenced(self) -> tuple[set[Digest], set[ChainID]]:
        """What images need: blobs and layers."""
        blobs: set[Digest] = set()
        chains: set[ChainID] = set()
        for image in self.all():
            blobs |= {image.id, image.manifest}
            blobs |= {layer.digest for layer in self.manifest(image).layers}
            chains.update(image.chain)
        return blobs, chains


def _named(name: str, *, tag: str = "", digest: str = "") -> Reference:
    domain, _, path = name.partition("/")
    return Reference(domain, path, tag, Digest(digest) if digest else None)


def _refuse_delete(image: Image, force: bool, used_by: Sequence[tuple[str, bool]]) -> None:
    short = encoded(image.id)[:12]
    for container, running in sorted(used_by, key=lambda each: not each[1]):
        if running:
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container "
                f"{container}"
            )
        if not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container "
                f"{container}"
            )
    if len({parse_reference(name).name for name in image.repo_tags}) > 1 and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
