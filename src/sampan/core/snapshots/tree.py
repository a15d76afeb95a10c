"""What a layer's entries mean, for both bodies: image-spec layer.md, and what overlayfs wants instead of whiteouts.

A tree of names is kept while the entries come, so that every name is resolved here, and none by a file system that
would follow what the archive has put there before. A link that the archive made is followed inside the layer, as Docker
does; `..` in an entry's name is refused. The last entry of a name counts. A whiteout hides what is below and nothing of
its own layer: beside a directory it makes that opaque. What an archive does not tell (directories that it only names
things in) is root's, 0755, of the epoch.
"""

from __future__ import annotations

import struct
from typing import Protocol

from sampan.core.snapshots.tarwalk import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    MAX_ENTRIES,
    REGULAR,
    SYMLINK,
    Entry,
    invalid,
    shown,
)

FT_REGULAR, FT_DIRECTORY, FT_CHARACTER, FT_BLOCK, FT_FIFO, FT_SYMLINK = 1, 2, 3, 4, 5, 7
"""The kernel's numbers, as directories hold them."""
_TYPES = {REGULAR: FT_REGULAR, CHARACTER: FT_CHARACTER, BLOCK_DEVICE: FT_BLOCK, FIFO: FT_FIFO, SYMLINK: FT_SYMLINK}
WHITEOUT = FT_CHARACTER
"""The token of every whiteout: number 0."""

_WHITEOUT = b".wh."
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_ODD = (b"", b".")
"""How a last part begins that may be nothing, a dot or two, or a whiteout."""
_LONGEST_NAME = 255
_LONGEST_PATH = 4095
_LONGEST_ATTRIBUTES = 192 << 10
_MOST_ATTRIBUTES = 128 << 20
_MOST_EXTENTS = 1 << 20
"""Of all of a layer: a global header can give the same to every entry, and a map of holes is short to write."""
_MOST_LINKS = 40
"""As the kernel follows in one look-up."""
_NO_ID = 0xFFFFFFFF
_MAX_TIME = (1 << 40) * 1_000_000_000

Attributes = tuple[tuple[bytes, bytes], ...]


class Directory:
    """`path`: from the layer's root, without links. `mtime`: nanoseconds."""

    __slots__ = ("children", "gid", "mode", "mtime", "opaque", "parent", "path", "uid", "xattrs")

    def __init__(self, path: bytes, parent: Directory | None) -> None:
        self.path = path
        self.parent = parent or self
        self.children: dict[bytes, Directory | int] = {}
        self.mode, self.uid, self.gid, self.mtime = 0o755, 0, 0, 0
        self.xattrs: Attributes = ()
        self.opaque = False


class Body(Protocol):
    """What is made of the entries as they come. A token stands for a file: its type in the lowest three bits, and above
    them a number of the body's own."""

    def make_directory(self, directory: Directory) -> None: ...

    def make_file(self, parent: Directory, name: bytes, entry: Entry, xattrs: Attributes, kind: int) -> int:
        """Anything but a directory; returns its token. For a regular file the walk stands at its data."""

    def make_link(self, parent: Directory, name: bytes, token: int, target: tuple[Directory, bytes]) -> None: ...

    def make_whiteout(self, parent: Directory, name: bytes) -> None: ...

    def remove(self, parent: Directory, name: bytes, present: Directory | int) -> None:
        """Before something else takes its name."""


class Tree:
    """Raises InvalidArgument for what can't be in a layer."""

    def __init__(self, body: Body, *, max_nodes: int = MAX_ENTRIES, literal: bool = False) -> None:
        """`literal`: the archive is no layer. What would be a whiteout is a file, overlayfs's attributes are any."""
        self.root = Directory(b"", None)
        self.size = 0
        """Bytes of file data."""
        self._body = body
        self._nodes = 0
        self._max_nodes = max_nodes
        self._literal = literal
        self._known: dict[bytes, Directory] = {}
        """Where paths as they are spelled lead to, links followed."""
        self._targets: dict[int, bytes] = {}
        self._attributes = self._extents = 0

    def add(self, entry: Entry) -> None:
        if entry.xattrs or entry.extents:
            self._weigh(entry)
        path = entry.name
        head, _, name = path.rpartition(b"/")
        parent = self._known.get(head)
        if parent is None or name[:1] in _ODD or b"\0" in name:  # Else there is nothing to be cleaned.
            path = _clean(path)
            if not path:
                if entry.kind == DIRECTORY:
                    self._describe(self.root, entry)
                return
            head, _, name = path.rpartition(b"/")
            parent = self._known.get(head)
            if parent is None:
                parent = self._directory(head)
        if len(name) > _LONGEST_NAME or len(parent.path) + len(name) >= _LONGEST_PATH:
            raise invalid(f"a name of {len(path)} bytes: file name too long")
        if name.startswith(_WHITEOUT) and not self._literal:
            self._add_whiteout(parent, name)
            return
        present = parent.children.get(name)
        kind = entry.kind
        if kind == DIRECTORY:
            if not isinstance(present, Directory):
                present = self._make(parent, name, present)
            self._describe(present, entry)
        elif kind == HARD_LINK:
            self._add_link(parent, name, entry, present)
        else:
            kind_number = _TYPES.get(kind)
            if kind_number is None:
                raise invalid(f"{shown(path)}: unknown type {kind!r}")
            check_entry(entry)
            if present is not None:
                self._remove(parent, name, present)
            xattrs = usable(entry, kind_number, overlay=self._literal) if entry.xattrs else ()
            token = self._body.make_file(parent, name, entry, xattrs, kind_number)
            if kind == SYMLINK:
                self._targets[token] = entry.target
            else:
                self.size += entry.size
            parent.children[name] = token

    def _describe(self, directory: Directory, entry: Entry) -> None:
        check_entry(entry)
        directory.mode, directory.uid, directory.gid = entry.mode & 0o7777, entry.uid, entry.gid
        directory.mtime = entry.mtime
        directory.xattrs = usable(entry, FT_DIRECTORY, overlay=self._literal) if entry.xattrs else ()

    def _weigh(self, entry: Entry) -> None:
        self._extents += len(entry.extents or ())
        self._attributes += sum(map(len, entry.xattrs.values())) if entry.xattrs else 0
        if self._extents > _MOST_EXTENTS or self._attributes > _MOST_ATTRIBUTES:
            raise invalid("too many attributes or holes in all")

    def _add_link(self, parent: Directory, name: bytes, entry: Entry, present: Directory | int | None) -> None:
        target = _clean(entry.target)
        head, _, last = target.rpartition(b"/")
        where = self._directory(head, make=False)
        token = where.children.get(last)
        if token is None or isinstance(token, Directory) or token == WHITEOUT:
            raise invalid(f"{shown(entry.name)}: no file to be a hard link to: {shown(entry.target)}")
        if token == present:
            return  # It is a name of that file already.
        if present is not None:
            if isinstance(present, Directory) and (where.path + b"/").startswith(present.path + b"/"):
                raise invalid(f"{shown(entry.name)}: a hard link in the place of what it is in")
            self._remove(parent, name, present)
        self._body.make_link(parent, name, token, (where, last))
        parent.children[name] = token

    def _add_whiteout(self, parent: Directory, name: bytes) -> None:
        if name == _OPAQUE:
            parent.opaque = True
            return
        if name.startswith(_AUFS):
            return  # Bookkeeping of a file system that is no more.
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise invalid(f"invalid whiteout {shown(name)!r}")
        present = parent.children.get(hidden)
        if isinstance(present, Directory):
            present.opaque = True
        elif present is None:
            self._count()
            self._body.make_whiteout(parent, hidden)
            parent.children[hidden] = WHITEOUT

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > self._max_nodes:
            raise invalid(f"more than {self._max_nodes} directories and whiteouts")

    def _make(self, parent: Directory, name: bytes, present: Directory | int | None) -> Directory:
        self._count()
        if len(name) > _LONGEST_NAME or len(parent.path) + len(name) >= _LONGEST_PATH:
            raise invalid("file name too long")
        if present is not None:
            self._remove(parent, name, present)
        made = Directory(b"%b/%b" % (parent.path, name) if parent.path else name, parent)
        made.opaque = present == WHITEOUT
        parent.children[name] = made
        self._body.make_directory(made)
        return made

    def _remove(self, parent: Directory, name: bytes, present: Directory | int) -> None:
        self._body.remove(parent, name, present)
        del parent.children[name]
        if isinstance(present, Directory) or present & 7 == FT_SYMLINK:
            self._known.clear()

    def _directory(self, path: bytes, *, make: bool = True) -> Directory:
        """The directory that a path leads to; what is missing of it is made."""
        at = self.root
        waiting = path.split(b"/")[::-1]
        followed = 0
        while waiting:
            part = waiting.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":  # Of a link's target; never out of the root.
                at = at.parent
                continue
            found = at.children.get(part)
            if isinstance(found, Directory):
                at = found
            elif found is None or found == WHITEOUT:
                if not make:
                    raise invalid(f"{shown(path)}: no such file or directory")
                at = self._make(at, part, found)
            elif found & 7 == FT_SYMLINK:
                followed += 1
                if followed > _MOST_LINKS:
                    raise invalid(f"{shown(path)}: too many levels of symbolic links")
                target = self._targets[found]
                if target.startswith(b"/"):
                    at = self.root
                waiting += target.split(b"/")[::-1]
            else:
                raise invalid(f"{shown(path)}: not a directory")
        self._known[path] = at
        return at


def _clean(name: bytes) -> bytes:
    if name.startswith(b"./"):
        name = name[2:]
    if name.endswith(b"/"):
        name = name[:-1]
    if b"//" in name or b"/." in name or name[:1] in (b"/", b".") or name[-1:] == b"/":
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise invalid(f"invalid name {shown(name)!r}: it leads out of the layer")
        name = b"/".join(parts)
    if b"\0" in name:
        raise invalid("a name with a null byte")
    return name


def check_entry(entry: Entry) -> None:
    """Raises InvalidArgument for what no file system could keep."""
    if not (0 <= entry.uid < _NO_ID and 0 <= entry.gid < _NO_ID and -_MAX_TIME < entry.mtime < _MAX_TIME):
        raise invalid(f"{shown(entry.name)}: an owner or a time out of range")
    if entry.kind == SYMLINK and not (0 < len(entry.target) <= _LONGEST_PATH and b"\0" not in entry.target):
        raise invalid(f"{shown(entry.name)}: an invalid link target")
    if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
        raise invalid(f"{shown(entry.name)}: an invalid device number")


def usable(entry: Entry, kind: int, *, overlay: bool = False) -> Attributes:
    """The attributes that a file of this kind can have. The others are left out, as by a file system that has not got
    them; so are overlayfs's own, unless `overlay`: the layer's meaning for it is ours to say."""
    assert entry.xattrs is not None
    result = tuple(
        (name, value)
        for name, value in sorted(entry.xattrs.items())
        if _is_usable(name, value, kind) and (overlay or not name.startswith(_OVERLAY))
    )
    if sum(len(name) + len(value) + 8 for name, value in result) > _LONGEST_ATTRIBUTES:
        raise invalid(f"{shown(entry.name)}: its attributes are too long")
    return result


def _is_usable(name: bytes, value: bytes, kind: int) -> bool:
    space, _, rest = name.partition(b".")
    if not rest or len(name) > _LONGEST_NAME or b"\0" in name or len(value) > 0xFFFF:
        return False
    if space == b"user":
        return kind in (FT_REGULAR, FT_DIRECTORY)
    if space == b"trusted":
        return True
    if space == b"security":
        # The kernel refuses to keep a capability that it can't read.
        return rest != b"capability" or (kind == FT_REGULAR and len(value) in (12, 20, 24))
    if name == b"system.posix_acl_access":
        return kind != FT_SYMLINK and _is_acl(value)
    return name == b"system.posix_acl_default" and kind == FT_DIRECTORY and _is_acl(value)


def _is_acl(value: bytes) -> bool:
    """Version 2 and more than the three entries that the mode has: linux/posix_acl_xattr.h."""
    return len(value) > 28 and (len(value) - 4) % 8 == 0 and struct.unpack_from("<I", value)[0] == 2
