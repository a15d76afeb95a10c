"""The container's file system while it is made, and how what fails there is told."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import msgspec

from sampan.errors import Internal, InvalidArgument
from sampan.linux.fs import of_descriptor
from sampan.runtime.mounts import MountStep

_ASKED_WRONGLY = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENODEV, errno.E2BIG, errno.EXDEV,
    errno.ENAMETOOLONG, errno.ENOTBLK, errno.EEXIST,
}  # fmt: skip
"""What is an error of the configuration, and no failure of ours or the machine's."""


class Tree(msgspec.Struct):
    """`root`: the mount that will be the container's root, as an O_PATH descriptor. `place`: where it lies on the host,
    for as long as that is reachable. `sources`: of bind mounts, opened ahead; they are used up. `readonly`: mounts that
    are made read-only at last, when everything inside them is made. `uncovered`: the host's that must be hidden."""

    root: int
    place: str
    label: str = ""
    propagation: int = 0
    sources: dict[MountStep, list[int]] = {}
    readonly: list[int] = []
    uncovered: list[int] = []

    def inside(self, descriptor: int) -> str:
        """The path of what the descriptor is open on, from the container's root: no link is left in it.

        Raises Internal if it lies elsewhere.
        """
        path = os.readlink(of_descriptor(descriptor))
        if path == self.place:
            return "/"
        prefix = self.place.rstrip("/") + "/"
        if not path.startswith(prefix):
            raise Internal(f"{path} is outside of the container's root")
        return "/" + path.removeprefix(prefix)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """An OSError as an error that says what was being done."""
    try:
        yield
    except OSError as error:
        words = error.strerror or str(error)
        kind = InvalidArgument if error.errno in _ASKED_WRONGLY else Internal
        raise kind(f"{what}: {words[:1].lower()}{words[1:]}") from error


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Closes it at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)
