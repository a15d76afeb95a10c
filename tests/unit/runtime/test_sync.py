"""The conversation between the parent and the child."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.runtime import sync


def test_a_failure_is_read_though_the_child_ended_without_listening() -> None:
    """The kernel tells of the unread message (ECONNRESET) before it gives what was sent."""
    parent, child = sync.pair()
    with parent:
        with child:
            sync.send(parent, sync.GROUP)
            sync.send_failure(child, InvalidArgument("no"))
        with pytest.raises(InvalidArgument, match="no"):
            sync.receive(parent)
        assert sync.receive(parent) == (b"", [])
