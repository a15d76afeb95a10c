"""Image names as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import InvalidArgument
from sampan.oci.reference import parse_reference


@pytest.mark.parametrize(
    ("text", "name", "tag", "familiar"),
    [
        ("nginx", "docker.io/library/nginx", "", "nginx"),
        ("nginx:1.2", "docker.io/library/nginx", "1.2", "nginx:1.2"),
        ("user/app", "docker.io/user/app", "", "user/app"),
        ("docker.io/nginx", "docker.io/library/nginx", "", "nginx"),
        ("localhost/app:x", "localhost/app", "x", "localhost/app:x"),
        ("127.0.0.1:5000/a/b_c", "127.0.0.1:5000/a/b_c", "", "127.0.0.1:5000/a/b_c"),
        ("Registry/app", "Registry/app", "", "Registry/app"),
    ],
)
def test_names(text: str, name: str, tag: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.tag, reference.familiar) == (name, tag, familiar)


@pytest.mark.parametrize(
    "text", ["", ":x", "a:", "-a", "a//b", "a:b:c", "a@sha256:12", "a b", "UPPER", "a/UPPER", "f" * 64, "x" * 300]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_reference(text)


@given(st.text(max_size=60))
def test_whatever_is_parsed_comes_back_the_same(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidArgument:
        return
    assert parse_reference(reference.familiar) == reference
