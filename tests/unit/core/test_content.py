"""The content store: what is read from it is bounded, and may be read while it comes."""

from __future__ import annotations

import contextlib
import pathlib
import threading

import pytest

from sampan.core.content import MAX_DOCUMENT, ContentStore, GivenUp
from sampan.errors import DataCorrupt
from sampan.oci.digest import Digest


def test_a_document_that_would_fill_the_memory_is_refused(tmp_path: pathlib.Path) -> None:
    """An image's configuration may be as large as its registry wants (CVE-2026-47262 is containerd's of that kind)."""
    store = ContentStore(str(tmp_path))
    fits = store.write(b" " * MAX_DOCUMENT)
    assert len(store.read(fits)) == MAX_DOCUMENT
    huge = store.write(b" " * (MAX_DOCUMENT + 1))
    with pytest.raises(DataCorrupt, match="too large"):
        store.read(huge)


def test_a_follower_reads_what_comes_and_ends_with_it(tmp_path: pathlib.Path) -> None:
    store = ContentStore(str(tmp_path))
    data = bytes(range(256)) * 20_000
    read: list[bytes] = []
    with store.ingest() as blob:
        follower = blob.follow()
        thread = threading.Thread(target=lambda: read.extend(iter(lambda: follower.read(70_000) or b"", b"")))
        thread.start()
        for at in range(0, len(data), 100_000):
            blob.write(data[at : at + 100_000])
        thread.join(0.2)
        assert thread.is_alive()  # All is read, and the end is not known yet.
        assert follower.offset == len(data)
        digest = blob.commit()
    thread.join(10)
    assert b"".join(read) == data
    follower.close()
    with store.follow(digest) as whole:
        assert whole.read() == data


@pytest.mark.parametrize("how", ["the blob is given up", "the follower is", "another digest"])
def test_a_follower_of_what_does_not_come(tmp_path: pathlib.Path, how: str) -> None:
    store = ContentStore(str(tmp_path))
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while follower.read(1000):
                pass
        except GivenUp as error:
            failed.append(error)

    with contextlib.suppress(DataCorrupt), store.ingest() as blob:
        follower = blob.follow()
        thread = threading.Thread(target=read)
        thread.start()
        blob.write(b"some")
        if how == "the follower is":
            follower.give_up()
            thread.join(10)
            blob.commit()
        elif how == "another digest":
            blob.commit(Digest("sha256:" + "0" * 64))
    thread.join(10)
    follower.close()
    assert len(failed) == 1
