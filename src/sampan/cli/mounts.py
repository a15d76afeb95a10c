"""`--mount`: a mount in words, as Docker's command takes them, and as the Engine API does."""

from __future__ import annotations

import csv

from sampan.cli.flags import parse_size
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYS = {
    "type": "Type", "source": "Source", "src": "Source", "target": "Target", "destination": "Target", "dst": "Target",
    "consistency": "Consistency",
}  # fmt: skip
_MOUNT_OPTIONS = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}
_RECURSIVE = {
    "enabled": {}, "disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}  # fmt: skip
_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")


def _truth(key: str, value: str) -> bool:
    if value.lower() not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f"invalid value for {key}: {value}")
    return value.lower() in _TRUE


def parse_mount(text: str) -> dict[str, Any]:
    """`--mount` in its words. Raises InvalidArgument."""
    mount: dict[str, Any] = {"Type": "volume"}
    for word in next(csv.reader([text])):
        key, separator, value = word.partition("=")
        key = key.strip().lower()
        if key in _KEYS and separator:
            mount[_KEYS[key]] = value
        elif key in ("readonly", "ro"):
            mount["ReadOnly"] = not separator or _truth(key, value)
        else:
            _mount_option(mount, "bind-idmap" if key == "idmap" else key, value, separator, word)
    kind = mount["Type"]
    for each, name in _MOUNT_OPTIONS.items():
        if name in mount and each != kind:
            raise InvalidArgument(f"cannot mix '{each}-*' options with mount type '{kind}'")
    if not mount.get("Target"):
        raise InvalidArgument("target is required")
    options = mount.get("BindOptions", {})
    if not mount.get("ReadOnly"):
        for each in ("writable", "readonly"):
            if _RECURSIVE[each].items() <= options.items():
                raise InvalidArgument(
                    f"option 'bind-recursive={each}' requires 'readonly' to be specified in conjunction"
                )
    if options.get("ReadOnlyForceRecursive") and options.get("Propagation") != "rprivate":
        raise InvalidArgument(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )
    return mount


def _mount_option(mount: dict[str, Any], key: str, value: str, separator: str, word: str) -> None:
    """One of a kind of mount's own. Those that are true or false need no value."""
    options: dict[str, Any] = {}
    driver: dict[str, Any] = mount.get("VolumeOptions", {}).get("DriverConfig", {})
    match key:
        case "bind-nonrecursive" | "bind-create-src" | "volume-nocopy":
            name = {"bind-nonrecursive": "NonRecursive", "bind-create-src": "CreateMountpoint"}.get(key, "NoCopy")
            options[name] = not separator or _truth(key, value)
        case "bind-idmap":
            source, _, user = (value or "match-user").partition(":")
            options["IDMapping"] = {"Source": source, "User": user}
        case _ if not separator:
            raise InvalidArgument(f"invalid field '{key}' must be a key=value pair")
        case "bind-propagation":
            options["Propagation"] = value
        case "bind-recursive":
            if value not in _RECURSIVE:
                raise InvalidArgument(
                    f"invalid value for bind-recursive: {value} "
                    '(must be "enabled", "disabled", "writable", or "readonly")'
                )
            options.update(_RECURSIVE[value])
        case "volume-subpath" | "image-subpath":
            options["Subpath"] = value
        case "volume-label":
            name, _, text = value.partition("=")
            options["Labels"] = {**mount.get("VolumeOptions", {}).get("Labels", {}), name: text}
        case "volume-driver":
            options["DriverConfig"] = {**driver, "Name": value}
        case "volume-opt":
            name, _, text = value.partition("=")
            options["DriverConfig"] = {**driver, "Options": {**driver.get("Options", {}), name: text}}
        case "tmpfs-size":
            options["SizeBytes"] = parse_size(value)
        case "tmpfs-mode":
            try:
                options["Mode"] = int(value, 8)
            except ValueError:
                raise InvalidArgument(f"invalid value for {key}: {value}") from None
        case _:
            raise InvalidArgument(f"unexpected key '{key}' in '{word}'")
    mount.setdefault(_MOUNT_OPTIONS[key.partition("-")[0]], {}).update(options)
