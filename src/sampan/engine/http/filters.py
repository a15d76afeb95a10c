"""Filters that list and prune routes accept; an unknown one is an error, as it would silently list too much."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sampan.errors import InvalidArgument


def known_filters(filters: Mapping[str, Sequence[str]], known: Collection[str]) -> Mapping[str, Sequence[str]]:
    """The filters, if all their names are known. Raises InvalidArgument in Docker's words."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")
    return filters


def boolean_filter(filters: Mapping[str, Sequence[str]], name: str) -> bool | None:
    """`true` or `false`, in all the ways that Docker takes; None: not given. Raises InvalidArgument."""
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return None
    true, false = values & {"1", "true", "t"}, values & {"0", "false", "f"}
    if values - true - false or (true and false):
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(filters[name])}]'")
    return bool(true)


def labels_match(labels: Mapping[str, str], filters: Mapping[str, Sequence[str]]) -> bool:
    """`label` (all must be there) and `label!` (none may): `key` or `key=value`."""
    return all(_has(labels, each) for each in filters.get("label", ())) and not any(
        _has(labels, each) for each in filters.get("label!", ())
    )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
