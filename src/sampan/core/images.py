"""Images: configurations by id, and the names that lead to them. The rows say what is there; the blobs are in
`content`, the layers in `snapshots`."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.core.content import ContentStore
from sampan.core.metadata import Metadata
from sampan.core.removal import Step, plan
from sampan.core.snapshots.overlay2 import Overlay2
from sampan.errors import InvalidArgument, NotFound
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
_PARENTS = ("ALTER TABLE image ADD COLUMN parent TEXT",)
_ID_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Image:
    """`id`: the configuration's digest. `manifest`: the manifest's. `size`: bytes of file data in all layers.
    `added`: nanoseconds since the epoch. Names are in the familiar form. `parent`: the image that it was made of."""

    id: Digest
    manifest: Digest
    config: ImageConfig
    size: int
    added: int
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    parent: Digest | None = None

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
    """One line of what `remove` did: a name of `image` was untagged, or an id deleted."""

    untagged: str = ""
    deleted: str = ""
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of an image that was still there when it lost its name."""


Users = Callable[[str], Sequence[tuple[str, bool]]]
"""The containers that are made of an image, by short id, and whether each runs."""


def nobody(image: str) -> Sequence[tuple[str, bool]]:
    """No containers."""
    return ()


class ImageStore:
    def __init__(
        self, metadata: Metadata, content: ContentStore, snapshots: Overlay2, *, keep_blobs: bool = False
    ) -> None:
        """`keep_blobs`: of all layers, as they came, also where the layer's tar is kept."""
        self._keep_blobs = keep_blobs
        self._metadata = metadata
        self._content = content
        self._snapshots = snapshots
        metadata.migrate("images-1", _SCHEMA)
        metadata.migrate("images-2", _PARENTS)
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
            row = cursor.execute("SELECT manifest, size, added, parent FROM image WHERE id = ?", (image_id,)).fetchone()
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
            repo_digests=tuple(_named(name, digest=digest).familiar for name, digest in digests), parent=row[3],
        )  # fmt: skip

    def all(self) -> Sequence[Image]:
        """All, the newest first."""
        with self._metadata.transaction() as cursor:
            ids = [row[0] for row in cursor.execute("SELECT id FROM image ORDER BY added DESC")]
            return [self._load(Digest(each)) for each in ids]

    def manifest(self, image: Image) -> Manifest:
        return decode(self._content.read(image.manifest), Manifest, f"manifest {image.manifest}")

    # --- Changing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is changed meanwhile is changed at once, or not at all."""
        with self._metadata.transaction():
            yield

    def add(
        self, image_id: Digest, manifest: Digest, *, tags: Iterable[Reference] = (), digests: Iterable[Reference] = (),
        parent: Digest | None = None,
    ) -> Image:  # fmt: skip
        """Record an image whose blobs and layers are there; its names move to it. One transaction."""
        config = self._config(image_id)
        sizes = self._snapshots.layer_sizes()
        size = sum(sizes.get(each, 0) for each in chain_ids(config.rootfs.diff_ids))
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "INSERT INTO image (id, manifest, size, added, parent) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest",
                (image_id, manifest, size, time.time_ns(), parent),
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
        with self.together():
            image = self.get(source)
            return self.add(image.id, image.manifest, tags=[reference])

    def remove(
        self, name_or_id: str, *, force: bool = False, prune: bool = True, users: Users = nobody
    ) -> list[Removed]:
        """Take a name away, and with the last name the image, by Docker's rules (`core.removal`). `prune`: the parents
        too that nobody needs any more. Raises NotFound and Conflict in Docker's words.

        Blobs and layers are freed by the collection that follows (`core.gc`).
        """
        with self._metadata.transaction() as cursor:
            image = self.get(name_or_id)
            by_id = self._is_id(name_or_id, image)
            steps = plan(_Known(self, users), image.id, name_or_id, by_id=by_id, force=force, prune=prune)
            for step in steps:
                if not step.untagged:
                    cursor.execute("DELETE FROM image WHERE id = ?", (step.image,))
                    continue
                named = parse_reference(step.untagged)
                table, column, value = (
                    ("image_digest", "digest", named.digest) if named.digest else ("image_tag", "tag", named.tag)
                )
                cursor.execute(f"DELETE FROM {table} WHERE name = ? AND {column} = ?", (named.name, value))
            removed = [self._told(step) for step in steps]
        for step in steps:
            if not step.untagged:
                self._configs.pop(step.image, None)
        return removed

    def _told(self, step: Step) -> Removed:
        if not step.untagged:
            return Removed(deleted=step.image, image=step.image)
        return Removed(untagged=step.untagged, image=step.image, labels=self._config(step.image).run.labels or {})

    @staticmethod
    def _is_id(name_or_id: str, image: Image) -> bool:
        digits = name_or_id.removeprefix("sha256:")
        return _ID_PREFIX.fullmatch(name_or_id) is not None and encoded(image.id).startswith(digits)

    def children(self, image_id: Digest) -> list[Digest]:
        """The images that were made of it here."""
        with self._metadata.transaction() as cursor:
            return [row[0] for row in cursor.execute("SELECT id FROM image WHERE parent = ?", (image_id,))]

    def find(self, image_id: str) -> Image | None:
        with contextlib.suppress(NotFound):
            return self._load(Digest(image_id))
        return None

    def needs(self, image: Image) -> set[Digest]:
        """The blobs of an image that are kept: those of layers whose tar is there are not, unless it is set so."""
        return self._needs(image, self._spared())

    def _spared(self) -> set[ChainID]:
        return set() if self._keep_blobs else self._snapshots.with_tar()

    def _needs(self, image: Image, spared: set[ChainID]) -> set[Digest]:
        layers = zip(self.manifest(image).layers, image.chain, strict=True)
        return {image.id, image.manifest, *(layer.digest for layer, chain_id in layers if chain_id not in spared)}

    def referenced(self) -> tuple[set[Digest], set[ChainID]]:
        """What images need: blobs and layers."""
        blobs: set[Digest] = set()
        chains: set[ChainID] = set()
        spared = self._spared()
        for image in self.all():
            blobs |= self._needs(image, spared)
            chains.update(image.chain)
        return blobs, chains


def _named(name: str, *, tag: str = "", digest: str = "") -> Reference:
    domain, _, path = name.partition("/")
    return Reference(domain, path, tag, Digest(digest) if digest else None)


class _Known:
    """See `removal.Known`."""

    def __init__(self, images: ImageStore, users: Users) -> None:
        self._images = images
        self.users = users

    def names(self, image: Digest) -> Sequence[str]:
        found = self._images.find(image)
        return (*found.repo_tags, *found.repo_digests) if found else ()

    def children(self, image: Digest) -> Sequence[Digest]:
        return self._images.children(image)

    def parent(self, image: Digest) -> Digest | None:
        """If it is still there."""
        found = self._images.find(image)
        parent = found.parent if found else None
        return parent if parent and self._images.find(parent) else None
