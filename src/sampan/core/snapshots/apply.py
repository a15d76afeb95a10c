"""The unpacked body of a layer: its files in a directory.

`tree` has resolved every name, so each look-up is openat2 inside the layer's directory of a path without a link, and
RESOLVE_NO_SYMLINKS holds the kernel to that: nothing that the archive made leads out, nor to anywhere else within.
Whiteouts become character devices 0/0 and opaque directories carry an attribute, as overlayfs wants them
(Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from sampan.core.snapshots.intake import intake
from sampan.core.snapshots.tarwalk import Entry, Readable, TarWalk, corrupt, invalid
from sampan.core.snapshots.tree import FT_BLOCK, FT_FIFO, FT_REGULAR, FT_SYMLINK, Attributes, Directory, Tree
from sampan.errors import ResourceExhausted
from sampan.linux.fs import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, of_descriptor, openat2
from sampan.linux.trees import remove_tree
from sampan.oci.digest import Digest

_PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OPAQUE = (b"trusted.overlay.opaque", b"y")


def apply_layer(stream: Readable, directory: str, *, literal: bool = False) -> tuple[int, Digest]:
    """Apply an uncompressed tar into an existing directory; returns the bytes of file data and the stream's digest.
    `literal`: as of `Tree`; the archive's end must be marked, too.

    Raises DataCorrupt (truncated, no tar), InvalidArgument (an entry that leads out of the layer), ResourceExhausted.
    """
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with translated(), intake(stream) as source:
            walk = TarWalk(source)
            body = _Unpacked(root, walk)
            try:
                tree = Tree(body, literal=literal)
                for entry in walk:
                    tree.add(entry)
                if literal and not walk.whole:
                    raise corrupt("the archive's end is missing")
                body.finish(tree.root)
            finally:
                body.close()
            return tree.size, source.finish()
    finally:
        os.close(root)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """The kernel's errors in making a layer, as ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("error processing tar file: no space left on device") from error
        place = f"{error.filename}: " if isinstance(error.filename, str) and error.filename.isprintable() else ""
        raise invalid(f"{place}{(error.strerror or str(error)).lower()}") from error


class _Unpacked:
    """A `tree.Body`. Directories get what they are at last: all that is made in them changes their times."""

    def __init__(self, root: int, walk: TarWalk) -> None:
        self._root = root
        self._walk = walk
        self._numbers = 0
        self._parent = -1
        self._parent_path: bytes | None = None

    def close(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._parent_path = -1, None

    def _open(self, directory: Directory) -> int:
        """Kept for the next entry, which is most often beside this one."""
        if self._parent_path != directory.path:
            self.close()
            self._parent = self._opened(directory)
            self._parent_path = directory.path
        return self._parent

    def _opened(self, directory: Directory) -> int:
        path = os.fsdecode(directory.path) or "."
        return openat2(self._root, path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_PLAIN)

    def make_directory(self, directory: Directory) -> None:
        os.mkdir(directory.path.rpartition(b"/")[2], 0o700, dir_fd=self._open(directory.parent))

    def make_file(self, parent: Directory, name: bytes, entry: Entry, xattrs: Attributes, kind: int) -> int:
        at = self._open(parent)
        self._numbers += 1
        if kind == FT_REGULAR:
            file = os.open(name, _NEW, 0o600, dir_fd=at)
            try:
                write_data(file, self._walk, entry)
                os.fchown(file, entry.uid, entry.gid)
                os.fchmod(file, entry.mode & 0o7777)  # After the change of owner, which clears set-id bits.
                if xattrs:
                    set_xattrs(of_descriptor(file).encode(), xattrs, follow=True)
                os.utime(file, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(file)
            return self._numbers << 3 | kind
        if kind == FT_SYMLINK:
            os.symlink(entry.target, name, dir_fd=at)
        elif kind == FT_FIFO:
            os.mkfifo(name, 0o600, dir_fd=at)
        else:
            device = stat.S_IFBLK if kind == FT_BLOCK else stat.S_IFCHR
            os.mknod(name, device | 0o600, os.makedev(entry.major, entry.minor), dir_fd=at)
        os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
        if kind != FT_SYMLINK:
            os.chmod(name, entry.mode & 0o7777, dir_fd=at)
        if xattrs:
            set_xattrs(of_descriptor(at).encode() + b"/" + name, xattrs, follow=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=at, follow_symlinks=False)
        return self._numbers << 3 | kind

    def make_link(self, parent: Directory, name: bytes, token: int, target: tuple[Directory, bytes]) -> None:
        source = self._opened(target[0])
        try:
            os.link(target[1], name, src_dir_fd=source, dst_dir_fd=self._open(parent), follow_symlinks=False)
        finally:
            os.close(source)

    def make_whiteout(self, parent: Directory, name: bytes) -> None:
        at = self._open(parent)
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=at)
        os.utime(name, ns=(0, 0), dir_fd=at, follow_symlinks=False)

    def remove(self, parent: Directory, name: bytes, present: Directory | int) -> None:
        at = self._open(parent)
        if isinstance(present, Directory):
            remove_tree(f"{of_descriptor(at)}/{os.fsdecode(name)}")
            if self._parent_path is not None and (self._parent_path + b"/").startswith(present.path + b"/"):
                self.close()
        else:
            os.unlink(name, dir_fd=at)

    def finish(self, root: Directory) -> None:
        found = [root]
        for each in found:  # It grows meanwhile.
            found += [child for child in each.children.values() if isinstance(child, Directory)]
        # From below: a directory may be closed to who made it, where that is not root.
        for each in reversed(found):
            at = self._opened(each)
            try:
                path = of_descriptor(at)
                os.chown(path, each.uid, each.gid)
                os.chmod(path, each.mode)
                xattrs = (*each.xattrs, _OPAQUE) if each.opaque else each.xattrs
                if xattrs:
                    set_xattrs(path.encode(), xattrs, follow=True)
                os.utime(path, ns=(each.mtime, each.mtime))
            finally:
                os.close(at)


def write_data(file: int, walk: TarWalk, entry: Entry) -> None:
    """The data of the walk's current entry into an open file, with its holes."""
    if entry.extents is None:
        for data in walk.data():
            _write_all(file, data)
        return
    # A zero of length after the last, so that whatever comes has its place.
    extents = iter([*entry.extents, (entry.size, 0)])
    at, left = next(extents)
    os.lseek(file, at, os.SEEK_SET)
    for data in walk.data():
        rest = memoryview(data)
        while rest:
            _write_all(file, rest[:left])
            done = min(left, len(rest))
            rest, left = rest[done:], left - done
            if not left:
                at, left = next(extents)
                os.lseek(file, at, os.SEEK_SET)
    os.ftruncate(file, entry.size)


def _write_all(file: int, data: bytes | memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def set_xattrs(path: bytes, xattrs: Attributes, *, follow: bool) -> None:
    """What the file system, or who this is, does not allow is left out."""
    for name, value in xattrs:
        try:
            os.setxattr(path, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
