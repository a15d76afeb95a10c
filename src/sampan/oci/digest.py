"""Digests: `sha256:` and 64 hex digits. image-spec descriptor.md"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NewType

from sampan.errors import InvalidArgument

Digest = NewType("Digest", str)
ChainID = NewType("ChainID", str)

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Raises InvalidArgument for anything but a sha256 digest."""
    if not _PATTERN.fullmatch(text):
        raise InvalidArgument(f"invalid digest {text[:100]!r}")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def encoded(digest: str) -> str:
    """The hex digits alone."""
    return digest.partition(":")[2]


def chain_ids(diff_ids: Sequence[Digest]) -> list[ChainID]:
    """The name of each layer together with all below it, from the bottom up. image-spec config.md, Layer ChainID"""
    result: list[ChainID] = []
    for diff_id in diff_ids:
        result.append(ChainID(diff_id if not result else digest_of(f"{result[-1]} {diff_id}".encode())))
    return result
