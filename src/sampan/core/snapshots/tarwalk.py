"""One reader of a layer's tar, for both bodies: pax, GNU, star, ustar and v7 headers as a stream of entries.

Specifications: pax interchange format (POSIX.1-2017, `pax`), GNU tar's manual (Basic Tar, Sparse Formats), tar(5).
Names, targets and attributes are bytes: an archive says nothing of their encoding. What a name means in a layer is
`tree`'s to say; here it is only read, with limits against archives that are made to exhaust who reads them.

Python's tarfile takes four times as long for an entry, decodes names, and keeps to itself where holes are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol
from zlib import adler32

from sampan.errors import DataCorrupt, InvalidArgument

BLOCK = 512
MAX_ENTRIES = 4_000_000
"""Of one layer. The largest images have some hundred thousand."""
MAX_HEADER = 1 << 20
"""Bytes of a pax header or of a long name, as Go's reader has it."""
MAX_FILE = 1 << 43
"""Bytes of a file, holes counted: 8 TiB, within what ext4 has."""
MAX_EXTENTS = 1 << 18
_MAX_GLOBALS = 1 << 20
_CHUNK = 1 << 20
_ZERO = bytes(BLOCK)
_ADLER = 65521
_HEADER = struct.Struct("100s8s8s8s12s12s8sc355x")
"""What every entry has. The others are taken from the block when they say something:"""
_TARGET, _MAGIC, _MAJOR, _MINOR = slice(157, 257), slice(257, 263), slice(329, 337), slice(337, 345)
_PREFIX, _STAR_PREFIX, _STAR = slice(345, 500), slice(345, 476), slice(508, 512)
_ENDS = (b"\0", b" ")
_BLANK = b"        "
_XATTR = b"SCHILY.xattr."
_NS = 1_000_000_000

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_OLD_REGULAR, _CONTIGUOUS, _GNU_SPARSE = b"\0", b"7", b"S"
_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"X", b"g"
_WITHOUT_DATA = frozenset((HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

Extent = tuple[int, int]
"""Where a piece of a file's data lies in the file, and its length."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def corrupt(what: str) -> DataCorrupt:
    return DataCorrupt(f"error processing tar file: {what}")


def invalid(what: str) -> InvalidArgument:
    return InvalidArgument(f"error processing tar file: {what}")


def shown(name: bytes) -> str:
    """A name in a message: one line, whatever it holds."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


class Entry:
    """`kind`: one of this module's types, or another that the archive gives. `size`: of the file, in bytes; `stored`:
    of its data in the archive, which begins at `offset` of the stream. `extents`: where the data lies in a file with
    holes, in order; None where there are none. `mtime`: nanoseconds since the epoch. `xattrs`: names with values."""

    __slots__ = (
        "extents", "gid", "kind", "major", "minor", "mode", "mtime", "name", "offset", "size", "stored", "target",
        "uid", "xattrs",
    )  # fmt: skip
    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    stored: int
    offset: int
    target: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes] | None
    extents: list[Extent] | None


class TarWalk:
    """The entries of a tar stream, one after the other, each once. `data` gives the current entry's data; what was not
    asked for is passed over. At the archive's end the stream may go on: that is the caller's to read.

    Raises DataCorrupt (truncated, no tar) and InvalidArgument (beyond a limit).
    """

    def __init__(self, stream: Readable, *, max_entries: int = MAX_ENTRIES) -> None:
        self._read = stream.read
        self._buffer = b""
        self._at = 0
        self._base = 0
        """Where in the stream the buffer begins."""
        self._left = 0
        """Bytes of the current entry's data, with its padding, that are not read."""
        self._unread = 0
        """The same without the padding."""
        self._max_entries = max_entries
        self.whole = False
        """The archive's end was marked, and not just where the stream ended."""
        self._globals: dict[bytes, bytes] = {}
        self._numbers: dict[bytes, int] = {}

    @property
    def offset(self) -> int:
        return self._base + self._at

    # --- The stream -------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Read more behind what is in the buffer. False at the end of the stream."""
        data = self._read(_CHUNK)
        self._base += self._at
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        return bool(data)

    def _block(self) -> bytes:
        """The next block; shorter or empty at the end of the stream."""
        while len(self._buffer) - self._at < BLOCK and self._fill():
            pass
        block = self._buffer[self._at : self._at + BLOCK]
        self._at += len(block)
        return block

    def _pass_over(self) -> None:
        """Go to the end of the current entry. Its padding may be missing where the stream ends there, as Go has it."""
        left = self._left
        while (have := len(self._buffer) - self._at) < left:
            left -= have
            self._unread -= have
            self._at = len(self._buffer)
            if not self._fill():
                if self._unread > 0:
                    raise corrupt("unexpected EOF")
                left = 0
        self._at += left
        self._left = self._unread = 0

    def data(self) -> Iterator[bytes]:
        """The current entry's data, as it lies in the archive."""
        while self._unread:
            if self._at == len(self._buffer) and not self._fill():
                raise corrupt("unexpected EOF")
            piece = self._buffer[self._at : self._at + min(self._unread, _CHUNK)]
            self._at += len(piece)
            self._left -= len(piece)
            self._unread -= len(piece)
            yield piece

    def _small(self, size: int) -> bytes:
        """The data of a header that is about the next entry."""
        if size > MAX_HEADER:
            raise invalid(f"a header of {size} bytes")
        return b"".join(self.data())

    def _begin(self, size: int) -> None:
        self._unread = size
        self._left = size + -size % BLOCK

    # --- Headers ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Entry]:
        count = 0
        extra: dict[bytes, bytes] = {}
        holes: list[bytes] = []
        unpack, numbers = _HEADER.unpack, self._numbers
        while True:
            at = self._at + self._left
            if at + BLOCK <= len(self._buffer):  # As nearly always: what follows is there.
                block = self._buffer[at : at + BLOCK]
                self._at = at + BLOCK
                self._left = self._unread = 0
            else:
                self._pass_over()
                block = self._block()
            if block == _ZERO or not block:
                if extra:
                    raise corrupt("a header without its entry")
                if block and self._block() not in (_ZERO, b""):
                    raise corrupt("invalid tar header")
                self.whole = bool(block)
                return
            if len(block) != BLOCK:
                raise corrupt("unexpected EOF")
            name, mode, uid, gid, size_field, mtime_field, check, kind = unpack(block)
            # The sum of all bytes, with blanks for the sum itself. Adler-32 has it in its lower half.
            found = numbers.get(check)
            if found is None:
                found = self._number(check)
            if ((adler32(block) & 0xFFFF) - 1 - sum(check) + 256 - found) % _ADLER and not _signed(block, found):
                raise corrupt("invalid tar header")
            size = _octal(size_field)
            if size < 0:
                size = self._number(size_field)
                if size < 0:
                    raise corrupt("invalid tar header")
            if kind in _HEADERS:
                count += 1
                if count > 4 * self._max_entries:
                    raise invalid(f"more than {self._max_entries} entries")
                self._begin(size)
                text = self._small(size)
                if kind == _LONG_NAME:
                    extra[b"path"] = text.partition(b"\0")[0]
                elif kind == _LONG_LINK:
                    extra[b"linkpath"] = text.partition(b"\0")[0]
                elif kind == _PAX_GLOBAL:
                    self._globals.update(_records(text, []))
                    if sum(len(key) + len(value) for key, value in self._globals.items()) > _MAX_GLOBALS:
                        raise invalid("too many global headers")
                else:
                    extra.update(_records(text, holes))
                continue
            count += 1
            if count > self._max_entries:
                raise invalid(f"more than {self._max_entries} entries")
            entry = Entry()
            entry.name = name = name.partition(b"\0")[0]
            if block[345] and block[_MAGIC] == b"ustar\0":
                # star's own form has a shorter prefix, and times behind it.
                before = block[_STAR_PREFIX if block[_STAR] == b"tar\0" else _PREFIX].partition(b"\0")[0]
                entry.name = before + b"/" + name
            entry.kind = kind
            if kind == _CONTIGUOUS:
                entry.kind = REGULAR
            elif kind == _OLD_REGULAR:
                entry.kind = DIRECTORY if name.endswith(b"/") else REGULAR
            number = numbers.get(mode)
            entry.mode = self._number(mode) if number is None else number
            number = numbers.get(uid)
            entry.uid = self._number(uid) if number is None else number
            number = numbers.get(gid)
            entry.gid = self._number(gid) if number is None else number
            number = _octal(mtime_field)
            entry.mtime = (self._number(mtime_field) if number < 0 else number) * _NS
            entry.target = b""
            entry.major = entry.minor = 0
            if kind in _LINKS:
                entry.target = block[_TARGET].partition(b"\0")[0]
            elif kind in _DEVICES:
                entry.major, entry.minor = self._number(block[_MAJOR]), self._number(block[_MINOR])
            entry.size = size
            entry.xattrs = entry.extents = None
            if extra or self._globals:
                self._extend(entry, self._globals | extra if self._globals else extra)
            if entry.kind in _WITHOUT_DATA:
                entry.size = 0
            if entry.size > MAX_FILE:
                raise invalid(f"{shown(entry.name)}: a file of {entry.size} bytes")
            entry.stored = stored = entry.size
            self._unread, self._left = stored, stored + -stored % BLOCK
            if kind == _GNU_SPARSE:
                self._old_sparse(entry, block)
            elif extra and entry.kind == REGULAR and _is_sparse(extra):
                self._pax_sparse(entry, extra, holes)
            entry.offset = self._base + self._at
            if extra:
                extra, holes = {}, []
            yield entry

    def _number(self, field: bytes) -> int:
        """Octal, or with the first bit set two's complement in the others."""
        known = self._numbers.get(field)
        if known is not None:
            return known
        if field[0] & 0x80:
            value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
            if field[0] & 0x40:
                value -= 1 << (8 * len(field) - 1)
        else:
            text = field.strip(b" \0").partition(b"\0")[0].rstrip()
            try:
                value = int(text, 8) if text else 0
            except ValueError:
                raise corrupt("invalid tar header") from None
        if len(self._numbers) > 4096:
            self._numbers.clear()
        self._numbers[field] = value
        return value

    @staticmethod
    def _extend(entry: Entry, pax: dict[bytes, bytes]) -> None:
        """What pax headers say in the place of the header's own."""
        xattrs: dict[bytes, bytes] = {}
        for key, value in pax.items():
            if key.startswith(_XATTR):
                xattrs[key[len(_XATTR) :]] = value
            elif not value:
                continue  # As if it had not been given.
            elif key == b"mtime":
                entry.mtime = nanoseconds(value)
            elif key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.target = value
            elif key == b"size":
                entry.size = _decimal(value)
            elif key == b"uid":
                entry.uid = _decimal(value)
            elif key == b"gid":
                entry.gid = _decimal(value)
        if xattrs:
            entry.xattrs = xattrs

    # --- Files with holes -------------------------------------------------------------------------

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU's type S: four extents in the header, the others in blocks behind it."""
        entry.kind = REGULAR
        size = self._number(block[483:495])
        extents: list[Extent] = []
        at, count, more = 386, 4, block[482]
        # The blocks of extents are not counted in the size.
        self._left = self._unread = 0
        while True:
            for where in range(at, at + 24 * count, 24):
                if block[where] == 0:
                    break
                extents.append((self._number(block[where : where + 12]), self._number(block[where + 12 : where + 24])))
            if not more:
                break
            if len(extents) > MAX_EXTENTS:
                raise invalid(f"{shown(entry.name)}: more than {MAX_EXTENTS} extents")
            block = self._block()
            if len(block) != BLOCK:
                raise corrupt("unexpected EOF")
            at, count, more = 0, 21, block[504]
        self._begin(entry.stored)
        _sparse(entry, size, extents)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes], holes: list[bytes]) -> None:
        """GNU's three ways to say it with pax headers: pairs of records, one record, and a map before the data."""
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        size = _decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"")
        if pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._sparse_map(entry)
        elif b"GNU.sparse.map" in pax:
            text = pax[b"GNU.sparse.map"]
            numbers = [_decimal(each) for each in text.split(b",")] if text else []
        else:
            numbers = [_decimal(each) for each in holes]
        if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
            raise invalid(f"{shown(entry.name)}: an invalid map of holes")
        _sparse(entry, size, list(zip(numbers[::2], numbers[1::2], strict=True)))

    def _sparse_map(self, entry: Entry) -> list[int]:
        """Decimal numbers, each on its line: how many extents there are, and these. They fill whole blocks."""
        text = b""
        numbers: list[int] = []
        wanted = 1
        while len(numbers) < wanted:
            if self._unread < BLOCK:
                raise corrupt("unexpected EOF")
            block = self._block()
            if len(block) != BLOCK:
                raise corrupt("unexpected EOF")
            self._left -= BLOCK
            self._unread -= BLOCK
            entry.stored -= BLOCK
            *lines, text = (text + block).split(b"\n")
            if len(text) > 32 and text.strip(b"\0"):
                raise corrupt("an invalid map of holes")
            numbers += [_decimal(each) for each in lines[: wanted - len(numbers) if wanted > 1 else len(lines)]]
            if numbers and wanted == 1:
                wanted = 1 + 2 * numbers[0]
                del numbers[wanted:]
                if numbers[0] > MAX_EXTENTS:
                    raise invalid(f"{shown(entry.name)}: more than {MAX_EXTENTS} extents")
        return numbers[1:]


_LINKS, _DEVICES = frozenset((HARD_LINK, SYMLINK)), frozenset((CHARACTER, BLOCK_DEVICE))
_HEADERS = frozenset((_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX, _PAX_GLOBAL))


def _octal(field: bytes) -> int:
    """A number of eleven digits and an end, as nearly all sizes and times are; less than 0: it has to be looked at."""
    if field[11:] in _ENDS and field.isascii():
        try:
            return int(field[:11], 8)
        except ValueError:
            pass
    return -1


def _signed(block: bytes, found: int) -> bool:
    """Some wrote the sum of signed bytes."""
    plain = block[:148] + _BLANK + block[156:]
    return sum(each - 256 if each > 127 else each for each in plain) == found


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise corrupt("invalid tar header")
    return int(text)


def nanoseconds(text: bytes) -> int:
    """A pax time: seconds, perhaps with a fraction, perhaps before the epoch."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole.removeprefix(b"-")
    if not (digits.isdigit() and len(digits) < 20 and (not fraction or fraction.isdigit())):
        raise corrupt("invalid tar header")
    value = int(digits) * _NS + int((fraction + b"0" * 9)[:9])
    return -value if negative else value


def _records(text: bytes, holes: list[bytes]) -> dict[bytes, bytes]:
    """The records of a pax header: `length keyword=value` and a line's end. `holes` gets the numbers of GNU's oldest
    way to say where they are, whose keywords come again and again."""
    result: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        blank = text.find(b" ", at, at + 12)
        if blank < 0:
            raise corrupt("invalid tar header")
        end = at + _decimal(text[at:blank])
        record = text[blank + 1 : end - 1]
        key, equals, value = record.partition(b"=")
        if not equals or not key or end > len(text) or text[end - 1 : end] != b"\n":
            raise corrupt("invalid tar header")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            holes.append(value)
        result[key] = value
        at = end
    return result


def _is_sparse(pax: dict[bytes, bytes]) -> bool:
    return b"GNU.sparse.size" in pax or b"GNU.sparse.realsize" in pax


def _sparse(entry: Entry, size: int, extents: list[Extent]) -> None:
    """Take over what was found, if it can be: in order, within the file, and as much as there is data."""
    at = 0
    for offset, length in extents:
        if offset < at or length < 0 or offset + length > size:
            raise invalid(f"{shown(entry.name)}: an invalid map of holes")
        at = offset + length
    if sum(length for _, length in extents) != entry.stored or size > MAX_FILE:
        raise invalid(f"{shown(entry.name)}: an invalid map of holes")
    entry.size = size
    entry.extents = [each for each in extents if each[1]]
