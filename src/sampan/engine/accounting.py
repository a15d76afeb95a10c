"""Whose every byte below the data root is, and what grows in the containers that run."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sampan.api.explain import Advice, Explanation, GrowingFile, Growth, Part
from sampan.engine.containers.sources import owner
from sampan.errors import NotFound
from sampan.linux.trees import files
from sampan.oci.digest import encoded

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_SHOWN = 10
_OWN = frozenset({"containers", "content", "engine-id", "engine.lock", "overlay2", "tmp", "volumes"})
_SHELVES = frozenset({
    "home", "mnt", "media", "opt", "srv", "usr/lib", "usr/local", "usr/share", "var/cache", "var/lib", "var/log",
    "var/spool",
})  # fmt: skip
"""Directories with one for each program or user."""
_SYSTEM = frozenset({"bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr", "var"})


def place(path: str) -> tuple[str, str, str]:
    """Kind, name and place of the part that a path below the data root belongs to. Pure."""
    top, *rest = path.split("/")
    match top, rest:
        case "content", ["blobs", "sha256", name, *_]:
            return "content", f"sha256:{name}", f"content/blobs/sha256/{name}"
        case "content", ["ingest", name, *_]:
            return "transfer", name, f"content/ingest/{name}"
        case "overlay2", [name, *_] if name != "l":
            return "layer", name, f"overlay2/{name}"
        case "containers", [name, file, *_] if file.startswith(f"{name}-json.log"):
            return "log", name, f"containers/{name}/{name}-json.log"
        case "containers", [name, *_]:
            return "container", name, f"containers/{name}"
        case "volumes", [name, *_]:
            return ("trash" if name.startswith(".") else "volume"), name, f"volumes/{name}"
        case "tmp", [name, *_]:
            return "transfer", name, f"tmp/{name}"
    if top.startswith("state.db"):
        return "database", "state.db", "state.db"
    if top in _OWN:
        return "engine", "engine", "."
    return "other", top, top


@dataclass
class _Sum:
    size: int = 0
    files: int = 0


@dataclass(frozen=True)
class _Owners:
    """By the part's name."""

    images: Mapping[str, list[str]] = field(default_factory=dict)
    containers: Mapping[str, list[str]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    """What is in overlay2: layer or writable."""


def parts(engine: Engine) -> tuple[Part, ...]:
    """All of the data root, the largest first. Blocks for as long as it takes to look at each file."""
    root = engine.config.data_root
    sums: dict[tuple[str, str, str], _Sum] = {("engine", "engine", "."): _Sum(os.lstat(root).st_blocks * 512)}
    seen: set[tuple[int, int]] = set()
    for each in files(root):
        if each.key in seen:
            continue
        seen.add(each.key)
        found = sums.setdefault(place(each.path), _Sum())
        found.size += each.allocated
        found.files += not each.directory
    owners = _owners(engine)
    shown = [
        Part(
            kind=owners.kinds.get(name, "trash") if kind == "layer" else kind, name=name, path=path, size=found.size,
            files=found.files, images=tuple(owners.images.get(name, ())),
            containers=tuple(owners.containers.get(name, ())),
        )
        for (kind, name, path), found in sums.items()
    ]  # fmt: skip
    return tuple(sorted(shown, key=lambda part: (-part.size, part.path)))


def _owners(engine: Engine) -> _Owners:
    core = engine.core
    images: dict[str, list[str]] = {}
    containers: dict[str, list[str]] = {}
    layers, writable = core.snapshots.directories()
    kinds = {**dict.fromkeys(layers, "layer"), **dict.fromkeys(writable, "writable")}
    of_chain = {chain_id: name for name, chain_id in layers.items()}
    below = core.snapshots.layers()
    for image in core.images.all():
        name = (*image.repo_tags, *image.repo_digests, encoded(image.id)[:12])[0]
        for each in (*core.images.needs(image), *(of_chain[chain] for chain in image.chain if chain in of_chain)):
            images.setdefault(each, []).append(name)
    names = {each.id: each.name for each in engine.containers.all()}
    for directory, snapshot in writable.items():
        container_id = owner(snapshot)
        containers[directory] = [names.get(container_id, container_id[:12])]
    for container_id, name in names.items():
        containers.setdefault(container_id, []).append(name)
    for snapshot, top in core.snapshots.parents().items():
        container_id = owner(snapshot)
        name, at = names.get(container_id, container_id[:12]), top
        while at is not None:
            if at in of_chain and name not in containers.setdefault(of_chain[at], []):
                containers[of_chain[at]].append(name)
            at = below.get(at)
    for volume in engine.volumes.list():
        containers[volume.name] = [names.get(each, each[:12]) for each in engine.volumes.users(volume.name)]
    return _Owners(images, containers, kinds)


# --- What grows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """At the writable layers of the containers that run: by id, bytes on the disk by path. `at`: seconds of a clock."""

    at: float
    sizes: Mapping[str, Mapping[str, int]]


def first_look(engine: Engine) -> Look:
    """Blocks."""
    running = [each.id for each in engine.containers.all() if each.running]
    sizes: dict[str, Mapping[str, int]] = {}
    for container_id in running:
        with contextlib.suppress(NotFound):  # It has been removed.
            sizes[container_id] = _sizes(engine.core.snapshots.graph_data(container_id).upper_dir)
    return Look(time.monotonic(), sizes)


def growth(engine: Engine, before: Look) -> tuple[Growth, ...]:
    """Of the containers that still run, since the first look. Blocks."""
    after = first_look(engine)
    elapsed = max(after.at - before.at, 0.001)
    names = {each.id: each.name for each in engine.containers.all()}
    shown = [
        _grown(names[identifier], identifier, before.sizes[identifier], now, elapsed)
        for identifier, now in after.sizes.items()
        if identifier in names and identifier in before.sizes
    ]
    return tuple(sorted(shown, key=lambda each: (-each.size, each.container)))


def _grown(
    name: str, identifier: str, before: Mapping[str, int], now: Mapping[str, int], elapsed: float
) -> Growth:  # fmt: skip
    grown = {path: size - before.get(path, 0) for path, size in now.items()}
    order = sorted(now, key=lambda path: (-max(grown[path], 0), -now[path], path))
    return Growth(
        container=name, id=identifier, size=sum(now.values()),
        files=tuple(
            GrowingFile(
                path=f"/{path}", size=now[path], grown=grown[path], bytes_per_second=int(grown[path] / elapsed)
            )
            for path in order[:_SHOWN]
        ),
        advice=advise(name, ((path, now[path], grown[path]) for path in now)),
    )  # fmt: skip


def _sizes(directory: str) -> dict[str, int]:
    """Bytes on the disk of each file that has some."""
    return {
        os.fsencode(each.path).decode("utf-8", "replace"): each.allocated
        for each in files(directory)
        if not each.directory and each.size
    }


def home(path: str) -> str:
    """The directory of a file that is its program's own, without the slash at its begin; empty if there is none."""
    directories = path.split("/")[:-1]
    for depth in (2, 1):
        if "/".join(directories[:depth]) in _SHELVES and len(directories) > depth:
            return "/".join(directories[: depth + 1])
    if directories and directories[0] not in _SYSTEM:
        return directories[0]
    return "/".join(directories)


def advise(container: str, found: Iterable[tuple[str, int, int]]) -> tuple[Advice, ...]:
    """The volumes that would take the most, from paths with their sizes and by how much they grew. Pure."""
    sums: dict[str, list[int]] = {}
    for path, size, grown in found:
        directory = home(path)
        if directory:
            totals = sums.setdefault(directory, [0, 0])
            totals[0] += size
            totals[1] += max(grown, 0)
    order = sorted(sums, key=lambda each: (-sums[each][1], -sums[each][0], each))
    return tuple(
        Advice(
            directory=f"/{each}", size=sums[each][0], grown=sums[each][1],
            option=f"-v {container}-{_word(each.rpartition('/')[2])}:/{each}",
        )
        for each in order[:3]
    )  # fmt: skip


def _word(text: str) -> str:
    """As a volume's name takes it."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "_.-") else "_" for each in text)


def explain(engine: Engine, before: Look, interval: float) -> Explanation:
    """`interval`: seconds since the first look. Blocks."""
    growing = growth(engine, before)
    found = parts(engine)
    return Explanation(
        data_root=engine.config.data_root, size=sum(each.size for each in found), parts=found, interval=interval,
        growth=growing,
    )  # fmt: skip
