"""A container's creation: its record, its writable layer, its directory and its volumes."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import ContainerConfig, CreateRequest, EndpointSettings, HostConfig
from sampan.engine.containers import (
    accept,
    anonymous,
    defaults,
    links,
    log_options,
    networking,
    ownership,
    sharing,
    sources,
)
from sampan.engine.containers.container import Container
from sampan.engine.containers.copyup import fill_volumes
from sampan.engine.containers.mounts import borrowed, parse_volumes_from, wanted_mounts, with_volumes
from sampan.engine.containers.record import Record, Records
from sampan.errors import InvalidArgument, NotFound
from sampan.faults import stage
from sampan.linux.cgroup import hierarchies

if TYPE_CHECKING:
    from sampan.engine.services import Engine


def _lender(engine: Engine, name: str) -> Container:
    """Raises InvalidArgument: it is not what the request is about."""
    try:
        return engine.containers.resolve(name)
    except NotFound as error:
        raise InvalidArgument(error.message) from None


def make(
    engine: Engine, records: Records, request: CreateRequest, host: HostConfig, name: str, platform: str,
    deep_read_only: bool = True,
) -> Record:  # fmt: skip
    """All or nothing. Blocks where volumes are filled. `deep_read_only`: a read-only mount is so with the mounts in it.

    Raises NotFound, InvalidArgument, Conflict, Unavailable."""
    core = engine.core
    image = core.images.get(request.image)
    if platform and image.config.architecture and platform.partition("/")[2].partition("/")[0] not in (
        "", image.config.architecture,
    ):  # fmt: skip
        raise NotFound(
            f"image with reference {request.image} was found but its platform "
            f"({image.config.os}/{image.config.architecture}) does not match the specified platform ({platform})"
        )
    config = ContainerConfig(**{name: getattr(request, name) for name in ContainerConfig.__struct_fields__})
    config = accept.merged(config, image.config.run)
    host = defaults.settled_host(host, engine.config, cgroup2=hierarchies().unified)
    log_options.check(host.log_config)
    host = links.settled(sharing.settled(host, engine.containers.resolve), engine.containers.resolve)
    if request.network_disabled:
        # A network namespace with nothing but the loopback device, whatever is asked for besides.
        host = msgspec.structs.replace(host, network_mode="none")
        request = msgspec.structs.replace(request, networking_config=None, mac_address="")
    networking.check_shared(request, host)
    wanted: dict[str, EndpointSettings] = {}
    if (shared := networking.shared_with(host, engine.containers.resolve)) is not None:
        mode = f"container:{shared.id}"
    else:
        network, wanted = networking.asked_for(engine, request, host.network_mode)
        mode = network.name
    host = msgspec.structs.replace(host, network_mode=mode)
    container_id = os.urandom(32).hex()
    config = msgspec.structs.replace(
        defaults.settled_config(config, host, container_id),
        mac_address=wanted[mode].mac_address if mode in wanted else "",
    )
    others = [
        point
        for name, mode in map(parse_volumes_from, host.volumes_from or ())
        for point in borrowed(_lender(engine, name).record.mounts, mode)
    ]
    mounts = wanted_mounts(host, tuple(config.volumes or {}), engine.config.data_root, others)
    ownership.check(mounts)
    if not deep_read_only:
        mounts = [msgspec.structs.replace(point, deep_read_only=False) for point in mounts]
    fresh = [os.urandom(32).hex() for point in mounts if point.type == "volume" and not point.name]
    with anonymous.announced(core.metadata, container_id, fresh), contextlib.ExitStack() as undo:
        points = with_volumes(mounts, engine.volumes, fresh)
        undo.callback(engine.containers.remove_anonymous, points)
        undo.callback(sources.remove_images, engine, container_id, points)
        points = sources.add_images(engine, container_id, points)
        core.snapshots.create_container(container_id, image.top)
        undo.callback(core.snapshots.remove_container, container_id)
        stage("create.layer")
        bundle = core.paths.bundle(container_id)
        os.mkdir(bundle, 0o710)
        undo.callback(shutil.rmtree, bundle, ignore_errors=True)
        stage("create.bundle")
        fill_volumes(core.snapshots, engine.volumes, container_id, points)
        record = Record(
            id=container_id, name=name, created=time.time_ns(), image=image.id, config=config, host_config=host,
            mounts=points, networks=wanted,
        )  # fmt: skip
        stage("create.filled")
        records.add(record)
        stage("create.recorded")
        undo.pop_all()
    return record
