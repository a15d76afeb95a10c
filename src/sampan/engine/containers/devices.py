"""Devices of the host's in a container, and the limits on block devices: from paths to the kernel's numbers."""

from __future__ import annotations

import os
import re
import stat

from sampan.api import containers as api
from sampan.api.containers import HostConfig, Resources
from sampan.errors import InvalidArgument
from sampan.oci.runtime import BlockIO, Device, DeviceCgroup, ThrottleDevice, WeightDevice

_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")


def of(host: HostConfig) -> tuple[tuple[Device, ...], tuple[DeviceCgroup, ...]]:
    """The devices that a container gets, and the rules that let it use them. Raises InvalidArgument for one that is not
    there, or none."""
    if host.privileged:
        return tuple(_host_devices()), ()
    devices: list[Device] = []
    rules: list[DeviceCgroup] = []
    for mapping in host.devices or ():
        inside = mapping.path_in_container or mapping.path_on_host
        found = [
            (inside + path.removeprefix(mapping.path_on_host), path)
            for path in (_tree(mapping.path_on_host) if os.path.isdir(mapping.path_on_host) else [mapping.path_on_host])
        ]
        for destination, path in found:
            device = _device(path, destination)
            if device is None:
                raise InvalidArgument(
                    f'error gathering device information while adding custom device "{path}": no such file or directory'
                    if not os.path.lexists(path)
                    else f'error gathering device information while adding custom device "{path}": not a device node'
                )
            devices.append(device)
            rules.append(
                DeviceCgroup(
                    allow=True, type=device.type, major=device.major, minor=device.minor,
                    access=mapping.cgroup_permissions or "rwm",
                )
            )  # fmt: skip
    return tuple(devices), (*rules, *(parse_rule(each) for each in host.device_cgroup_rules or ()))


def parse_rule(text: str) -> DeviceCgroup:
    """`c 1:3 rwm`, with `*` for any number and `a` for any kind. Raises InvalidArgument in Docker's words."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    return DeviceCgroup(
        allow=True, type=kind, major=None if major == "*" else int(major), minor=None if minor == "*" else int(minor),
        access=access,
    )  # fmt: skip


def block_io(limits: Resources) -> BlockIO | None:
    """Weights and throttles, with the devices' numbers. Raises InvalidArgument for a device that is not there."""

    def throttles(given: tuple[api.ThrottleDevice, ...] | None) -> tuple[ThrottleDevice, ...]:
        return tuple(
            ThrottleDevice(major=major, minor=minor, rate=each.rate)
            for each in given or ()
            for major, minor in [_numbers(each.path)]
        )

    found = BlockIO(
        weight=limits.blkio_weight or None,
        weight_device=tuple(
            WeightDevice(major=major, minor=minor, weight=each.weight)
            for each in limits.blkio_weight_device or ()
            for major, minor in [_numbers(each.path)]
        ),
        throttle_read_bps_device=throttles(limits.blkio_device_read_bps),
        throttle_write_bps_device=throttles(limits.blkio_device_write_bps),
        throttle_read_iops_device=throttles(limits.blkio_device_read_iops),
        throttle_write_iops_device=throttles(limits.blkio_device_write_iops),
    )
    return found if found != BlockIO() else None


def _numbers(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidArgument(f"stat {path}: {(error.strerror or '').lower()}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"{path} is not a block device")
    return os.major(found.st_rdev), os.minor(found.st_rdev)


def _tree(directory: str) -> list[str]:
    return [f"{at}/{name}" for at, _, names in os.walk(directory) for name in names]


def _device(path: str, destination: str) -> Device | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    return Device(
        type=kind, path=destination, major=os.major(found.st_rdev), minor=os.minor(found.st_rdev),
        file_mode=stat.S_IMODE(found.st_mode), uid=found.st_uid, gid=found.st_gid,
    )  # fmt: skip


def _host_devices() -> list[Device]:
    """Every device of the host's, but for terminals, links and what the container has of its own: /dev/stdin leads to
    a device where this engine reads from one."""
    own = ("/dev/pts/", "/dev/shm/", "/dev/fd/", "/dev/mqueue/", "/dev/console")
    found = (_device(path, path) for path in _tree("/dev") if not path.startswith(own) and not os.path.islink(path))
    return [device for device in found if device is not None]
