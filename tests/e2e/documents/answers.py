"""The recorded answers: leaves of the documents by their paths.

Documents resemble one another: each is kept as its difference from the one before it that it is most like.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

PATH = pathlib.Path(__file__).with_name("docker-28.5.json")

Flat = dict[str, Any]


def flat(document: Any, path: str = "") -> Flat:
    """Leaves by their paths (`State Pid`, `Mounts [0] Type`); an empty list and an empty object are leaves too."""
    if isinstance(document, dict) and document:
        pairs = [(str(key), each) for key, each in document.items()]
    elif isinstance(document, list) and document:
        pairs = [(f"[{at}]", each) for at, each in enumerate(document)]
    else:
        return {path: document}
    found: Flat = {}
    for step, each in pairs:
        found.update(flat(each, f"{path} {step}".strip()))
    return found


def keep(scenes: dict[str, dict[str, Any]]) -> None:
    """Write the file. `scenes`: documents by name, by scene."""
    whole: dict[str, Flat] = {}
    kept: dict[str, Any] = {}
    for scene, documents in scenes.items():
        for name, document in documents.items():
            leaves = flat(document)
            likenesses = [_difference(of, base, leaves) for of, base in whole.items() if _alike(of, scene, name)]
            likenesses.append({"with": leaves})
            kept[f"{scene}/{name}"] = min(likenesses, key=lambda each: len(json.dumps(each)))
            whole[f"{scene}/{name}"] = leaves
    PATH.write_text(json.dumps(kept, indent=0) + "\n")


def _alike(of: str, scene: str, name: str) -> bool:
    """Worth a try: the same document of another scene, or one of the same scene."""
    other, _, called = of.partition("/")
    return called == name or other == scene


def _difference(of: str, base: Flat, leaves: Flat) -> dict[str, Any]:
    made: dict[str, Any] = {"of": of}
    changed = {path: value for path, value in leaves.items() if path not in base or base[path] != value}
    gone = [path for path in base if path not in leaves]
    if changed:
        made["with"] = changed
    if gone:
        made["without"] = gone
    return made


def read() -> dict[str, dict[str, Flat]]:
    """The leaves of every document by its name, by scene."""
    whole: dict[str, Flat] = {}
    scenes: dict[str, dict[str, Flat]] = {}
    for key, kept in json.loads(PATH.read_text()).items():
        base = whole.get(kept.get("of", ""), {})
        leaves = {path: value for path, value in base.items() if path not in kept.get("without", ())}
        leaves.update(kept.get("with", {}))
        whole[key] = leaves
        scene, _, name = key.partition("/")
        scenes.setdefault(scene, {})[name] = leaves
    return scenes


def nested(leaves: Flat) -> Any:
    """A document from its leaves: the other way of `flat`."""
    if list(leaves) == [""]:
        return leaves[""]
    groups: dict[str, Flat] = {}
    for path, value in leaves.items():
        step, _, rest = path.partition(" ")
        groups.setdefault(step, {})[rest] = value
    members = {step: nested(group) for step, group in groups.items()}
    if all(step.startswith("[") for step in members):
        return list(members.values())
    return members
