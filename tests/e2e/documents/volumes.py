"""The documents of volumes with options, of their filters and prunes, and of a container with every kind of mount."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.documents.scenes import Stage

CONTAINER = "volumes-container"
TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=7"}
VOLUMES: dict[str, dict[str, Any]] = {
    "volumes-labels": {"Labels": {"of": "volumes", "a": "b"}},
    "volumes-empty": {"Labels": {}, "DriverOpts": {}},
    "volumes-tmpfs": {"Labels": {"of": "volumes"}, "DriverOpts": TMPFS},
    "volumes-size": {"DriverOpts": {"size": "0"}},
    "volumes-none": {"Labels": None, "DriverOpts": None},
}
MOUNTS: list[dict[str, Any]] = [
    {"Type": "volume", "Source": "volumes-labels", "Target": "/part", "VolumeOptions": {"Subpath": "."}},
    {"Type": "volume", "Source": "volumes-tmpfs", "Target": "/tmpfs", "ReadOnly": True},
    {"Type": "volume", "Source": "volumes-made", "Target": "/made",
     "VolumeOptions": {"NoCopy": True, "Labels": {"of": "volumes"},
                       "DriverConfig": {"Name": "local", "Options": TMPFS}}},
    {"Type": "image", "Source": "box", "Target": "/image", "ImageOptions": {"Subpath": "data"}},
    {"Type": "bind", "Source": "/opt", "Target": "/bind", "ReadOnly": True,
     "BindOptions": {"NonRecursive": True, "ReadOnlyForceRecursive": True, "Propagation": "rprivate"}},
]  # fmt: skip
FILTERS: tuple[dict[str, list[str]], ...] = (
    {"label": ["of=volumes"]}, {"label": ["of", "a=b"]}, {"label": ["of=other"]}, {"name": ["^volumes-l"]},
    {"name": ["volumes-none", "volumes-empty"]}, {"name": ["mes-n.ne"]}, {"name": ["volumes-"], "dangling": ["true"]},
    {"name": ["volumes-"], "dangling": ["0"]}, {"name": ["volumes-"], "driver": ["other"]},
    {"name": ["volumes-"], "driver": ["local"]},
)  # fmt: skip


def play(stage: Stage) -> dict[str, Any]:
    api = stage.api
    told: dict[str, Any] = {}
    _reap(stage)
    try:
        for name, members in VOLUMES.items():
            told[f"create {name}"] = api.must("POST", "/volumes/create", {"Name": name, **members})
            told[f"inspect {name}"] = api.must("GET", f"/volumes/{name}")
        # What is there already is not changed.
        told["create again"] = api.must("POST", "/volumes/create", {"Name": "volumes-tmpfs", "Labels": {"x": "y"}})
        made = api.must(
            "POST", "/containers/create",
            {
                "Image": "box", "Cmd": ["sleep", "600"],
                "HostConfig": {"NetworkMode": "none", "Mounts": MOUNTS, "Binds": ["volumes-none:/bound:ro,z,nocopy"]},
            },
            name=CONTAINER,
        )["Id"]  # fmt: skip
        api.must("POST", f"/containers/{CONTAINER}/start")
        inspected = api.must("GET", f"/containers/{CONTAINER}/json")
        told["mounts"] = sorted(inspected["Mounts"], key=lambda mount: str(mount["Destination"]))
        told["wanted"] = inspected["HostConfig"]["Mounts"]
        told["inspect volumes-made"] = api.must("GET", "/volumes/volumes-made")
        for filters in FILTERS:
            text = json.dumps(filters)
            told[f"list {text}"] = sorted(each["Name"] for each in api.must("GET", "/volumes", filters=text)["Volumes"])
        usage = api.must("GET", "/system/df", type="volume")["Volumes"]
        told["usage"] = {each["Name"]: each["UsageData"] for each in usage if each["Name"] in VOLUMES}
        for force in (0, 1):
            told[f"in use {force}"] = list(api.call("DELETE", "/volumes/volumes-tmpfs", force=force))
        api.must("DELETE", f"/containers/{CONTAINER}", force=1)
        told["prune"] = api.must("POST", "/volumes/prune", filters='{"all":["true"],"label":["of=volumes"]}')
        told["old prune"] = sorted(
            set(api.at("v1.41").must("POST", "/volumes/prune", filters='{"label!":["of"]}')["VolumesDeleted"])
            & VOLUMES.keys()
        )
    finally:
        _reap(stage)
    return stage.masks(made).mask(told)  # type: ignore[no-any-return]


def _reap(stage: Stage) -> None:
    stage.api.call("DELETE", f"/containers/{CONTAINER}", force=1)
    for name in (*VOLUMES, "volumes-made"):
        stage.api.call("DELETE", f"/volumes/{name}")
