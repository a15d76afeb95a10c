"""Tars made by hand, byte for byte, and the tree that a layer shows."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pathlib
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sampan.core.snapshots.apply import apply_layer
from sampan.core.snapshots.indexed import add_indexed, mount_layer, unmount_layer

BODIES = ("indexed", "unpacked")
DIR, REG, SYM, LNK, CHR, BLK, FIFO = b"5", b"0", b"2", b"1", b"3", b"4", b"6"


def pax(records: dict[bytes, bytes] | list[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """An extended header, with whatever bytes in it."""
    text = b""
    for key, value in records.items() if isinstance(records, dict) else records:
        size = len(key) + len(value) + 3
        total = size + len(str(size))
        total = size + len(str(total))
        text += b"%d %b=%b\n" % (total, key, value)
    return header(b"PaxHeaders/x", kind, size=len(text)) + padded(text)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def header(
    name: bytes, kind: bytes = REG, *, size: int = 0, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = 0,
    target: bytes = b"", device: tuple[int, int] = (0, 0), magic: bytes = b"ustar\x0000", prefix: bytes = b"",
) -> bytes:  # fmt: skip
    def octal(value: int, width: int) -> bytes:
        if 0 <= value < 8 ** (width - 1):
            return b"%0*o\0" % (width - 1, value)
        return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=value < 0)

    fields = (
        name[:100].ljust(100, b"\0"), octal(mode, 8), octal(uid, 8), octal(gid, 8), octal(size, 12), octal(mtime, 12),
        b" " * 8, kind, target[:100].ljust(100, b"\0"), magic, bytes(64), octal(device[0], 8), octal(device[1], 8),
        prefix.ljust(155, b"\0"), bytes(12),
    )  # fmt: skip
    block = b"".join(fields)
    return summed(block)


def summed(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def entry(name: bytes, kind: bytes = REG, data: bytes = b"", **more: object) -> bytes:
    """One entry, with extended headers where its name or its target needs them."""
    records: dict[bytes, bytes] = dict(more.pop("pax", {}))  # type: ignore[call-overload]
    target = more.get("target", b"")
    if len(name) > 100:
        records[b"path"] = name
    if isinstance(target, bytes) and len(target) > 100:
        records[b"linkpath"] = target
    more.setdefault("mode", 0o755 if kind == DIR else 0o644)
    extended = pax(records) if records else b""
    return extended + header(name, kind, size=len(data), **more) + padded(data)  # type: ignore[arg-type]


def tar(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(1024)


@contextmanager
def layer(body: str, at: pathlib.Path, data: bytes) -> Iterator[pathlib.Path]:
    """The layer's root, as an overlay would have it below."""
    directory = at / body
    (directory / "diff").mkdir(parents=True)
    if body == "indexed":
        _, digest = add_indexed(io.BytesIO(data), str(directory))
        mount_layer(str(directory))
    else:
        _, digest = apply_layer(io.BytesIO(data), str(directory / "diff"))
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    try:
        yield directory / "diff"
    finally:
        unmount_layer(str(directory))


class Seen(NamedTuple):
    mode: int
    uid: int
    gid: int
    mtime: int
    links: int
    size: int
    device: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    same: bytes
    """The first name of the same file."""


def seen(root: pathlib.Path) -> dict[bytes, Seen]:
    """All that can be seen of a tree: what is beside the file system's own way to keep it."""
    result: dict[bytes, Seen] = {}
    inodes: dict[int, bytes] = {}
    waiting = [os.fsencode(root)]
    while waiting:
        path = waiting.pop()
        found = os.lstat(path)
        name = path[len(os.fsencode(root)) :] or b"/"
        directory, regular = stat.S_ISDIR(found.st_mode), stat.S_ISREG(found.st_mode)
        whiteout = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
        content = b""
        if stat.S_ISLNK(found.st_mode):
            content = os.readlink(path)
        elif regular:
            content = sampled(path, found.st_size)
        if directory:
            waiting += sorted((path + b"/" + each for each in os.listdir(path)), reverse=True)
        result[name] = Seen(
            found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, 0 if whiteout else found.st_nlink,
            0 if directory else found.st_size, found.st_rdev, content, attributes(path),
            b"" if whiteout else inodes.setdefault(found.st_ino, name),
        )  # fmt: skip
    return result


def sampled(path: bytes, size: int) -> bytes:
    """The content, and of a large file the hash of its data, found by its holes where they are kept."""
    with open(path, "rb") as file:
        if size <= 1 << 20:
            return file.read()
        total = hashlib.sha256()
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            data = os.pread(file.fileno(), 1 << 20, at)
            for start in range(0, len(data), 512):
                block = data[start : start + 512]
                if any(block):
                    total.update(struct.pack("<Q", at + start) + block)
            at += len(data)
        return total.digest()


def attributes(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((each, os.getxattr(path, each, follow_symlinks=False)) for each in names)
