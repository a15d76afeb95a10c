"""What is untagged and deleted, and what is refused: Docker's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from sampan.core.removal import Step, plan
from sampan.errors import Conflict
from sampan.oci.digest import Digest

ID, PARENT, GRAND = (Digest(f"sha256:{letter * 64}") for letter in "abc")
_DIGEST = f"one@sha256:{'d' * 64}"
_OTHER = f"two@sha256:{'d' * 64}"


@dataclass
class Known:
    tags: dict[str, list[str]]
    parents: dict[str, Digest] = field(default_factory=dict)
    used: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)

    def names(self, image: Digest) -> Sequence[str]:
        return self.tags.get(image, [])

    def children(self, image: Digest) -> Sequence[Digest]:
        return [Digest(child) for child, parent in self.parents.items() if parent == image]

    def users(self, image: str, /) -> Sequence[tuple[str, bool]]:
        return self.used.get(image, [])

    def parent(self, image: Digest) -> Digest | None:
        return self.parents.get(image)


def removed(known: Known, called: str, *, force: bool = False, prune: bool = True) -> list[Step]:
    return plan(known, ID, called, by_id=called.startswith("aaa"), force=force, prune=prune)


@pytest.mark.parametrize(
    ("names", "called", "expected"),
    [
        (["one:1"], "one:1", ["one:1", ""]),
        (["one:1"], "docker.io/library/one:1", ["one:1", ""]),
        (["one:1", "two:1"], "one:1", ["one:1"]),
        (["one:1", "one:2"], "one:1", ["one:1"]),
        # With a repository's last tag its digests go, and others stay.
        (["one:1", _DIGEST], "one:1", ["one:1", _DIGEST, ""]),
        (["one:1", "one:2", _DIGEST], "one:1", ["one:1"]),
        (["one:1", "two:1", _DIGEST], "one:1", ["one:1", _DIGEST]),
        (["one:1", _OTHER], "one:1", ["one:1"]),
        (["one:1", _DIGEST], _DIGEST, [_DIGEST]),
        ([_DIGEST], _DIGEST, [_DIGEST, ""]),
        ([], "aaa", [""]),
        (["one:1"], "aaa", ["one:1", ""]),
        (["one:1", _DIGEST], "aaa", ["one:1", _DIGEST, ""]),
    ],
)
def test_what_goes(names: list[str], called: str, expected: list[str]) -> None:
    assert removed(Known({ID: names}), called) == [Step(ID, name) for name in expected]


def test_several_names_are_a_reason_to_ask() -> None:
    for names in (["one:1", "one:2"], ["one:1", "two:1"], ["one:1", _OTHER]):
        known = Known({ID: names})
        with pytest.raises(Conflict, match=r"aaaaaaaaaaaa \(must be forced\) - image is referenced in multiple repos"):
            removed(known, "aaa")
        assert removed(known, "aaa", force=True) == [*(Step(ID, name) for name in names), Step(ID)]


def test_containers_keep_their_image() -> None:
    stopped = Known({ID: ["one:1"]}, used={ID: [("1234", False)]})
    with pytest.raises(Conflict, match=r'reference "one:1" \(must force\) - container 1234 is using its ref.*e aaa'):
        removed(stopped, "one:1")
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container 1234"):
        removed(stopped, "aaa")
    assert removed(stopped, "aaa", force=True) == removed(stopped, "one:1", force=True) == [Step(ID, "one:1"), Step(ID)]
    running = Known({ID: ["one:1"]}, used={ID: [("1", False), ("2", True)]})
    for force in (False, True):
        with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running container 2"):
            removed(running, "aaa", force=force)
    # What it runs from goes on without a name.
    assert removed(running, "one:1", force=True) == [Step(ID, "one:1")]
    assert removed(Known({ID: ["one:1", "two:1"]}, used={ID: [("2", True)]}), "one:1") == [Step(ID, "one:1")]


def test_children_keep_their_parents_and_take_them_along() -> None:
    known = Known({ID: ["one:1"]}, parents={PARENT: ID})
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        removed(known, "aaa", force=True)
    assert removed(known, "one:1") == [Step(ID, "one:1")]
    family = Known({ID: ["one:1"]}, parents={ID: PARENT, PARENT: GRAND})
    assert removed(family, "one:1")[2:] == [Step(PARENT), Step(GRAND)]
    assert removed(family, "aaa", prune=False)[2:] == []
    family.tags[GRAND] = ["base:1"]
    assert removed(family, "aaa")[2:] == [Step(PARENT)]
    family.parents[Digest("sha256:other")] = PARENT
    assert removed(family, "aaa")[2:] == []
