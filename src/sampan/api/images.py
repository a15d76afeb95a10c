"""Images on the wire. Docker Engine API 1.24 to 1.51."""

from __future__ import annotations

import msgspec

from sampan.api.containers import APIStruct, Empty, HealthConfig
from sampan.oci.image import Platform


class ImageSummary(APIStruct, frozen=True, kw_only=True):
    """One line of `docker images`. `created` in seconds since the epoch; -1: not counted."""

    containers: int = -1
    created: int
    id: str
    labels: dict[str, str] | None
    parent_id: str = ""
    repo_digests: tuple[str, ...] | None
    repo_tags: tuple[str, ...]
    shared_size: int = -1
    size: int
    virtual_size: int | msgspec.UnsetType = msgspec.UNSET
    """The same as `size`; for clients before API 1.44 alone."""


class GraphDriverData(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The directories of an image's topmost layer."""

    lower_dir: str = ""
    merged_dir: str = ""
    upper_dir: str = ""
    work_dir: str = ""


class GraphDriver(APIStruct, frozen=True, kw_only=True):
    data: GraphDriverData | None
    name: str = "overlay2"


class RootFS(APIStruct, frozen=True, kw_only=True):
    type: str = "layers"
    layers: tuple[str, ...]


class ImageMetadata(APIStruct, frozen=True, kw_only=True):
    last_tag_time: str


class ImageRunConfig(APIStruct, frozen=True, kw_only=True):
    """How an image wants to be run. The first seven are always there, the rest when they say something."""

    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    labels: dict[str, str] | None = None
    on_build: tuple[str, ...] | None = None
    user: str = ""
    volumes: dict[str, Empty] | None = None
    working_dir: str = ""
    exposed_ports: dict[str, Empty] | msgspec.UnsetType = msgspec.UNSET
    healthcheck: HealthConfig | msgspec.UnsetType = msgspec.UNSET
    stop_signal: str | msgspec.UnsetType = msgspec.UNSET
    shell: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    args_escaped: bool | msgspec.UnsetType = msgspec.UNSET


class OldImageConfig(ImageRunConfig, frozen=True, kw_only=True):
    """The same for clients before API 1.50: with a container's members, which say nothing of an image."""

    hostname: str = ""
    domainname: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    image: str = ""


class ImageInspect(APIStruct, frozen=True, kw_only=True):
    """`docker image inspect`. Times are RFC 3339. `container_config`: for clients before API 1.45."""

    id: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    parent: str = ""
    comment: str = ""
    created: str | msgspec.UnsetType
    docker_version: str = ""
    author: str = ""
    container_config: OldImageConfig | msgspec.UnsetType = msgspec.UNSET
    config: ImageRunConfig
    architecture: str
    variant: str | msgspec.UnsetType = msgspec.UNSET
    os: str
    os_version: str | msgspec.UnsetType = msgspec.UNSET
    size: int
    virtual_size: int | msgspec.UnsetType = msgspec.UNSET
    graph_driver: GraphDriver
    root_fs: RootFS = msgspec.field(name="RootFS")
    metadata: ImageMetadata


class HistoryItem(APIStruct, frozen=True, kw_only=True):
    """One step of an image's making, the newest first. Only the first has an id, as there are no parents' images."""

    comment: str
    created: int
    created_by: str
    id: str = "<missing>"
    size: int
    tags: tuple[str, ...] | None = None


class DeleteItem(APIStruct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of what a removal did."""

    untagged: str = ""
    deleted: str = ""


class ImagesPruned(APIStruct, frozen=True, kw_only=True):
    images_deleted: tuple[DeleteItem, ...] | None = None
    space_reclaimed: int = 0


class FileChange(APIStruct, frozen=True, kw_only=True):
    """What a container did to one path. `kind`: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class CommitResponse(APIStruct, frozen=True, kw_only=True):
    id: str


class ProgressDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes."""

    current: int = 0
    total: int = 0


class ProgressMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One message of a pull, a push or an import: a status, for a layer (`id`) or for all."""

    status: str | msgspec.UnsetType = msgspec.UNSET
    progress_detail: ProgressDetail | msgspec.UnsetType = msgspec.UNSET
    progress: str | msgspec.UnsetType = msgspec.UNSET
    id: str | msgspec.UnsetType = msgspec.UNSET
    aux: dict[str, str | int] | msgspec.UnsetType = msgspec.UNSET
    """What a push has made in the registry: Tag, Digest and Size."""


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a load: a line for the user."""

    stream: str


class RegistryAuth(msgspec.Struct, frozen=True, kw_only=True):
    """The `X-Registry-Auth` header, decoded (base64url of JSON)."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class DistributionDescriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    media_type: str
    digest: str
    size: int


class DistributionInspect(APIStruct, frozen=True, kw_only=True):
    """`GET /distribution/{name}/json`."""

    descriptor: DistributionDescriptor
    platforms: tuple[Platform, ...]


class DiskUsage(APIStruct, frozen=True, kw_only=True):
    """`GET /system/df`. What was not asked for is null."""

    layers_size: int = 0
    images: tuple[ImageSummary, ...] | None = None
    containers: tuple[msgspec.Raw, ...] | None = None
    volumes: tuple[msgspec.Raw, ...] | None = None
    build_cache: tuple[Empty, ...] | None = None


class BuildsPruned(APIStruct, frozen=True, kw_only=True):
    caches_deleted: tuple[str, ...] | None = None
    space_reclaimed: int = 0
