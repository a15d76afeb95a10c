"""A tree written as an OCI image layout in a tar file: one layer, uncompressed, and the same bytes for the same files.

image-spec: image-layout.md, layer.md, config.md. The layer is not compressed: it stays on this machine, where hashing
it once (its digest is its diff id) is faster than compressing it once and decompressing it twice.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import stat
import tarfile
import tempfile
import time
from typing import BinaryIO

import msgspec

from sampan.errors import InvalidArgument
from sampan.fromhost.tree import Node, Tree
from sampan.oci.digest import Digest, digest_of, encoded
from sampan.oci.image import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    RootFS,
    RunConfig,
)
from sampan.oci.reference import Reference

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}  # in Go's words
_CHUNK = 1 << 20


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    @property
    def digest(self) -> Digest:
        return Digest("sha256:" + self._hash.hexdigest())


def write_layout(reference: Reference, tree: Tree, run: RunConfig, comment: str, output: BinaryIO) -> None:
    """Raises InvalidArgument if a file changes while it is read, OSError if it cannot be."""
    with tempfile.TemporaryFile(prefix="sampan-layer") as file:
        hashing = _Hashing(file)
        _write_layer(tree, hashing)
        layer = Descriptor(media_type=OCI_LAYER, digest=hashing.digest, size=hashing.size)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max((node.mtime for node in tree), default=0)))
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        config = msgspec.json.encode(
            ImageConfig(
                created=created, architecture=architecture, os="linux", config=run,
                rootfs=RootFS(diff_ids=(layer.digest,)),
                history=(History(created=created, created_by="sampan image from-host", comment=comment),),
            )
        )  # fmt: skip
        manifest = msgspec.json.encode(
            Manifest(
                media_type=OCI_MANIFEST,
                config=Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config)),
                layers=(layer,),
            )
        )
        index = Index(
            media_type=OCI_INDEX,
            manifests=(
                Descriptor(
                    media_type=OCI_MANIFEST, digest=digest_of(manifest), size=len(manifest),
                    platform=Platform(architecture=architecture, os="linux"),
                    annotations={
                        "io.containerd.image.name": f"{reference.name}:{reference.tag}",
                        "org.opencontainers.image.ref.name": reference.tag,
                    },
                ),
            ),
        )  # fmt: skip
        with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            for blob in (config, manifest):
                _add(archive, _blob(digest_of(blob)), blob)
            file.seek(0)
            entry = tarfile.TarInfo(_blob(layer.digest))
            entry.size = layer.size
            archive.addfile(entry, file)
            _add(archive, "index.json", msgspec.json.encode(index))


def _write_layer(tree: Tree, output: _Hashing) -> None:
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as archive:  # type: ignore[call-overload]
        for node in tree:
            _add_node(archive, node)


def _add_node(archive: tarfile.TarFile, node: Node) -> None:
    entry = tarfile.TarInfo(node.path.lstrip("/"))
    entry.mode = stat.S_IMODE(node.mode)
    entry.mtime = node.mtime  # the owner is root throughout: the host's other users mean nothing in the image
    if node.target is not None:
        entry.type = tarfile.SYMTYPE
        entry.linkname = node.target
        archive.addfile(entry)
    elif stat.S_ISDIR(node.mode):
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    elif node.data is not None:
        entry.size = node.size
        archive.addfile(entry, io.BytesIO(node.data))
    else:
        assert node.source is not None
        with open(node.source, "rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            try:
                archive.addfile(entry, file)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise InvalidArgument(f"{node.source}: changed while it was read") from error


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{encoded(digest)}"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
