"""Writing the image: the closure of the programs and a minimal /etc as one layer, in an OCI layout. image-spec 1.1"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import stat
import tarfile
import tempfile
import time
from collections.abc import Sequence
from typing import IO, BinaryIO, cast

from isal import igzip

from sampan.errors import ResourceExhausted
from sampan.fromhost.closure import Closure

_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n",
}
_DIRECTORIES = {
    "dev": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "sys": 0o555,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_GZIP_LEVEL = 1


def pack(name: str, programs: Sequence[str], output: BinaryIO) -> None:
    """Write an archive for `load` to `output`. `programs`: names on the PATH, files or directories.

    Raises InvalidArgument for one that is not there or not of this machine, ResourceExhausted for a full disk.
    """
    closure = Closure()
    where = [closure.add_program(each) for each in programs]
    closure.add_top_links()
    try:
        with tempfile.TemporaryFile() as layer:
            diff_id = _write_layer(closure.files, layer)
            _write_layout(name, where[0], diff_id, layer, output)
    except OSError as error:
        raise ResourceExhausted(f"pack {name}: {(error.strerror or str(error)).lower()}") from error


class _Hashing(io.RawIOBase):
    """Hashes what goes through to a file."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.hash.update(data)
        return self._target.write(data)


def _write_layer(files: set[str], layer: IO[bytes]) -> str:
    """The compressed layer into `layer`; returns the digest of the uncompressed one."""
    compressed = igzip.IGzipFile(fileobj=layer, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0)  # type: ignore[no-untyped-call]
    plain = _Hashing(cast(IO[bytes], compressed))
    with compressed, tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        present = {path.lstrip("/") for path in files}
        for path in sorted(_with_parents(present) | set(_FILES) | set(_DIRECTORIES) | {"etc"}):
            _add(archive, path, from_host=path in present)
    return "sha256:" + plain.hash.hexdigest()


def _with_parents(paths: set[str]) -> set[str]:
    result = set(paths)
    for path in paths:
        while path := os.path.dirname(path):
            result.add(path)
    return result


def _add(archive: tarfile.TarFile, path: str, *, from_host: bool) -> None:
    if not from_host and path in _FILES:
        entry = tarfile.TarInfo(path)
        data = _FILES[path].encode()
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
        return
    if path in _DIRECTORIES or not os.path.lexists(f"/{path}"):
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, _DIRECTORIES.get(path, 0o755)
        archive.addfile(entry)
        return
    entry = archive.gettarinfo(f"/{path}", arcname=path)
    # Two names of one file on the host are two files here: only one of them may have been asked for.
    if entry.islnk():
        entry.type, entry.size = tarfile.REGTYPE, os.lstat(f"/{path}").st_size
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = int(entry.mtime)
    if entry.isreg():
        entry.mode = stat.S_IMODE(entry.mode)
        with open(f"/{path}", "rb") as file:
            archive.addfile(entry, file)
    else:
        archive.addfile(entry)


def _write_layout(name: str, command: str, diff_id: str, layer: IO[bytes], output: BinaryIO) -> None:
    size = layer.seek(0, io.SEEK_END)
    layer.seek(0)
    layer_digest = hashlib.file_digest(layer, "sha256").hexdigest()  # type: ignore[arg-type]
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    config = _encoded(
        {
            "created": created, "architecture": _MACHINES.get(platform.machine(), platform.machine()), "os": "linux",
            "config": {"Env": [_PATH], "Cmd": [command]}, "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "created_by": "sampan image from-host"}],
        }
    )  # fmt: skip
    manifest = _encoded(
        {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{layer_digest}",
                    "size": size,
                }
            ],
        }
    )  # fmt: skip
    shown = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    described = {
        **_descriptor("application/vnd.oci.image.manifest.v1+json", manifest),
        "annotations": {
            "io.containerd.image.name": shown, "org.opencontainers.image.ref.name": shown.rpartition(":")[2],
        },
    }  # fmt: skip
    with tarfile.open(fileobj=output, mode="w|") as archive:
        for data in (config, manifest):
            _add_data(archive, f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data)
        entry = tarfile.TarInfo(f"blobs/sha256/{layer_digest}")
        entry.size = size
        layer.seek(0)
        archive.addfile(entry, layer)
        _add_data(archive, "oci-layout", _encoded({"imageLayoutVersion": "1.0.0"}))
        _add_data(archive, "index.json", _encoded({"schemaVersion": 2, "manifests": [described]}))


def _encoded(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _add_data(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
