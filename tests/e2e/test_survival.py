"""A few of the kills that `python -m tests.e2e.survival` makes a thousand of. SAMPAN_TEST_KILLS: how many."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.e2e import survival
from tests.e2e.survival import STAGES, Harness

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox", "program:nft"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # Connections to a killed engine.
    pytest.mark.timeout(600),
]
_KILLS = int(os.environ.get("SAMPAN_TEST_KILLS", "12"))
_SEED = int(os.environ.get("SAMPAN_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    print(f"SAMPAN_TEST_SEED={_SEED}")
    made = Harness(_SEED)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("operation", STAGES)
def test_one_stage_of_each(harness: Harness, operation: str) -> None:
    """A different one each time; the script comes by all of them."""
    survival.at(harness, operation, harness.chance.choice(STAGES[operation]))


def test_kills_at_random(harness: Harness) -> None:
    kills = harness.kills
    for _ in survival.at_random(harness, kills + _KILLS):
        pass
    harness.thorough()
    assert harness.kills == kills + _KILLS
