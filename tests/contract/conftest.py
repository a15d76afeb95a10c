"""Every test here runs over every runtime, in a bundle of its own; then nothing of its containers may be left."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from sampan.linux import process
from tests.contract.box import Box, group_directories
from tests.contract.runtimes import QUIRKS, Runtime, opened


@pytest.fixture(scope="package")
def subreaper() -> Iterator[None]:
    """As an engine's shim does: a container's first process becomes a child of ours when `create` has ended. Not for
    longer than these tests: whose orphans came to us later would never be gone for who waits for that."""
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    yield
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)
    for each in group_directories("/sampan-contract"):
        with contextlib.suppress(OSError):
            os.rmdir(each)


_NEEDS = ("root", "program:busybox", "program:nsenter")
_PROGRAMS = {"runc": ("program:runc",), "crun": ("program:crun",)}


@pytest.fixture(
    scope="package",
    params=[pytest.param(name, marks=pytest.mark.requires(*_NEEDS, *_PROGRAMS.get(name, ()))) for name in QUIRKS],
)
def runtime(request: pytest.FixtureRequest, subreaper: None) -> Iterator[Runtime]:
    with opened(request.param) as found:
        yield found


@contextlib.contextmanager
def _box(runtime: Runtime, directory: pathlib.Path) -> Iterator[Box]:
    made = Box(runtime, directory)
    yield made
    try:
        made.clean()
    finally:
        made.sweep()
        for each in group_directories(made.group):
            os.rmdir(each)


@pytest.fixture
def box(runtime: Runtime, short_dir: pathlib.Path) -> Iterator[Box]:
    """One of the test's own."""
    with _box(runtime, short_dir) as made:
        yield made


@pytest.fixture(scope="module")
def running(runtime: Runtime) -> Iterator[Box]:
    """One whose container runs, for all tests of the file, which leave it running."""
    with (
        tempfile.TemporaryDirectory(prefix="smp", dir="/tmp") as directory,
        _box(runtime, pathlib.Path(directory)) as made,
    ):
        made.launch()
        yield made
