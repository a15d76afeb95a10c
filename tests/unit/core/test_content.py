"""The content store: what is read from it is bounded."""

from __future__ import annotations

import pathlib

import pytest

from sampan.core.content import MAX_DOCUMENT, ContentStore
from sampan.errors import DataCorrupt


def test_a_document_that_would_fill_the_memory_is_refused(tmp_path: pathlib.Path) -> None:
    """An image's configuration may be as large as its registry wants (CVE-2026-47262 is containerd's of that kind)."""
    store = ContentStore(str(tmp_path))
    fits = store.write(b" " * MAX_DOCUMENT)
    assert len(store.read(fits)) == MAX_DOCUMENT
    huge = store.write(b" " * (MAX_DOCUMENT + 1))
    with pytest.raises(DataCorrupt, match="too large"):
        store.read(huge)
