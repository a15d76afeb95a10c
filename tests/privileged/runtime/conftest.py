"""A bundle to run; at its end nothing of it may be left."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests.privileged.runtime.test_container import Box


@pytest.fixture
def box(tmp_path: pathlib.Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    assert made.left() == []
