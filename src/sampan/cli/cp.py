"""`cp`: files between a container and this machine."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import posixpath
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.client.client import Client, quoted
from sampan.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

FAILURE = 1
_CHUNK = 1 << 18
_DIRECTORY, _LINK = 1 << 31, 1 << 27
_PLACE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parser(name: str) -> Parser:
    made = Parser(
        name, "[OPTIONS] CONTAINER:SRC DEST|-\n[OPTIONS] SRC|- CONTAINER:DEST\n[OPTIONS] CONTAINER:SRC CONTAINER:DEST",
        "Copy files between a container and here, or another container", 1,
    )  # fmt: skip
    made.add_argument("-a", "--archive", action="store_true", help="owned by the container's user")
    made.add_argument("-L", "--follow-link", action="store_true", help="what a link in SRC leads to, not the link")
    made.add_argument("-q", "--quiet", action="store_true", help="accepted; nothing is shown in any case")
    made.add_argument("source", metavar="SRC")
    made.add_argument("destination", metavar="DEST")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    source, destination = _split(flags.source), _split(flags.destination)
    if source[0] and destination[0]:
        _copy_across(context.client, source, destination, flags.follow_link, flags.archive)
    elif source[0]:
        _copy_out(context.client, *source, destination[1], flags.follow_link)
    elif destination[0]:
        _copy_in(context.client, source[1], *destination, flags.follow_link, flags.archive)
    else:
        raise InvalidArgument("must specify at least one container source or destination")
    return 0


def _split(text: str) -> tuple[str, str]:
    """The container, or nothing, and the path. A path here that has a colon begins with `/` or `.`."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or not container:
        return "", text
    return container, path if path.startswith("/") else f"/{path}"


@dataclass(frozen=True)
class _Found:
    """What lies in a container. `path`: where a link led."""

    path: str
    mode: int


def _look(client: Client, container: str, path: str, follow: bool) -> _Found | None:
    """None where there is nothing."""
    try:
        response = client.stream("HEAD", f"/containers/{container}/archive?path={quoted(path)}")
    except NotFound:
        # A HEAD has no message: say whether it is the container.
        client.call("GET", f"/containers/{container}/json")
        return None
    document = json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
    response.close()
    if follow and document["mode"] & _LINK:
        return _look(client, container, document["linkTarget"], False) or _Found(document["linkTarget"], 0)
    return _Found(path, document["mode"])


# --- Into a container -------------------------------------------------------------------------------


def _copy_in(client: Client, source: str, container: str, path: str, follow: bool, owner: bool) -> None:
    if source == "-":
        found = _look(client, container, path, True)
        if found is None or not found.mode & _DIRECTORY:
            raise InvalidArgument(f'destination "{container}:{path}" must be a directory')
        _put(client, container, found.path, sys.stdin.buffer, owner)
        return
    local = os.path.realpath(source) if follow else source
    try:
        status = os.stat(local) if source.endswith(("/", "/.")) else os.lstat(local)
    except OSError as error:
        raise NotFound(f"lstat {source}: {(error.strerror or '').lower()}") from None
    is_directory = stat.S_ISDIR(status.st_mode)
    if source.endswith("/") and not is_directory:
        raise InvalidArgument(f"{source}: not a directory")
    whole = "." if source.endswith("/.") or source == "." else os.path.basename(os.path.abspath(source))
    target, name = _target(client, container, path, whole, is_directory)
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(local, arcname=name)
        file.seek(0)
        _put(client, container, target, file, owner)


def _target(client: Client, container: str, path: str, name: str, is_directory: bool) -> tuple[str, str]:
    """The directory that an archive goes into, and by what name: `name` in a directory that is there, else the path's
    last part."""
    found = _look(client, container, path, True)
    if found is not None and found.mode & _DIRECTORY:
        return found.path, name
    if found is not None and is_directory:
        raise InvalidArgument("cannot copy directory")
    if path.endswith("/") and not is_directory:
        raise NotFound(f'destination directory "{path}" does not exist')
    target, name = posixpath.split((found.path if found is not None else path).rstrip("/"))
    return target or "/", name


def _put(client: Client, container: str, path: str, file: BinaryIO, owner: bool) -> None:
    client.call(
        "PUT", f"/containers/{container}/archive?path={quoted(path)}&noOverwriteDirNonDir=true",
        body=iter(lambda: file.read(_CHUNK), b""), headers={"Content-Type": "application/x-tar"}, copyUIDGID=owner,
    )  # fmt: skip


# --- Out of a container -----------------------------------------------------------------------------


def _copy_out(client: Client, container: str, path: str, destination: str, follow: bool) -> None:
    found = _look(client, container, path, follow)
    if found is None:
        raise NotFound(f"Could not find the file {path} in container {container}")
    with contextlib.closing(
        client.stream("GET", f"/containers/{container}/archive?path={quoted(found.path)}")
    ) as response:
        if destination == "-":
            for data in response.chunks():
                sys.stdout.buffer.write(data)
            return
        is_directory = bool(found.mode & _DIRECTORY)
        if os.path.isdir(destination):
            into, name = destination, None if path.endswith("/.") else posixpath.basename(path.rstrip("/")) or None
        else:
            if os.path.lexists(destination) and is_directory:
                raise InvalidArgument("cannot copy directory")
            if destination.endswith("/") and not is_directory:
                raise NotFound(f'destination directory "{destination}" must exist')
            into, name = os.path.split(os.path.abspath(destination))
            if not os.path.isdir(into):
                raise NotFound(f"invalid output path: directory {into} does not exist")
        reader = _Reader(response.chunks())
        with tarfile.open(fileobj=reader, mode="r|") as archive:  # type: ignore[call-overload]
            unpack(archive, into, name)
        while reader.read(_CHUNK):
            pass


def _copy_across(
    client: Client, source: tuple[str, str], destination: tuple[str, str], follow: bool, owner: bool
) -> None:  # fmt: skip
    """From one container into another, or into the same: nothing is unpacked here."""
    container, path = source
    found = _look(client, container, path, follow)
    if found is None:
        raise NotFound(f"Could not find the file {path} in container {container}")
    whole = "." if path.endswith("/.") else posixpath.basename(path.rstrip("/")) or "."
    target, name = _target(client, *destination, whole, bool(found.mode & _DIRECTORY))
    answer = client.stream("GET", f"/containers/{container}/archive?path={quoted(found.path)}")
    with contextlib.closing(answer) as response, tempfile.TemporaryFile() as file:
        reader = _Reader(response.chunks())
        with (
            tarfile.open(fileobj=reader, mode="r|") as archive,  # type: ignore[call-overload]
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as renamed,
        ):
            for entry in archive:
                entry.name = "/".join(_renamed(entry.name, name))
                if entry.islnk():
                    entry.linkname = "/".join(_renamed(entry.linkname, name))
                for key in ("path", "linkpath"):
                    entry.pax_headers.pop(key, None)
                renamed.addfile(entry, archive.extractfile(entry) if entry.isreg() else None)
        file.seek(0)
        _put(client, destination[0], target, file, owner)


class _Reader:
    """Pieces as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (more := next(self._chunks, b"")):
            self._rest += more
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def unpack(archive: tarfile.TarFile, into: str, name: str | None) -> None:
    """The entries, the first part of whose names becomes `name` (None: is dropped), below a directory.

    What a container sends is not trusted: each directory is opened from the one above, and none through a link, so that
    nothing is written elsewhere (moby#52948). Owners are this user's; devices are left out.
    """
    top = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    directories: list[tuple[list[str], tarfile.TarInfo]] = []
    try:
        for entry in archive:
            parts = _renamed(entry.name, name)
            if entry.isdir():
                os.close(_directory(top, parts))
                directories.append((parts, entry))
                continue
            if not parts:
                continue
            parent = _directory(top, parts[:-1])
            try:
                _unpack_one(archive, entry, parent, parts[-1], top, name)
            finally:
                os.close(parent)
        for parts, entry in reversed(directories):
            if parts:
                directory = _directory(top, parts)
                os.fchmod(directory, entry.mode & 0o777)
                os.utime(directory, (entry.mtime, entry.mtime))
                os.close(directory)
    except OSError as error:
        raise InvalidArgument(f"{into}: {error.filename or ''}: {(error.strerror or str(error)).lower()}") from error
    finally:
        os.close(top)


def _renamed(shown: str, name: str | None) -> list[str]:
    parts = [part for part in shown.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArgument(f"{shown!r}: the container's archive leads out of its directory")
    if shown.startswith(("./", "/")) or shown == ".":
        return [*([name] if name else []), *parts]
    return [*([name] if name else []), *parts[1:]]


def _directory(top: int, parts: list[str]) -> int:
    """Made where it is missing; never through a link."""
    at = os.dup(top)
    for part in parts:
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=at)
        try:
            below = os.open(part, _PLACE, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def _unpack_one(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, last: str, top: int, name: str | None
) -> None:  # fmt: skip
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
            raise InvalidArgument(f"cannot overwrite directory {last!r} with non-directory")
        os.unlink(last, dir_fd=parent)
    if entry.issym():
        os.symlink(entry.linkname, last, dir_fd=parent)
    elif entry.islnk():
        parts = _renamed(entry.linkname, name) or [last]
        source = _directory(top, parts[:-1])
        try:
            os.link(parts[-1], last, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)
    elif entry.isfile():
        data = archive.extractfile(entry)
        assert data is not None
        file = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        with open(file, "wb") as out:
            shutil.copyfileobj(data, out, _CHUNK)
            out.flush()
            os.fchmod(file, entry.mode & 0o777)
            os.utime(file, (entry.mtime, entry.mtime))
    elif entry.isfifo():
        os.mkfifo(last, entry.mode & 0o777, dir_fd=parent)
