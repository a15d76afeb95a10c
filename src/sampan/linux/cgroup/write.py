"""What both cgroup versions plan: values to write into files."""

from __future__ import annotations

import re

import msgspec

from sampan.oci.runtime import Pids

_PAGE_SIZE = re.compile(r"[0-9]+[KMGTP]?B")
_INTERFACE = re.compile(r"[^/\s]{1,15}")
_WORD = re.compile(r"\S+")


class Write(msgspec.Struct, frozen=True):
    """`value` goes into `file` of the group's directory in `controller`'s hierarchy.

    `optional`: where this kernel lacks the file, nothing is lost. `instead`: file and value for where it lacks the
    first. `keeps_first`: the first word in the file stays, and the value follows it. `checked`: newer kernels take the
    value without a word and do nothing, so that it is read back.

    The kernel may refuse a value because of another one that a later write changes (memory above memory and swap
    together), so that those that were refused are tried again as long as that gets on.
    """

    controller: str
    file: str
    value: str
    optional: bool = False
    instead: tuple[str, str] | None = None
    keeps_first: bool = False
    checked: bool = False


def pids_limit(pids: Pids) -> str | None:
    """Runtime specification 1.3: a negative limit is none, a missing one leaves what is there.

    A limit of 0 forbids new processes just as 1 does, which the kernel and systemd both take.
    """
    if pids.limit is None:
        return None
    return "max" if pids.limit < 0 else str(max(1, pids.limit))


def page_size(size: str) -> str:
    """A huge page's size in the kernel's words, as 2MB: it becomes part of a file's name."""
    if not _PAGE_SIZE.fullmatch(size):
        raise ValueError(f"hugepageLimits: invalid page size {size!r}")
    return size


def interface(name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        raise ValueError(f"network.priorities: invalid interface name {name!r}")
    return name


def rdma_device(name: str) -> str:
    if not _WORD.fullmatch(name):
        raise ValueError(f"rdma: invalid device name {name!r}")
    return name
