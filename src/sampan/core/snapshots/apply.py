"""The unpacked body of a layer: a tar applied into a directory, by descriptors and never by paths.

Every look-up is openat2 inside the layer's directory, so no link that the archive made, nor `..`, nor an absolute name
leads out. What a name means follows image-spec layer.md: whiteouts become character devices 0/0 and opaque directories
carry an attribute, as overlayfs wants them (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from typing import BinaryIO

from sampan.errors import DataCorrupt, InvalidArgument, ResourceExhausted
from sampan.linux.fs import make_directories, of_descriptor, open_in_root

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def apply_layer(stream: BinaryIO, directory: str) -> int:
    """Apply an uncompressed tar into an existing directory; returns the bytes of file data.

    Raises DataCorrupt (truncated, no tar), InvalidArgument (an entry that leads out of the layer), ResourceExhausted.
    """
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    layer = _Layer(root)
    try:
        # Stream mode: nothing is sought in, and nothing of the archive is kept.
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # It would keep every header of a huge archive.
                layer.add(archive, member)
        layer.finish()
    except (tarfile.TarError, EOFError) as error:
        raise DataCorrupt(f"error processing tar file: {error}") from error
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("error processing tar file: no space left on device") from error
        place = f" {error.filename}" if error.filename else ""
        raise InvalidArgument(f"error processing tar file:{place}: {(error.strerror or str(error)).lower()}") from error
    finally:
        layer.close()
        os.close(root)
    return layer.size


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"error processing tar file: invalid name {name!r}: it leads out of the layer")
    if "\0" in name:
        raise InvalidArgument("error processing tar file: a name with a null byte")
    return parts


class _Layer:
    def __init__(self, root: int) -> None:
        self.size = 0
        self._root = root
        self._parent_path: str | None = None
        self._parent = -1
        self._directories: dict[tuple[str, ...], tuple[int, int]] = {}

    def close(self) -> None:
        self._forget_parent()

    def _forget_parent(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._parent_path = -1, None

    def _directory(self, path: str) -> int:
        """The descriptor of a directory, made with those above it if the archive never told of them. Kept for the next
        entry, which is most often beside this one."""
        if self._parent_path != path:
            self._forget_parent()
            self._parent = make_directories(self._root, path)
            self._parent_path = path
        return self._parent

    def add(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            if member.isdir():
                self._set_attributes(self._root, ".", member)
            return
        parent, name = self._directory("/".join(parts[:-1])), parts[-1]
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
            return
        self._make_room(parent, name, member)
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
            self._directories[tuple(parts)] = _times(member)
        elif member.isreg():
            self._write_file(archive, member, parent, name)
        elif member.islnk():
            self._link(parent, name, member)
            return  # The attributes are those of the file that it is a name of.
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            raise InvalidArgument(f"error processing tar file: {member.name}: unknown type {member.type!r}")
        self._set_attributes(parent, name, member)

    def _whiteout(self, parent: int, name: str) -> None:
        if name == _OPAQUE:
            os.setxattr(of_descriptor(parent), "trusted.overlay.opaque", b"y")
            return
        if name.startswith(_AUFS):
            return  # Bookkeeping of a file system that is no more.
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise InvalidArgument(f"error processing tar file: invalid whiteout {name!r}")
        _remove(parent, hidden)
        os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)

    def _make_room(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """The last entry of a name counts; a directory that comes again keeps its content."""
        try:
            present = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if member.isdir() and stat.S_ISDIR(present.st_mode):
            return
        _remove(parent, name)

    def _write_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        content = archive.extractfile(member)
        assert content is not None
        target = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
        )
        with content, os.fdopen(target, "wb", buffering=0) as file:
            left = member.size
            while left:
                data = content.read(min(left, _CHUNK))
                if not data:
                    raise DataCorrupt(f"error processing tar file: {member.name}: unexpected end of data")
                left -= len(data)
                if member.sparse is not None and not any(data):
                    file.seek(len(data), os.SEEK_CUR)
                else:
                    file.write(data)
            if member.sparse is not None:
                file.truncate(member.size)
        self.size += member.size

    def _link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        target = _parts(member.linkname)
        if not target:
            raise InvalidArgument(f"error processing tar file: {member.name}: invalid hard link to {member.linkname!r}")
        directory = open_in_root(self._root, "/".join(target[:-1]) or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    @staticmethod
    def _set_attributes(parent: int, name: str, member: tarfile.TarInfo) -> None:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            # After the change of owner, which clears set-id bits and file capabilities.
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
            attributes = [each for each in member.pax_headers if each.startswith(_XATTR)]
            if attributes:
                _set_xattrs(parent, name, member, attributes)
        os.utime(name, ns=_times(member), dir_fd=parent, follow_symlinks=False)

    def finish(self) -> None:
        """Directories get their times at last: everything made in them has changed them."""
        for parts, times in reversed(self._directories.items()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.utime(parts[-1], ns=times, dir_fd=self._directory("/".join(parts[:-1])), follow_symlinks=False)


def _set_xattrs(parent: int, name: str, member: tarfile.TarInfo, attributes: list[str]) -> None:
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        for each in attributes:
            attribute = each.removeprefix(_XATTR)
            if attribute.startswith("trusted.overlay."):
                continue  # The layer's meaning for overlayfs is ours to say.
            value = member.pax_headers[each].encode("utf-8", "surrogateescape")
            try:
                os.setxattr(of_descriptor(target), attribute, value)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                    raise
    finally:
        os.close(target)


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Access and modification time in nanoseconds, the latter for both; exactly, where a pax header says it."""
    text = member.pax_headers.get("mtime", "")
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        value = int(whole) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    else:
        value = int(member.mtime) * 1_000_000_000
    value = max(-(1 << 62), min(value, 1 << 62))
    return value, value


def _remove(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=parent)
