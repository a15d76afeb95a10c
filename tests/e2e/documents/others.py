"""The documents of what is not a container: images, the disk's use, volumes, networks, and the engine itself."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.documents.scenes import Stage

CONTAINER, VOLUME = "others-container", "others-volume"
OLD_VERSIONS = ("v1.24", "v1.40", "v1.42", "v1.43", "v1.44", "v1.45", "v1.46", "v1.49")


def play(stage: Stage) -> dict[str, Any]:
    api = stage.api
    told: dict[str, Any] = {}
    began = time.time()
    _reap(stage)
    told["volume create"] = api.must("POST", "/volumes/create", {"Name": VOLUME, "Labels": {"a": "b"}})
    told["volume inspect"] = api.must("GET", f"/volumes/{VOLUME}")
    told["volume list"] = api.must("GET", "/volumes", filters=f'{{"name":["{VOLUME}"]}}')
    told["no volumes"] = api.must("GET", "/volumes", filters='{"name":["nosuch"]}')
    made = api.must(
        "POST", "/containers/create",
        {"Image": "full", "HostConfig": {"Binds": [f"{VOLUME}:/here"]}}, name=CONTAINER,
    )["Id"]  # fmt: skip
    try:
        api.must("POST", f"/containers/{CONTAINER}/start")
        told.update(_images(stage))
        told.update(_networks(stage))
        told["df"] = _usage(stage)
        for kind in ("image", "container", "volume", "build-cache"):
            told[f"df {kind}"] = dict.fromkeys(api.must("GET", "/system/df", type=kind))
        for version in OLD_VERSIONS:
            told[f"inspect {version}"] = api.at(version).must("GET", f"/containers/{CONTAINER}/json")
            told[f"list {version}"] = _only(api.at(version).must("GET", "/containers/json"), made)
            told[f"image list {version}"] = _only(api.at(version).must("GET", "/images/json"), _image(stage, "full"))
            told[f"image inspect {version}"] = api.at(version).must("GET", "/images/full/json")
            told[f"image history {version}"] = api.at(version).must("GET", "/images/full/history")
            told[f"create {version}"] = sorted(_create(stage, version))
        told["volume in use"] = list(api.call("DELETE", f"/volumes/{VOLUME}"))
    finally:
        _reap(stage)
    events = stage.events({"type": ["image", "volume"]}, began)
    told["an event"] = events[0]
    told["events"] = [[each["Type"], each["Action"], each["Actor"]] for each in events]
    for each in (told[f"inspect {version}"] for version in OLD_VERSIONS):
        each["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
    for version in OLD_VERSIONS:
        for each in told[f"list {version}"]:
            each["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
    told["info"] = {name: _kind(value) for name, value in api.must("GET", "/info").items()}
    told["version"] = {name: _kind(value) for name, value in api.must("GET", "/version").items()}
    return stage.masks(made, _image(stage, "box"), _image(stage, "full")).mask(told)  # type: ignore[no-any-return]


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _reap(stage: Stage) -> None:
    stage.api.call("DELETE", f"/containers/{CONTAINER}", force=1, v=1)
    stage.api.call("DELETE", f"/volumes/{VOLUME}")


def _image(stage: Stage, name: str) -> str:
    return str(stage.api.must("GET", f"/images/{name}/json")["Id"])


def _only(documents: list[Any], wanted: str) -> list[Any]:
    return [each for each in documents if each["Id"] == wanted]


def _create(stage: Stage, version: str) -> dict[str, Any]:
    answer = stage.api.at(version).must("POST", "/containers/create", {"Image": "box", "Cmd": ["true"]})
    stage.api.must("DELETE", f"/containers/{answer['Id']}")
    return answer  # type: ignore[no-any-return]


def _images(stage: Stage) -> dict[str, Any]:
    api = stage.api
    full = _image(stage, "full")
    told = {
        "image list": _only(api.must("GET", "/images/json"), full),
        "image list with sizes": _only(api.must("GET", "/images/json", **{"shared-size": 1}), full),
        "image inspect": api.must("GET", "/images/full/json"),
        "image history": api.must("GET", "/images/full/history"),
        "plain image inspect": api.must("GET", "/images/box/json"),
        "tag": list(api.call("POST", "/images/full/tag", repo="others", tag="1")),
        "image with two names": sorted(api.must("GET", "/images/full/json")["RepoTags"]),
        "untag": api.must("DELETE", "/images/others:1"),
    }
    told["image config"] = told["image inspect"]["Config"]
    return told


def _networks(stage: Stage) -> dict[str, Any]:
    api = stage.api
    listed = {each["Name"]: each for each in api.must("GET", "/networks")}
    told: dict[str, Any] = {f"network list {name}": listed[name] for name in ("bridge", "host", "none")}
    told["network inspect"] = api.must("GET", "/networks/bridge")
    for network in (told["network inspect"], told["network list bridge"]):
        network["Options"] = {key: value for key, value in network["Options"].items() if not key.endswith(".name")}
    return told


def _usage(stage: Stage) -> dict[str, Any]:
    usage: dict[str, Any] = stage.api.must("GET", "/system/df")
    usage["Images"] = _only(usage["Images"], _image(stage, "full"))
    usage["Containers"] = [each for each in usage["Containers"] if each["Names"] == [f"/{CONTAINER}"]]
    for each in usage["Containers"]:
        each["Mounts"].sort(key=lambda mount: str(mount["Destination"]))
    usage["Volumes"] = [each for each in usage["Volumes"] if each["Name"] == VOLUME]
    return usage
