"""What removing an image means: Docker's rules, as a plan. Pure.

By a name: the name goes, and with the last name the image. By an id: the image goes, with its names if they are all in
one repository. A container or an image made of it keeps an image; `force` lets go of the name, of several names, and of
stopped containers. Then the parents that nothing names any more go too, quietly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sampan.errors import Conflict
from sampan.oci.digest import Digest, encoded
from sampan.oci.reference import Reference, parse_reference


class Known(Protocol):
    """What there is, as far as it keeps an image."""

    def names(self, image: Digest) -> Sequence[str]:
        """In the familiar form, tags before digests."""

    def children(self, image: Digest) -> Sequence[Digest]:
        """The images that were made of it."""

    def users(self, image: str, /) -> Sequence[tuple[str, bool]]:
        """The containers made of it, by short id, and whether each runs."""

    def parent(self, image: Digest) -> Digest | None: ...


@dataclass(frozen=True)
class Step:
    """One thing to do, in order: a name is untagged, or an image deleted."""

    image: Digest
    untagged: str = ""


def plan(known: Known, image: Digest, called: str, *, by_id: bool, force: bool, prune: bool) -> list[Step]:
    """`called`: as the user did. Raises Conflict in Docker's words."""
    names = list(known.names(image))
    if not by_id:
        return _by_name(known, image, called, names, force=force, prune=prune)
    _refuse(known, image, several=not _single(names), force=force)
    steps = [*(Step(image, name) for name in names), Step(image)]
    return steps + _parents(known, image) if prune else steps


def _by_name(known: Known, image: Digest, called: str, names: list[str], *, force: bool, prune: bool) -> list[Step]:
    users = known.users(image)
    if users and not force and _single(names):
        raise Conflict(
            f'conflict: unable to remove repository reference "{called}" (must force) - container {users[0][0]} is '
            f"using its referenced image {encoded(image)[:12]}"
        )
    reference = parse_reference(called)
    name = (Reference(reference.domain, reference.path, "", reference.digest) if reference.digest else
            reference.with_default_tag()).familiar  # fmt: skip
    rest = [each for each in names if each != name]
    steps = [Step(image, name)]
    if not reference.digest:
        repository = reference.name
        parsed = [parse_reference(each) for each in rest]
        if not any(each.tag and each.name == repository for each in parsed):
            # With a repository's last tag its digests go.
            gone = [each.familiar for each in parsed if each.name == repository]
            steps += [Step(image, each) for each in gone]
            rest = [each for each in rest if each not in gone]
    if rest:
        return steps
    try:
        _refuse(known, image, several=False, force=force)
    except Conflict:
        return steps  # What keeps the image keeps it without a name.
    steps.append(Step(image))
    return steps + _parents(known, image) if prune else steps


def _parents(known: Known, image: Digest) -> list[Step]:
    """The parents that nobody needs once `image` is gone: without names, containers, and other children."""
    steps: list[Step] = []
    parent = known.parent(image)
    gone = {image}
    while parent is not None and not known.names(parent) and not known.users(parent):
        if set(known.children(parent)) - gone:
            break
        steps.append(Step(parent))
        gone.add(parent)
        parent = known.parent(parent)
    return steps


def _refuse(known: Known, image: Digest, *, several: bool, force: bool) -> None:
    short = encoded(image)[:12]
    hard = f"conflict: unable to delete {short} (cannot be forced) - image "
    soft = f"conflict: unable to delete {short} (must be forced) - image "
    if known.children(image):
        raise Conflict(f"{hard}has dependent child images")
    users = known.users(image)
    for container, running in users:
        if running:
            raise Conflict(f"{hard}is being used by running container {container}")
    if force:
        return
    if several:
        raise Conflict(f"{soft}is referenced in multiple repositories")
    if users:
        raise Conflict(f"{soft}is being used by stopped container {users[0][0]}")


def _single(names: Sequence[str]) -> bool:
    """At most one tag, and digests of its repository alone."""
    if len(names) <= 1:
        return True
    references = [parse_reference(name) for name in names]
    tags = [each for each in references if not each.digest]
    repositories = {each.name for each in references if each.digest}
    first = tags[0] if tags else references[0]
    return len(tags) <= 1 and repositories == {first.name}
