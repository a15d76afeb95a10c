"""Volumes on the wire. Docker Engine API 1.24 to 1.51 (`Volume`, `VolumeCreateOptions`)."""

from __future__ import annotations

import msgspec

from sampan.api.containers import APIStruct


class VolumeUsage(APIStruct, frozen=True, kw_only=True):
    """Bytes on disk, and how many containers name the volume; -1: not counted."""

    ref_count: int = -1
    size: int = -1


class VolumeDocument(APIStruct, frozen=True, kw_only=True):
    """`created_at` is RFC 3339, to the second. `usage_data` comes with `/system/df` alone."""

    created_at: str
    driver: str = "local"
    labels: dict[str, str] | None = None
    mountpoint: str
    name: str
    options: dict[str, str] | None = None
    scope: str = "local"
    usage_data: VolumeUsage | msgspec.UnsetType = msgspec.UNSET


class VolumeList(APIStruct, frozen=True, kw_only=True):
    volumes: tuple[VolumeDocument, ...] | None
    warnings: tuple[str, ...] | None = None


class VolumeCreateRequest(APIStruct, frozen=True, kw_only=True):
    """No name: an anonymous volume."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, object] | None = None


class VolumesPruned(APIStruct, frozen=True, kw_only=True):
    volumes_deleted: tuple[str, ...] | None
    space_reclaimed: int = 0
