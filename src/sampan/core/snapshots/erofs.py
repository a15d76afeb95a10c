"""The index of a layer: an EROFS image that holds inodes and names, and points into the layer's tar for the data.

On-disk format: linux/fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst; why this is used of it:
docs/design/0012. An image is, in blocks of 512 bytes::

    0      nothing             1024   superblock, 128 bytes
    1152   the extra device, 128 bytes: the tar
    1280   the root's inode, as its number has 16 bits only
    4096   inodes of all files in the order of the archive, each at a multiple of 32 (its number is where it lies),
           followed by its attributes, by a link's target, and by where its data is: device 1 is the tar
           inodes of the directories, the directories' blocks, pieces of files with holes
"""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_right
from typing import BinaryIO

from sampan.core.snapshots.tarwalk import Entry, Extent, invalid, shown
from sampan.core.snapshots.tree import (
    FT_BLOCK,
    FT_CHARACTER,
    FT_DIRECTORY,
    FT_FIFO,
    FT_REGULAR,
    FT_SYMLINK,
    WHITEOUT,
    Attributes,
    Directory,
)

_MAGIC = 0xE0F5E1E2
_SUPER = 1024
_BITS = 9
_BLOCK = 1 << _BITS
_SLOT = 32
"""Inodes lie at multiples of it, and are numbered by it."""
_MOST_BLOCKS = (1 << 32) - 2
"""Of a device: 2 TiB."""
_MOST_INODES = 512 << 20
"""Bytes of inodes, and what is with them, in memory: four million files have 400 MB."""
_ROOT = 1280
_FILES = 4096
_COMPAT_MTIME = 2
_CHUNKED, _DEVICE_TABLE = 4, 8

_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24x")
_DEVICE = struct.Struct("<64sII56x")
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_NLINK = struct.Struct("<I")
_NLINK_AT = 44
_DIRENT = struct.Struct("<QHBx")
_CHUNK = struct.Struct("<HHI")
_WHOLE_FILE = struct.Struct("<HHHHQIIIIqII16xHHI24x")
"""An inode, its chunk, and what is left of the slot."""
_HOLE = 0xFFFFFFFF
_EXTENDED = 1
_PLAIN, _INLINE, _CHUNKS = _EXTENDED | 0 << 1, _EXTENDED | 2 << 1, _EXTENDED | 4 << 1
_CHUNK_INDEXES = 0x20
_LARGEST_CHUNK = _BITS + 31
_LARGEST_CHUNK_SIZE = 1 << _LARGEST_CHUNK
_MOST_CHUNKS = 1 << 16
"""Of one file with holes; and of all, as each takes eight bytes of the image:"""
_MOST_CHUNKS_IN_ALL = 1 << 23
_NS = 1_000_000_000
_FORMATS = {
    FT_REGULAR: stat.S_IFREG, FT_CHARACTER: stat.S_IFCHR, FT_BLOCK: stat.S_IFBLK, FT_FIFO: stat.S_IFIFO,
    FT_SYMLINK: stat.S_IFLNK,
}  # fmt: skip
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACLS = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_OPAQUE = (b"trusted.overlay.opaque", b"y")


class Index:
    """A `tree.Body` that becomes an image."""

    def __init__(self) -> None:
        # The whiteouts' inode comes first: they are all the same file.
        self._files = bytearray(_INODE.pack(_PLAIN, 0, stat.S_IFCHR, 0, 0, 0, 1, 0, 0, 0, 0, 1))
        self._inodes = 1
        self._names: dict[int, int] = {}
        """How many names a file has, of those that have or had several."""
        self._whiteouts = 0
        self._holes: list[tuple[int, int, Entry]] = []
        """Files with holes: where their chunks are written down, and how large these are (by power of two)."""
        self._chunks = 0
        self._last: tuple[int, Entry] | None = None
        """The last file with data, and where its chunk is: the archive may end before its last block does."""

    # --- Entries ----------------------------------------------------------------------------------

    def make_directory(self, directory: Directory) -> None:
        pass

    def make_file(self, parent: Directory, name: bytes, entry: Entry, xattrs: Attributes, kind: int) -> int:
        if kind == FT_REGULAR and not xattrs and entry.extents is None and 0 < entry.size <= _LARGEST_CHUNK_SIZE:
            return self._whole_file(entry)
        files = self._files
        inline = b""
        layout, where, mode = _PLAIN, 0, entry.mode & 0o7777 | _FORMATS[kind]
        attributes = _attributes(xattrs, entry.name) if xattrs else b""
        if kind == FT_REGULAR:
            if entry.extents is not None:
                return self._sparse_file(entry, attributes)
            if entry.size:
                block = entry.offset >> _BITS
                if block + (entry.size >> _BITS) >= _MOST_BLOCKS or len(files) > _MOST_INODES:
                    raise invalid("the archive is too large")
                # One chunk is the whole file, but where that is larger than the largest.
                bits = min(max((entry.size - 1).bit_length(), _BITS), _LARGEST_CHUNK)
                layout, where = _CHUNKS, bits - _BITS | _CHUNK_INDEXES
                inline = _CHUNK.pack(0, 1, block)
                for more in range(1 << bits, entry.size, 1 << bits):
                    inline += _CHUNK.pack(0, 1, block + (more >> _BITS))
                if len(attributes) % _CHUNK.size:
                    inline = bytes(4) + inline
                self._last = len(files) + _INODE.size + len(attributes) + len(attributes) % _CHUNK.size, entry
        elif kind == FT_SYMLINK:
            inline, mode = entry.target, stat.S_IFLNK | 0o777  # As every link of Linux has.
            whole = _INODE.size + len(attributes) + len(inline)
            if whole > _BLOCK:
                files += bytes(-len(files) % _BLOCK) + inline + bytes(-len(inline) % _BLOCK)
                where, inline = (_FILES + len(files)) // _BLOCK - -(-len(entry.target) // _BLOCK), b""
            else:
                layout = _INLINE
                if len(files) % _BLOCK + whole > _BLOCK:  # What is inline lies within a block.
                    files += bytes(-len(files) % _BLOCK)
        elif kind != FT_FIFO:
            where = entry.minor & 0xFF | entry.major << 8 | (entry.minor & ~0xFF) << 12
        seconds, rest = divmod(entry.mtime, _NS)
        at = len(files)
        self._inodes += 1
        files += _INODE.pack(
            layout, len(attributes) // 4 - 2 if attributes else 0, mode, 0,
            len(entry.target) if kind == FT_SYMLINK else entry.size, where, self._inodes & 0xFFFFFFFF, entry.uid,
            entry.gid, seconds, rest, 1,
        )  # fmt: skip
        if attributes or inline:
            files += attributes
            files += inline
            files += bytes(-len(files) % _SLOT)
        return (at // _SLOT + _FILES // _SLOT) << 3 | kind

    def _whole_file(self, entry: Entry) -> int:
        """As nearly all are: one chunk of the tar, and no attributes."""
        files = self._files
        at, size, block = len(files), entry.size, entry.offset >> _BITS
        if block + (size >> _BITS) >= _MOST_BLOCKS or at > _MOST_INODES:
            raise invalid("the archive is too large")
        self._inodes += 1
        seconds, rest = divmod(entry.mtime, _NS)
        files += _WHOLE_FILE.pack(
            _CHUNKS, 0, entry.mode & 0o7777 | stat.S_IFREG, 0, size,
            max((size - 1).bit_length() - _BITS, 0) | _CHUNK_INDEXES, self._inodes & 0xFFFFFFFF, entry.uid, entry.gid,
            seconds, rest, 1, 0, 1, block,
        )  # fmt: skip
        self._last = at + _INODE.size, entry
        return (at // _SLOT + _FILES // _SLOT) << 3 | FT_REGULAR

    def _sparse_file(self, entry: Entry, attributes: bytes) -> int:
        files = self._files
        bits = _chunk_bits(entry.extents or [], entry.size)
        seconds, rest = divmod(entry.mtime, _NS)
        at = len(files)
        self._inodes += 1
        files += _INODE.pack(
            _CHUNKS, len(attributes) // 4 - 2 if attributes else 0, entry.mode & 0o7777 | stat.S_IFREG, 0, entry.size,
            bits - _BITS | _CHUNK_INDEXES, self._inodes & 0xFFFFFFFF, entry.uid, entry.gid, seconds, rest, 1,
        )  # fmt: skip
        files += attributes
        files += bytes(-len(files) % _CHUNK.size)
        chunks = -(-entry.size >> bits)
        self._chunks += chunks
        if self._chunks > _MOST_CHUNKS_IN_ALL:
            raise invalid("too many files with holes")
        self._holes.append((len(files), bits, entry))
        files += _CHUNK.pack(0, 0, _HOLE) * chunks
        files += bytes(-len(files) % _SLOT)
        return (at // _SLOT + _FILES // _SLOT) << 3 | FT_REGULAR

    def make_link(self, parent: Directory, name: bytes, token: int, target: tuple[Directory, bytes]) -> None:
        self._names[token] = self._names.get(token, 1) + 1

    def make_whiteout(self, parent: Directory, name: bytes) -> None:
        self._whiteouts += 1

    def remove(self, parent: Directory, name: bytes, present: Directory | int) -> None:
        waiting = [present]
        while waiting:
            each = waiting.pop()
            if isinstance(each, Directory):
                waiting += each.children.values()
            elif each == WHITEOUT:
                self._whiteouts -= 1
            elif each in self._names:
                self._names[each] -= 1

    # --- The image --------------------------------------------------------------------------------

    def write(self, root: Directory, image: BinaryIO, tar: BinaryIO, tar_size: int, uuid: bytes) -> None:
        """Write the image into an empty file. `tar`: to read what does not lie in it in whole blocks."""
        for token, names in (*self._names.items(), (_FILES // _SLOT << 3, self._whiteouts)):
            _NLINK.pack_into(self._files, ((token >> 3) - _FILES // _SLOT) * _SLOT + _NLINK_AT, max(names, 1))
        self._files += bytes(-len(self._files) % _BLOCK)
        head, inodes, blocks, count = _directories(root, _FILES + len(self._files), self._inodes)
        end = _FILES + len(self._files) + len(inodes) + len(blocks)
        end = self._write_holes(image, tar, tar_size, end)
        superblock = _SUPERBLOCK.pack(
            _MAGIC, 0, _COMPAT_MTIME, _BITS, 0, _ROOT // _SLOT, count, 0, 0, end >> _BITS, 0, 0, uuid, b"",
            _CHUNKED | _DEVICE_TABLE, 0, 1, (_SUPER + _SUPERBLOCK.size) // _DEVICE.size, 0, 0, 0, 0,
        )  # fmt: skip
        device = _DEVICE.pack(b"", min(max(-(-tar_size >> _BITS), 1), _MOST_BLOCKS), 0)
        image.seek(0)
        image.write((bytes(_SUPER) + superblock + device + head).ljust(_FILES, b"\0"))
        image.write(self._files)
        image.write(inodes)
        image.write(blocks)
        image.truncate(end)

    def _write_holes(self, image: BinaryIO, tar: BinaryIO, tar_size: int, end: int) -> int:
        """Fill in the chunks of files with holes: where a chunk's data is whole blocks of the archive, it stays there;
        else it is put together at the image's end, holes being holes in the image, too. Returns the new end."""
        if self._last is not None and self._last[1].offset + self._last[1].size + _BLOCK - 1 & -_BLOCK > tar_size:
            at, entry = self._last
            self._holes.append((at, min(max((entry.size - 1).bit_length(), _BITS), _LARGEST_CHUNK), entry))
        for at, bits, entry in self._holes:
            extents = entry.extents if entry.extents is not None else [(0, entry.size)]
            sources: list[int] = []
            source = entry.offset
            for _, length in extents:
                sources.append(source)
                source += length
            for number in sorted(_touched(extents, bits)):
                start, stop = number << bits, min(number + 1 << bits, entry.size)
                where = _straight(extents, sources, start, stop)
                if where is None or where + stop - start + _BLOCK - 1 & -_BLOCK > tar_size:
                    block = end >> _BITS
                    end += -(-(stop - start) // _BLOCK) * _BLOCK
                    if end >> _BITS >= _MOST_BLOCKS:
                        raise invalid(f"{shown(entry.name)}: an invalid map of holes")
                    _assemble(image, tar, block << _BITS, extents, sources, start, stop)
                    _CHUNK.pack_into(self._files, at + number * _CHUNK.size, 0, 0, block)
                else:
                    _CHUNK.pack_into(self._files, at + number * _CHUNK.size, 0, 1, where >> _BITS)
        return end


def _chunk_bits(extents: list[Extent], size: int) -> int:
    """The largest chunks that all extents begin and end at, yet so few as there is room for."""
    edges = 0
    for offset, length in extents:
        edges |= offset | (offset + length if offset + length < size else 0)
    bits = max(_BITS, (edges & -edges).bit_length() - 1) if edges else max(_BITS, (size - 1).bit_length())
    return max(min(bits, _LARGEST_CHUNK, max(_BITS, (size - 1).bit_length())), (size // _MOST_CHUNKS).bit_length())


def _touched(extents: list[Extent], bits: int) -> set[int]:
    """The chunks that have data."""
    return {number for offset, length in extents for number in range(offset >> bits, (offset + length - 1 >> bits) + 1)}


def _straight(extents: list[Extent], sources: list[int], start: int, stop: int) -> int | None:
    """Where in the archive the whole chunk lies in whole blocks, if it does."""
    number = bisect_right(extents, (start, 1 << 63)) - 1
    if number < 0:
        return None
    offset, length = extents[number]
    where = sources[number] + start - offset
    return where if offset + length >= stop and not where % _BLOCK else None


def _assemble(
    image: BinaryIO, tar: BinaryIO, at: int, extents: list[Extent], sources: list[int], start: int, stop: int
) -> None:
    number = max(bisect_right(extents, (start, 1 << 63)) - 1, 0)
    while number < len(extents) and extents[number][0] < stop:
        offset, length = extents[number]
        begin, finish = max(offset, start), min(offset + length, stop)
        while begin < finish:
            data = os.pread(tar.fileno(), min(finish - begin, 1 << 20), sources[number] + begin - offset)
            image.seek(at + begin - start)
            image.write(data)
            begin += len(data)
        number += 1


def _attributes(xattrs: Attributes, path: bytes) -> bytes:
    """An inode's inline attributes, with their header of twelve bytes."""
    result = bytearray(12)
    for name, value in xattrs:
        index, rest = _ACLS.get(name, 0), b""
        for prefix, number in _PREFIXES if not index else ():
            if name.startswith(prefix):
                index, rest = number, name[len(prefix) :]
        result += struct.pack("<BBH", len(rest), index, len(value)) + rest + value
        result += bytes(-len(result) % 4)
    if len(result) // 4 - 2 > 0xFFFF:
        raise invalid(f"{shown(path)}: its attributes are too long")
    return bytes(result)


def _directories(root: Directory, at: int, inodes: int) -> tuple[bytes, bytearray, bytearray, int]:
    """The root's inode, the other directories' inodes, which begin at `at`, and the directories' blocks behind them;
    and how many inodes there are then."""
    found: list[Directory] = [root]
    for each in found:  # It grows meanwhile.
        found += [child for child in each.children.values() if isinstance(child, Directory)]
    attributes: list[bytes] = []
    numbers: dict[int, int] = {id(root): _ROOT // _SLOT}
    for each in found:
        xattrs = (*each.xattrs, _OPAQUE) if each.opaque else each.xattrs
        attributes.append(_attributes(xattrs, each.path) if xattrs else b"")
        if each is not root:
            numbers[id(each)] = at // _SLOT
            at += -(-(_INODE.size + len(attributes[-1])) // _SLOT) * _SLOT
    if len(attributes[0]) > _FILES - _ROOT - _INODE.size:
        raise invalid("the attributes of the root are too long")
    at += -at % _BLOCK
    head, result, blocks = b"", bytearray(), bytearray()
    for number, (each, inline) in enumerate(zip(found, attributes, strict=True)):
        where = at + len(blocks) >> _BITS
        size = _entries(each, numbers, blocks)
        links = 2 + sum(isinstance(child, Directory) for child in each.children.values())
        seconds, rest = divmod(each.mtime, _NS)
        inode = _INODE.pack(
            _PLAIN, len(inline) // 4 - 2 if inline else 0, each.mode | stat.S_IFDIR, 0, size, where,
            inodes + number + 1 & 0xFFFFFFFF, each.uid, each.gid, seconds, rest, links,
        )  # fmt: skip
        if each is root:
            head = inode + inline
        else:
            result += inode + inline
            result += bytes(-len(result) % _SLOT)
    result += bytes(-len(result) % _BLOCK)
    return head, result, blocks, inodes + len(found)


def _entries(directory: Directory, numbers: dict[int, int], blocks: bytearray) -> int:
    """Add a directory's blocks: in each the fixed parts of its entries, then their names, sorted. Returns its size."""
    children = directory.children
    begin = len(blocks)
    own = numbers[id(directory)] << 3 | FT_DIRECTORY
    above = numbers[id(directory.parent)] << 3 | FT_DIRECTORY
    pack = _DIRENT.pack
    names: list[bytes] = []
    used = 0
    for name in (*sorted([*children, b".", b".."]), None):
        if name is not None and used + _DIRENT.size + len(name) <= _BLOCK:
            names.append(name)
            used += _DIRENT.size + len(name)
            continue
        blocks += bytes(-len(blocks) % _BLOCK)
        offset = _DIRENT.size * len(names)
        for each in names:
            child = children.get(each)
            if child is None:
                token = own if each == b"." else above
            elif isinstance(child, int):
                token = child if child != WHITEOUT else _FILES // _SLOT << 3 | FT_CHARACTER
            else:
                token = numbers[id(child)] << 3 | FT_DIRECTORY
            blocks += pack(token >> 3, offset, token & 7)
            offset += len(each)
        blocks += b"".join(names)
        if name is not None:
            names, used = [name], _DIRENT.size + len(name)
    size = len(blocks) - begin
    blocks += bytes(-len(blocks) % _BLOCK)
    return size


def root_attributes(path: str) -> tuple[int, int, int]:
    """Mode, owner and group of an image's root, without a mount."""
    with open(path, "rb") as file:
        _, _, mode, _, _, _, _, uid, gid, *_ = _INODE.unpack(os.pread(file.fileno(), _INODE.size, _ROOT))
    return stat.S_IMODE(mode), uid, gid
