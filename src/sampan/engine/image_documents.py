"""Images as the Engine API shows them, and the filters that choose among them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from sampan.api import images as api
from sampan.api.containers import Empty, HealthConfig
from sampan.core.images import Image
from sampan.core.service import Core
from sampan.engine.http.filters import boolean_filter, known_filters, labels_match
from sampan.engine.timestamps import parse_moment, rfc3339, unix_seconds
from sampan.oci.digest import ChainID
from sampan.oci.image import RunConfig

LIST_FILTERS = frozenset({"before", "dangling", "label", "label!", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})
_OLD_SIZE = (1, 44)
"""The first API version without `VirtualSize`."""
_NOW = (1, 51)


def summary(
    image: Image, *, containers: int = -1, shared_size: int = -1, api_version: tuple[int, int] = _NOW
) -> api.ImageSummary:
    """One line of a list."""
    tags: tuple[str, ...] = image.repo_tags
    digests: tuple[str, ...] | None = image.repo_digests
    if api_version < (1, 43):
        # Go's nil; and names for what has none.
        tags, digests = (tags, digests or None) if tags or digests else (("<none>:<none>",), ("<none>@<none>",))
    return api.ImageSummary(
        containers=containers if api_version >= (1, 51) else -1,
        created=unix_seconds(image.config.created), id=image.id, labels=image.config.run.labels,
        parent_id=image.parent or "", repo_digests=digests,
        repo_tags=tags, shared_size=shared_size, size=image.size,
        virtual_size=image.size if api_version < _OLD_SIZE else msgspec.UNSET,
    )  # fmt: skip


def inspect(core: Core, image: Image, api_version: tuple[int, int]) -> api.ImageInspect:
    """One image in full."""
    config = image.config
    data = None
    if image.top is not None:
        directories = core.snapshots.image_graph_data(image.top)
        data = api.GraphDriverData(
            lower_dir=directories.lower_dir, merged_dir=directories.merged_dir, upper_dir=directories.upper_dir,
            work_dir=directories.work_dir,
        )  # fmt: skip
    last = config.history[-1] if config.history else None
    return api.ImageInspect(
        id=image.id, repo_tags=image.repo_tags, repo_digests=image.repo_digests,
        parent=image.parent or "", comment=last.comment if last else "", created=config.created or msgspec.UNSET,
        docker_version=config.docker_version, author=config.author,
        container_config=api.OldImageConfig() if api_version < (1, 45) else msgspec.UNSET,
        config=run_config(config.run, api.OldImageConfig if api_version < (1, 50) else api.ImageRunConfig),
        architecture=config.architecture, variant=config.variant or msgspec.UNSET, os=config.os,
        os_version=config.os_version or msgspec.UNSET, size=image.size,
        virtual_size=image.size if api_version < _OLD_SIZE else msgspec.UNSET,
        graph_driver=api.GraphDriver(data=data), root_fs=api.RootFS(layers=config.rootfs.diff_ids),
        metadata=api.ImageMetadata(last_tag_time=rfc3339(image.added)),
    )  # fmt: skip


def run_config(run: RunConfig, kind: type[api.ImageRunConfig] = api.ImageRunConfig) -> api.ImageRunConfig:
    """The image's configuration for containers: empty members where Docker has them, none where it has not."""
    health = run.healthcheck
    return kind(
        cmd=run.cmd, entrypoint=run.entrypoint, env=run.env, labels=run.labels, on_build=run.on_build, user=run.user,
        volumes=_keys(run.volumes), working_dir=run.working_dir,
        exposed_ports=_keys(run.exposed_ports) or msgspec.UNSET,
        healthcheck=msgspec.convert(health, HealthConfig, from_attributes=True) if health else msgspec.UNSET,
        stop_signal=run.stop_signal or msgspec.UNSET, shell=run.shell or msgspec.UNSET,
        args_escaped=run.args_escaped or msgspec.UNSET,
    )  # fmt: skip


def _keys(names: Iterable[str] | None) -> dict[str, Empty] | None:
    return None if names is None else {name: Empty() for name in names}


def history(core: Core, image: Image) -> list[api.HistoryItem]:
    """How the image was made, the newest step first. Layers without history are shown as steps of their own."""
    sizes = core.snapshots.layer_sizes()
    layers = iter(image.chain)
    items: list[api.HistoryItem] = []
    for told in image.config.history or ():
        chain_id: ChainID | None = None if told.empty_layer else next(layers, None)
        items.append(
            api.HistoryItem(
                comment=told.comment, created=unix_seconds(told.created), created_by=told.created_by,
                size=sizes.get(chain_id, 0) if chain_id else 0,
            )
        )  # fmt: skip
    items += [api.HistoryItem(comment="", created=0, created_by="", size=sizes.get(chain_id, 0)) for chain_id in layers]
    items.reverse()
    # The images that it was made of here, as long as they are there: each is one step.
    step: Image | None = image
    for at, item in enumerate(items):
        if step is None:
            break
        items[at] = msgspec.structs.replace(item, id=step.id, tags=step.repo_tags or None)
        step = core.images.find(step.parent) if step.parent else None
    return items


def chosen(core: Core, filters: Mapping[str, Sequence[str]], *, name: str = "") -> list[Image]:
    """The images that a list shows, the newest first. `name`: a reference pattern in an older parameter.

    Raises InvalidArgument for an unknown filter or value, NotFound for a `before` or `since` that is no image.
    """
    known_filters(filters, LIST_FILTERS)
    dangling = boolean_filter(filters, "dangling")
    patterns = [*filters.get("reference", ()), *([name] if name else ())]
    before = _moment(core, filters, "before", max)
    since = _moment(core, filters, "since", min)
    until = [parse_moment(each) for each in filters.get("until", ())]
    found: list[Image] = []
    for image in core.images.all():
        created = unix_seconds(image.config.created)
        if before is not None and created >= before:
            continue
        if since is not None and created <= since:
            continue
        if any(created * 10**9 >= each for each in until):
            continue
        if dangling is not None and dangling != is_dangling(image):
            continue
        if not labels_match(image.config.run.labels or {}, filters):
            continue
        if patterns:
            names = [each for each in (*image.repo_tags, *image.repo_digests) if _matches_any(each, patterns)]
            if not names:
                continue
            # Only the names that were asked for are shown.
            image = dataclasses.replace(
                image,
                repo_tags=tuple(each for each in image.repo_tags if each in names),
                repo_digests=tuple(each for each in image.repo_digests if each in names),
            )
        found.append(image)
    return sorted(found, key=lambda each: unix_seconds(each.config.created), reverse=True)


def is_dangling(image: Image) -> bool:
    """No name leads to it."""
    return not image.repo_tags and not image.repo_digests


def _moment(
    core: Core, filters: Mapping[str, Sequence[str]], name: str, choose: Callable[[Iterable[int]], int]
) -> int | None:
    """When the image named by `before` or `since` was made, in seconds; the stricter one of several."""
    names = filters.get(name, ())
    return choose([unix_seconds(core.images.get(each).config.created) for each in names]) if names else None


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    """By name with or without its tag or digest, with wildcards that do not cross a slash (Go's path.Match)."""
    bare = re.sub(r"@.*$|:[^/:]*$", "", name)
    return any(_wildcard(pattern).fullmatch(each) for pattern in patterns for each in (name, bare))


def _wildcard(pattern: str) -> re.Pattern[str]:
    parts = {"*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(letter) or re.escape(letter) for letter in pattern))


def shared_sizes(core: Core) -> dict[str, int]:
    """By image: the bytes of its layers that another image has too."""
    sizes = core.snapshots.layer_sizes()
    images = core.images.all()
    users: dict[ChainID, int] = {}
    for image in images:
        for chain_id in image.chain:
            users[chain_id] = users.get(chain_id, 0) + 1
    return {
        image.id: sum(sizes.get(chain_id, 0) for chain_id in image.chain if users[chain_id] > 1) for image in images
    }
