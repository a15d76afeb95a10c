"""A lab for the whole directory, and each test once with runc, which says what is right, and once with ours."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from tests.e2e.swap.lab import Lab, Runtime


@pytest.fixture
def _no_containers() -> None:
    """The engine of tests/e2e has no part in these."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    made = Lab(pathlib.Path(tempfile.mkdtemp(prefix="swap", dir="/tmp")))
    yield made
    made.close()


@pytest.fixture(params=["runc", "sampan-runtime"])
def runtime(request: pytest.FixtureRequest, lab: Lab) -> Runtime:
    return lab.runtimes[request.param]
