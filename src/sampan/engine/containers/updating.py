"""`update`: a container that is there is changed, and keeps its writable layer and its name.

Limits, the restart policy and published ports change at once, also of one that runs. Its command, environment and
mounts are what its process was made with: of a container that runs, they change at its next start (`Record.edit`).
Labels are the engine's alone and change at once. Docker's clients send limits and the policy, none of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import ContainerConfig, CreateRequest, Empty, HostConfig, UpdateRequest, words
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import accept, limits, ownership, starting
from sampan.engine.containers.copyup import fill_volumes
from sampan.engine.containers.mounts import borrowed, parse_volumes_from, wanted_mounts, with_volumes
from sampan.engine.containers.record import Edit, MountPoint, Record
from sampan.engine.containers.spec import resources
from sampan.errors import Conflict, InvalidArgument, Unsupported
from sampan.network.ports import close_all

if TYPE_CHECKING:
    from sampan.engine.containers.container import Container
    from sampan.engine.services import Engine

_LIMITS = (
    "cpu_shares", "memory", "nano_cpus", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "memory_reservation",
    "memory_swap", "pids_limit", "blkio_weight",
)  # fmt: skip
_MADE_WITH = ("env", "cmd", "entrypoint")
_MOUNTED = ("binds", "mounts", "tmpfs")


async def update(engine: Engine, container: Container, request: UpdateRequest) -> tuple[str, ...]:
    """All or nothing. Warnings for the client. Raises InvalidArgument, and what the kernel, the volumes and the ports
    raise."""
    limits.check_resources(request)
    accept.check_restart_policy(request.restart_policy)
    async with container.lock:
        record = container.record
        _check_conflicts(record.host_config, request)
        host = _changed_host(record.host_config, request)
        config = _changed_config(record.config, request)
        edit = _changed_edit(record.edit, request)
        later = _edited(msgspec.structs.replace(record, config=config, host_config=host), edit)
        _check(engine, later)
        if any(getattr(request, name) is not None for name in _MOUNTED):
            points = await run_blocking(_points, engine, record, later)
            edit = msgspec.structs.replace(edit, points=points)
        if container.task is not None:
            try:
                await _change_live(engine, container, host, request)
            except BaseException:
                await run_blocking(engine.containers.remove_anonymous, edit.points or ())
                raise
        container.update(config=config, host_config=host, edit=edit if edit != Edit() else None)
        if container.task is None:
            await settle(engine, container)
            return ()
    waiting = [name.capitalize() for name in (*_MADE_WITH, *_MOUNTED) if getattr(request, name) is not None]
    return (f"{', '.join(waiting)}: from the container's next start on",) if waiting else ()


async def settle(engine: Engine, container: Container) -> None:
    """Before a start, or at once: make true what waits for the process to be made anew. Raises what volumes raise."""
    record = container.record
    edit = record.edit
    if edit is None:
        return
    record = _edited(record, edit)
    if edit.points is not None:
        known = {point.source for point in record.mounts}
        fresh = [point for point in edit.points if point.source not in known]
        await run_blocking(fill_volumes, engine.core.snapshots, engine.volumes, record.id, fresh)
        record = msgspec.structs.replace(record, mounts=edit.points)
    container.update(config=record.config, host_config=record.host_config, mounts=record.mounts, edit=None)


def _check_conflicts(host: HostConfig, request: UpdateRequest) -> None:
    """What does not go with what is set already. Raises Conflict, in Docker's words."""
    if host.auto_remove and request.restart_policy is not None and request.restart_policy.name not in ("", "no"):
        raise InvalidArgument("Restart policy cannot be updated because AutoRemove is enabled for the container")
    if request.memory and not request.memory_swap and 0 < host.memory_swap < request.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    for have, wanted, what, because in (
        (host.nano_cpus, request.cpu_period, "CPU Period", "NanoCPUs"),
        (host.nano_cpus, request.cpu_quota, "CPU Quota", "NanoCPUs"),
        (host.cpu_period, request.nano_cpus, "NanoCPUs", "CPU Period"),
        (host.cpu_quota, request.nano_cpus, "NanoCPUs", "CPU Quota"),
    ):
        if have > 0 and wanted > 0:
            raise Conflict(f"Conflicting options: {what} cannot be updated as {because} has already been set")


def _changed_host(host: HostConfig, request: UpdateRequest) -> HostConfig:
    changes = {field: getattr(request, field) for field in _LIMITS if getattr(request, field)}
    if request.restart_policy is not None and request.restart_policy.name:
        changes["restart_policy"] = request.restart_policy
    if request.port_bindings is not None:
        changes["port_bindings"] = request.port_bindings
    if request.publish_all_ports is not None:
        changes["publish_all_ports"] = request.publish_all_ports
    return msgspec.structs.replace(host, **changes)


def _changed_config(config: ContainerConfig, request: UpdateRequest) -> ContainerConfig:
    if request.port_bindings:
        exposed = {**(config.exposed_ports or {}), **{name: Empty() for name in request.port_bindings}}
        config = msgspec.structs.replace(config, exposed_ports=exposed)
    if request.labels is not None:
        config = msgspec.structs.replace(config, labels=request.labels)
    return config


def _changed_edit(edit: Edit | None, request: UpdateRequest) -> Edit:
    changes: dict[str, object] = {name: getattr(request, name) for name in (*_MADE_WITH, *_MOUNTED)}
    for name in ("cmd", "entrypoint"):
        if changes[name] is not None:
            changes[name] = words(getattr(request, name))
    return msgspec.structs.replace(
        edit or Edit(), **{name: value for name, value in changes.items() if value is not None}
    )  # fmt: skip


def _edited(record: Record, edit: Edit) -> Record:
    """With the configuration that the next start is for; its mounts are in `edit.points`."""
    config = {name: getattr(edit, name) or None for name in _MADE_WITH if getattr(edit, name) is not None}
    host = {name: getattr(edit, name) or None for name in _MOUNTED if getattr(edit, name) is not None}
    return msgspec.structs.replace(
        record, config=msgspec.structs.replace(record.config, **config),
        host_config=msgspec.structs.replace(record.host_config, **host),
    )  # fmt: skip


def _check(engine: Engine, record: Record) -> None:
    """As if it were to be created so. Raises InvalidArgument, Unsupported."""
    config, host = record.config, record.host_config
    if not config.cmd and not config.entrypoint:
        raise InvalidArgument("no command specified")
    given = {name: getattr(config, name) for name in ContainerConfig.__struct_fields__}
    # A port that its own network is to publish; with another's or the host's there is nothing to be done.
    if host.port_bindings and (host.network_mode == "host" or host.network_mode.startswith("container:")):
        raise InvalidArgument(f"conflicting options: port publishing and network mode {host.network_mode}")
    accept.check(CreateRequest(**given, host_config=host))


def _points(engine: Engine, old: Record, new: Record) -> tuple[MountPoint, ...]:
    """The mounts of the next start, their volumes made. An anonymous volume that is there is kept where it was. Blocks.
    Raises InvalidArgument, Unsupported (mounts of images), NotFound (volumes of a container that is gone), and what the
    volumes raise."""
    host = new.host_config
    others = [
        point
        for name, mode in map(parse_volumes_from, host.volumes_from or ())
        for point in borrowed(engine.containers.resolve(name).record.mounts, mode)
    ]
    wanted = wanted_mounts(host, tuple(new.config.volumes or {}), engine.config.data_root, others)
    known = (*old.mounts, *(old.edit.points or () if old.edit else ()))
    anonymous = {point.destination: point.name for point in known if point.anonymous}
    kept = [
        msgspec.structs.replace(point, name=anonymous[point.destination])
        if point.anonymous and not point.name and point.destination in anonymous
        else point
        for point in wanted
    ]
    # An image's mount is a snapshot that is named for its place among the others.
    if any(point.type == "image" for point in (*kept, *old.mounts)):
        raise Unsupported("mounts of images can't be added to a container that is there, nor changed with others")
    ownership.check(kept)
    return with_volumes(kept, engine.volumes)


async def _change_live(engine: Engine, container: Container, host: HostConfig, request: UpdateRequest) -> None:
    """Limits and policy, then ports: these can only fail before anything of theirs is changed."""
    assert container.task is not None
    before = container.record.host_config
    await container.task.update(resources=resources(host), restart=starting.restart_policy_of(host))
    if request.port_bindings is None and request.publish_all_ports is None:
        return
    try:
        await _publish(engine, container, msgspec.structs.replace(container.record, host_config=host))
    except BaseException:
        await container.task.update(resources=resources(before), restart=starting.restart_policy_of(before))
        raise


async def _publish(engine: Engine, container: Container, record: Record) -> None:
    """Have exactly these ports published. Raises ResourceExhausted, Unavailable; then all is as it was."""
    task = container.task
    endpoint = engine.network.endpoint(record.id)
    if task is None or endpoint is None:
        return
    requests = accept.port_requests(record.host_config, record.config.exposed_ports or {})
    published = await run_blocking(engine.network.publish, endpoint, requests, record.name)
    try:
        await task.hold(published.sockets, published.withdrawn)
    finally:
        close_all(published.sockets)
