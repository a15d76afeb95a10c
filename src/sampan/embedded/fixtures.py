"""pytest's plug-in: `sampan_engine` and `sampan`.

`sampan_engine` is one engine for the whole run, with no daemon of the system; `sampan` is the same for one test, after
which what the test made is removed, and for which docker-py, testcontainers and the commands are pointed to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # Nothing is imported for those who only have the plug-in installed.
    from sampan.embedded import Engine


@pytest.fixture(scope="session")
def sampan_engine() -> Iterator[Engine]:
    """A private engine. A test that wants it is skipped without root's rights."""
    if os.geteuid() != 0:
        pytest.skip("sampan: an engine needs root's rights")
    from sampan.embedded import Engine

    with Engine() as engine:
        yield engine


@pytest.fixture
def sampan(sampan_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine for one test: its containers, networks and volumes go with it, images stay."""
    for name, value in sampan_engine.variables.items():
        monkeypatch.setenv(name, value)
    before = _things(sampan_engine)
    yield sampan_engine
    _remove(sampan_engine, before)


def _things(engine: Engine) -> tuple[set[str], set[str], set[str]]:
    docker = engine.docker
    return (
        {each.id for each in docker.containers.list(all_=True)},
        {each.id for each in docker.networks.list()},
        {each.name for each in docker.volumes.list()},
    )


def _remove(engine: Engine, before: tuple[set[str], set[str], set[str]]) -> None:
    """What is there now and was not before: the containers first, for they use the rest."""
    from sampan.errors import NotFound

    docker = engine.docker
    containers, networks, volumes = (now - then for now, then in zip(_things(engine), before, strict=True))
    for each in containers:
        try:
            docker.containers.remove(each, force=True, volumes=True)
        except NotFound:
            continue  # It removed itself.
    for each in networks:
        docker.networks.remove(each)
    for each in volumes:
        try:
            docker.volumes.remove(each)
        except NotFound:
            continue
