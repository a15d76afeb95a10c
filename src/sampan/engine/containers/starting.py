"""A start, stage by stage. What each stage makes is taken back, in reverse, when a later one fails."""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import HostConfig
from sampan.api.exec import ExecCreateRequest
from sampan.core.tasks import Task
from sampan.engine import runtimes
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import (
    announce,
    cdi,
    health,
    links,
    log_options,
    networking,
    ownership,
    propagation,
    sharing,
    sources,
)
from sampan.engine.containers.accept import port_requests
from sampan.engine.containers.container import Container
from sampan.engine.containers.execs import process
from sampan.engine.containers.record import MountPoint, Record
from sampan.engine.containers.spec import Surroundings, build_spec, hostname
from sampan.engine.containers.users import resolve_user
from sampan.errors import Internal, SampanError
from sampan.faults import stage
from sampan.linux.cgroup import hierarchies
from sampan.network import files
from sampan.network.endpoints import Endpoint, Published
from sampan.network.ports import close_all
from sampan.oci.runtime import User
from sampan.shimapi.messages import (
    NO_LOG,
    Create,
    Event,
    RestartName,
    RestartPolicy,
    Spawn,
    WindowSize,
)

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_log = logging.getLogger("sampan.containers")


class Stages:
    """Measures the stages of a start for the debug log."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self._stages: list[str] = []

    def done(self, name: str) -> None:
        now = time.perf_counter()
        self._stages.append(f"{name} {(now - self._last) * 1000:.2f}")
        self._last = now

    def __str__(self) -> str:
        return f"{', '.join(self._stages)}, all {(self._last - self._begin) * 1000:.2f} ms"


async def start(
    engine: Engine, container: Container, on_event: Callable[[Event], None], on_lost: Callable[[], None]
) -> Task:
    """Start a container that does not run. On failure everything is as it was before.

    Raises the kinds of its stages, with Docker's words before what the runtime says.
    """
    record = container.record
    stages = Stages()
    attachments = container.take_pending()
    async with contextlib.AsyncExitStack() as undo:
        descriptors = [descriptor for descriptor, _ in attachments]
        give_up = undo.enter_context(_Descriptors(descriptors))
        endpoint = await networking.wire(engine, record, undo)
        stages.done("network")
        stage("start.network")
        published = Published()
        own = endpoint if endpoint is not None and endpoint.container_id == record.id else None
        requests = port_requests(record.host_config, record.config.exposed_ports or {}) if own else []
        if requests and own is not None:
            published = await run_blocking(engine.network.publish, own, requests, record.name)
            stages.done("ports")
        stage("start.ports")
        sockets = list(published.sockets)
        held = undo.enter_context(_Descriptors(sockets))
        if own is not None and networking.has_names(record):
            life = await engine.names.serve_new(record)
            sockets += [] if life is None else [life]
            stages.done("names")
        undo.callback(_take_back, engine, record.id)
        if sharing.concerns(record.host_config):
            await sharing.pin(engine, record)
        linked: tuple[str, ...] = ()
        if record.host_config.links:
            linked = links.environment(record, links.linked(engine, record))
        points = record.mounts
        if points:
            undo.callback(sources.give_back, engine, record)
            if sources.may_block(engine, points):
                points = await run_blocking(sources.take, engine, record)
            else:
                points = sources.take(engine, record)
        # A mount and a few small files: done sooner than a thread is woken.
        create = _prepare(engine, container, endpoint, linked, points)
        if any(point.chown for point in points):
            await run_blocking(ownership.give, engine, record, points)
        stages.done("files")
        stage("start.files")
        spawn = Spawn(
            create=msgspec.structs.replace(
                create, attachments=tuple(each for _, each in attachments), held=len(sockets)
            )
        )
        give_up.keep()
        held.keep()
        try:
            task: Task = await engine.spawner.spawn(
                spawn, attachments=descriptors, held=sockets, on_event=on_event, on_lost=on_lost
            )
        except SampanError as error:
            raise _runtime_error(error, foreign=bool(create.runtime)) from error
        stages.done("spawn")
        stage("start.spawned")
        undo.pop_all()
    container.update(endpoints=networking.settings_of(engine, record, os.urandom(32).hex()), linked_env=linked)
    announce.taken(engine, record)
    _log.debug("start %s: %s", record.id[:12], stages)
    return task


class _Descriptors:
    """Closes descriptors at the end, unless somebody else has taken them."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors

    def keep(self) -> None:
        self._descriptors = []

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        close_all(self._descriptors)


def _runtime_error(error: SampanError, *, foreign: bool) -> SampanError:
    """With what Docker's engine puts around a runtime's message; its clients look for what is inside."""
    if error.message.startswith(NO_LOG):
        return Internal(f"failed to create task for container: {error.message}")
    own = "" if foreign else "runc create failed: unable to start container process: "
    return type(error)(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"{own}{error.message}"
    )


def _prepare(
    engine: Engine, container: Container, endpoint: Endpoint | None, linked: tuple[str, ...],
    points: tuple[MountPoint, ...],
) -> Create:  # fmt: skip
    """Everything on disk that the shim needs. Blocks. `linked`: what it is told of those that it is linked with.
    `points`: the mounts, with what is to be bound."""
    record, paths = container.record, engine.core.paths
    record = msgspec.structs.replace(record, mounts=propagation.checked(points), linked_env=linked)
    bundle = paths.bundle(record.id)
    # At first: by it the next engine sees what a kill has cut short.
    os.makedirs(paths.shim(record.id), mode=0o700, exist_ok=True)
    root = engine.core.snapshots.mount(record.id, volatile=record.host_config.auto_remove)
    owner = networking.owner(engine, record)
    if owner is record:
        _write_files(engine, container, bundle, endpoint)
    else:
        # The host name belongs to the network that is shared.
        config = msgspec.structs.replace(record.config, hostname=owner.config.hostname)
        record = msgspec.structs.replace(record, config=config)
    user = User()
    if record.config.user or record.host_config.group_add:
        user = resolve_user(root, record.config.user, record.host_config.group_add or ())
    else:
        user = resolve_user(root, "")
    spec = build_spec(
        record,
        Surroundings(
            root=root, bundle=bundle, cgroup=cgroup(container), network=endpoint.path if endpoint else "",
            user=user, cgroup2=hierarchies().unified, files=paths.bundle(owner.id), shim=paths.shim(record.id),
            id_maps=ownership.id_maps(record.mounts, root, user),
        ),
    )  # fmt: skip
    if record.host_config.device_requests:
        spec = cdi.injected(spec, record.host_config, engine.config.cdi_spec_dirs)
    runtime = runtimes.command(engine.config, record.host_config.runtime)
    with open(f"{bundle}/config.json", "wb") as file:
        file.write(msgspec.json.encode(spec))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(paths.exit_file(record.id))
    config, host = record.config, record.host_config
    window = host.console_size
    return Create(
        id=record.id,
        bundle=bundle,
        state_root=paths.foreign_runtime(record.host_config.runtime) if runtime else paths.runtime,
        runtime=runtime,
        run_dir=paths.shim(record.id),
        exit_path=paths.exit_file(record.id),
        terminal=config.tty,
        stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        window=WindowSize(width=window[1], height=window[0]) if window and any(window) else None,
        log=log_options.settled(engine, container.record),
        restart=restart_policy_of(host),
        health=health.wanted(record, lambda cmd: process(root, record, ExecCreateRequest(cmd=cmd))),
    )


def cgroup(container: Container) -> str:
    """The path of the container's control group, from the root of the hierarchy."""
    parent = container.record.host_config.cgroup_parent.strip("/") or "sampan"
    return posixpath.normpath(f"/{parent}/{container.id}")


def restart_policy_of(host: HostConfig) -> RestartPolicy:
    """For the shim."""
    policy = host.restart_policy
    return RestartPolicy(name=RestartName(policy.name or "no"), maximum_retry_count=policy.maximum_retry_count)


def _write_files(engine: Engine, container: Container, bundle: str, endpoint: Endpoint | None) -> None:
    record = container.record
    write_hosts(engine, record)
    texts = {
        "hostname": files.hostname(hostname(record)),
        "resolv.conf": _resolv_conf(engine, record, shared=endpoint is None),
    }
    for name, text in texts.items():
        # In place: the file may be bound into a container that is on its way down.
        with open(f"{bundle}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _resolv_conf(engine: Engine, record: Record, *, shared: bool) -> str:
    """`shared`: the host's network."""
    host, config = record.host_config, engine.config
    return files.resolv_conf(
        files.host_resolv_conf(), host.dns or config.dns, host.dns_search or config.dns_search,
        host.dns_options or config.dns_opts, filter_loopback=not shared,
        names=not shared and networking.has_names(record),
    )  # fmt: skip


def ask_the_resolver(engine: Engine, record: Record) -> None:
    """Have the resolv.conf of a container that runs name the resolver, if one serves it, and if nobody has changed the
    file since the start: then it is older than the configuration, which is written after it."""
    bundle = engine.core.paths.bundle(record.id)
    start = os.stat(f"{bundle}/config.json").st_mtime_ns
    if networking.has_names(record) and os.stat(f"{bundle}/resolv.conf").st_mtime_ns <= start:
        with open(f"{bundle}/resolv.conf", "w", encoding="utf-8") as file:
            file.write(_resolv_conf(engine, record, shared=False))
        os.utime(f"{bundle}/resolv.conf", ns=(start, start))


def write_hosts(engine: Engine, record: Record) -> None:
    """Its /etc/hosts, by the networks that it is on at the moment."""
    extra = record.host_config.extra_hosts or ()
    if record.host_config.network_mode == "host":
        text = files.host_hosts(extra, "127.0.0.1")
    else:
        gateway = engine.network.network("bridge").gateway
        addresses = [ip for each in engine.network.endpoints(record.id) for ip in each.addresses]
        linked = links.hosts(engine, record)
        text = files.hosts(hostname(record), record.config.domainname, addresses, extra, gateway, linked)
    # In place: the file may be bound into a container that runs, or is on its way down.
    with open(f"{engine.core.paths.bundle(record.id)}/hosts", "w", encoding="utf-8") as file:
        file.write(text)


def _take_back(engine: Engine, container_id: str) -> None:
    """What `_prepare` made, as far as it came."""
    with contextlib.suppress(SampanError, OSError):
        engine.core.snapshots.unmount(container_id)
    sharing.unpin(engine.core.paths.shim(container_id))
    shutil.rmtree(engine.core.paths.shim(container_id), ignore_errors=True)
