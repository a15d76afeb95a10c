"""The container's file system while it is made, and how what fails there is told."""

from __future__ import annotations

import errno
import os

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


class told:  # noqa: N801 - a context, as contextlib's are named
    """An OSError as an error that says what was being done."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            words = error.strerror or str(error)
            raised = InvalidArgument if error.errno in _ASKED_WRONGLY else Internal
            raise raised(f"{self._what}: {words[:1].lower()}{words[1:]}") from error


class closing:  # noqa: N801 - as contextlib's, for descriptors
    """Closes it at the end."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
