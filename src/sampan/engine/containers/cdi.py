"""Devices of the Container Device Interface: `--device VENDOR/CLASS=NAME`, and `--gpus`.

Vendors describe devices in JSON or YAML files in a few directories; the later directory wins. What a device needs of a
container's configuration (variables, device nodes, mounts, hooks, groups) is added to it. Follows the CDI specification
0.8 (cncf-tags/container-device-interface, SPEC.md), and Docker's words where it refuses.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence

import msgspec

from sampan.api.containers import DeviceRequest, HostConfig
from sampan.errors import InvalidArgument, Unsupported
from sampan.oci.runtime import Device, DeviceCgroup, Hook, Hooks, Mount, Spec

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_SUFFIXES = (".json", ".yaml", ".yml")
_GPU = "nvidia.com/gpu"
_HOOKS = {
    "prestart": "prestart", "createRuntime": "create_runtime", "createContainer": "create_container",
    "startContainer": "start_container", "poststart": "poststart", "poststop": "poststop",
}  # fmt: skip


class _Described(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Part of a file; members that are not known are checked in `_Edits` alone."""


class _Node(_Described, frozen=True, kw_only=True):
    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class _Mounted(_Described, frozen=True, kw_only=True):
    host_path: str
    container_path: str
    options: tuple[str, ...] | None = None
    type: str = ""


class _Hooked(_Described, frozen=True, kw_only=True):
    hook_name: str
    path: str
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    timeout: int | None = None


class _Edits(_Described, frozen=True, kw_only=True):
    """`intel_rdt` and `net_devices`: refused where a device that has them is asked for."""

    env: tuple[str, ...] | None = None
    device_nodes: tuple[_Node, ...] | None = None
    mounts: tuple[_Mounted, ...] | None = None
    hooks: tuple[_Hooked, ...] | None = None
    intel_rdt: dict[str, object] | None = None
    additional_gids: tuple[int, ...] | None = None
    net_devices: tuple[dict[str, object], ...] | None = None


class _Device(_Described, frozen=True, kw_only=True):
    name: str
    container_edits: _Edits = _Edits()


class _File(_Described, frozen=True, kw_only=True):
    cdi_version: str
    kind: str
    devices: tuple[_Device, ...] = ()
    container_edits: _Edits = _Edits()


class Known:
    """What the directories describe: each device by its full name, with its file."""

    def __init__(self, directories: Iterable[str]) -> None:
        """Files that can't be read or are no descriptions are left out, and so are devices that two files of one
        directory describe."""
        self.devices: dict[str, tuple[_File, _Device]] = {}
        for directory in directories:
            found: dict[str, tuple[_File, _Device]] = {}
            twice: set[str] = set()
            for file in _files(directory):
                for device in file.devices:
                    name = f"{file.kind}={device.name}"
                    if name in found and found[name][0] is not file:
                        twice.add(name)
                    found[name] = (file, device)
            self.devices |= {name: each for name, each in found.items() if name not in twice}
            for name in twice:
                self.devices.pop(name, None)

    def has_kind(self, kind: str) -> bool:
        return any(name.startswith(f"{kind}=") for name in self.devices)


def _files(directory: str) -> list[_File]:
    found: list[_File] = []
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return found
    for name in names:
        if name.endswith(_SUFFIXES):
            try:
                found.append(_read(f"{directory}/{name}"))
            except (OSError, ValueError, msgspec.MsgspecError):
                continue
    return found


def _read(path: str) -> _File:
    with open(path, "rb") as file:
        content = file.read()
    if path.endswith(".json"):
        found = msgspec.json.decode(content, type=_File)
    else:
        # PyYAML, which is imported where there is such a file alone.
        try:
            found = msgspec.yaml.decode(content, type=_File)
        except ImportError as error:
            raise ValueError(path) from error
    if not _KIND.fullmatch(found.kind) or not all(_NAME.fullmatch(each.name) for each in found.devices):
        raise ValueError(path)
    return found


def names(requests: Sequence[DeviceRequest], known: Known) -> list[str]:
    """The devices' full names. Raises InvalidArgument in Docker's words for a request that nobody serves."""
    found: list[str] = []
    for request in requests:
        if request.driver == "cdi":
            if request.count:
                raise InvalidArgument("unexpected count in CDI device request")
            if request.options:
                raise InvalidArgument("unexpected options in CDI device request")
            found += request.device_ids or ()
        else:
            found += _gpus(request, known)
    return found


def _gpus(request: DeviceRequest, known: Known) -> list[str]:
    """`--gpus`: the vendor's devices by number, name or all."""
    wanted = request.capabilities or ()
    if request.driver not in ("", "nvidia") or not any("gpu" in each for each in wanted) or not known.has_kind(_GPU):
        shown = " ".join(f"[{' '.join(each)}]" for each in wanted)
        raise InvalidArgument(f'could not select device driver "{request.driver}" with capabilities: [{shown}]')
    if request.device_ids:
        return [each if "=" in each else f"{_GPU}={each}" for each in request.device_ids]
    if request.count < 0:
        return [f"{_GPU}=all"]
    return [f"{_GPU}={number}" for number in range(request.count)]


def injected(spec: Spec, host: HostConfig, directories: Sequence[str]) -> Spec:
    """The configuration with the devices that were asked for. Blocks. Raises InvalidArgument, Unsupported."""
    known = Known(directories)
    wanted = names(host.device_requests or (), known)
    missing = [name for name in wanted if name not in known.devices]
    if missing:
        raise InvalidArgument(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}")
    seen: list[_File] = []
    for name in dict.fromkeys(wanted):
        file, device = known.devices[name]
        # What concerns all devices of a file is added once, before the first of them.
        if not any(each is file for each in seen):
            seen.append(file)
            spec = _edited(spec, file.container_edits, name)
        spec = _edited(spec, device.container_edits, name)
    return spec


def _edited(spec: Spec, edits: _Edits, name: str) -> Spec:
    for given, what in ((edits.intel_rdt, "intelRdt"), (edits.net_devices, "netDevices")):
        if given:
            raise Unsupported(f"CDI device {name}: {what} is not supported")
    assert spec.process is not None and spec.linux is not None
    process, linux = spec.process, spec.linux
    own = {entry.partition("=")[0] for entry in edits.env or ()}
    env = (*(each for each in process.env if each.partition("=")[0] not in own), *(edits.env or ()))
    gids = dict.fromkeys((*process.user.additional_gids, *(each for each in edits.additional_gids or () if each)))
    user = msgspec.structs.replace(process.user, additional_gids=tuple(gids))
    devices = [(_device(each, name), each.permissions or "rwm") for each in edits.device_nodes or ()]
    places = {device.path for device, _ in devices}
    rules = tuple(
        DeviceCgroup(allow=True, type=device.type, major=device.major, minor=device.minor, access=access)
        for device, access in devices
        if device.type != "p"
    )
    resources = linux.resources
    assert resources is not None
    mounts = [_mount(each) for each in edits.mounts or ()]
    covered = {each.destination for each in mounts}
    return msgspec.structs.replace(
        spec,
        process=msgspec.structs.replace(process, env=env, user=user),
        mounts=(*(each for each in spec.mounts if each.destination not in covered), *mounts),
        hooks=_hooks(spec.hooks, edits.hooks or (), name),
        linux=msgspec.structs.replace(
            linux,
            devices=(*(each for each in linux.devices if each.path not in places), *(each for each, _ in devices)),
            resources=msgspec.structs.replace(resources, devices=(*resources.devices, *rules)),
        ),
    )


def _device(node: _Node, name: str) -> Device:
    """As it is described, and where that says nothing, as it is on the host."""
    path = node.host_path or node.path
    kind, major, minor = node.type, node.major, node.minor
    mode, uid, gid = node.file_mode, node.uid, node.gid
    if not kind or (kind != "p" and not major and not minor):
        try:
            found = os.stat(path)
        except OSError as error:
            raise InvalidArgument(
                f"CDI device injection failed: device {name}: failed to stat CDI host device {path!r}: "
                f"{(error.strerror or '').lower()}"
            ) from None
        is_character = stat.S_ISCHR(found.st_mode)
        if not is_character and not stat.S_ISBLK(found.st_mode):
            raise InvalidArgument(f"CDI device injection failed: device {name}: {path!r} is not a device node")
        kind, major, minor = "c" if is_character else "b", os.major(found.st_rdev), os.minor(found.st_rdev)
        mode = stat.S_IMODE(found.st_mode) if mode is None else mode
        uid, gid = found.st_uid if uid is None else uid, found.st_gid if gid is None else gid
    return Device(type=kind, path=node.path, major=major, minor=minor, file_mode=mode, uid=uid, gid=gid)


def _mount(given: _Mounted) -> Mount:
    options = tuple(given.options or ())
    kind = given.type or "bind"
    if kind == "bind" and not {"bind", "rbind"} & set(options):
        options = ("bind", *options)
    return Mount(destination=given.container_path, type=kind, source=given.host_path, options=options)


def _hooks(present: Hooks | None, added: Iterable[_Hooked], name: str) -> Hooks | None:
    for each in added:
        kind = _HOOKS.get(each.hook_name)
        if kind is None:
            raise InvalidArgument(f"CDI device injection failed: device {name}: invalid hook name {each.hook_name!r}")
        present = present or Hooks()
        hook = Hook(path=each.path, args=tuple(each.args or ()), env=tuple(each.env or ()), timeout=each.timeout)
        present = msgspec.structs.replace(present, **{kind: (*getattr(present, kind), hook)})
    return present
