"""The reference is what the parsers and the routes say."""

from __future__ import annotations

import pytest
from docs.reference import generate


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generate.pages()


@pytest.mark.parametrize("name", ["cli.md", "api.md"])
def test_page_is_current(pages: dict[str, str], name: str) -> None:
    assert (generate.HERE / name).read_text() == pages[name], "stale: run python docs/reference/generate.py"


def test_the_synchronous_client_is_current() -> None:
    written = (generate.HERE / "../../src/sampan/client/synchronous").resolve()
    for name, text in generate.synchronous().items():
        assert (written / name).read_text() == text, "stale: run python docs/reference/generate.py"
