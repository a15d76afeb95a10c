"""List and inspect: a container as Docker's clients want to see it, and the filters of the list."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from sampan.api import container_documents as api
from sampan.api.containers import EndpointSettings, PortBinding, words
from sampan.engine.containers import health, links, networking
from sampan.engine.containers.container import Container
from sampan.engine.containers.defaults import DEFAULT_NETWORK
from sampan.engine.containers.record import Record, rfc3339
from sampan.engine.http.filters import boolean_filter
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.network.endpoints import PortBinding as Published
from sampan.network.ports import parse_range

if TYPE_CHECKING:
    from sampan.engine.services import Engine

_FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")


def status_text(container: Container, now: int | None = None) -> str:
    """`Up 5 minutes`, `Exited (0) 2 hours ago`, …"""
    now = time.time_ns() if now is None else now
    state = container.record.state
    match container.status:
        case "created":
            return "Created"
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
        case "restarting":
            return f"Restarting ({state.exit_code}) {duration(now - state.finished_at)} ago"
        case "exited":
            return f"Exited ({state.exit_code}) {duration(now - state.finished_at)} ago"
        case "paused":
            return f"Up {duration(now - state.started_at)} (Paused)"
        case _:
            return f"Up {duration(now - state.started_at)}{health.words(state.health)}"


def duration(nanoseconds: int) -> str:
    """In Docker's words, rounded down."""
    seconds = max(0, nanoseconds) // 1_000_000_000
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = (seconds + 1800) // 3600
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for size, name in ((24 * 7 * 2, "days"), (24 * 30 * 2, "weeks"), (24 * 365 * 2, "months")):
        if hours < size:
            return f"{hours // {'days': 24, 'weeks': 24 * 7, 'months': 24 * 30}[name]} {name}"
    return f"{hours // (24 * 365)} years"


def _mounts(container: Container) -> tuple[api.SummaryMount, ...]:
    """What `--tmpfs` asks for is shown in HostConfig alone."""
    short = container.record.host_config.tmpfs or {}
    return tuple(
        api.SummaryMount(
            type=point.type,
            name=point.name or msgspec.UNSET,
            source=point.source,
            destination=point.destination,
            driver="local" if point.type == "volume" else msgspec.UNSET,
            mode=point.mode,
            rw=point.writable,
            propagation=point.propagation,
        )
        for point in container.record.mounts
        if not (point.type == "tmpfs" and point.destination in short)
    )


def _networks(container: Container) -> dict[str, EndpointSettings]:
    record = container.record
    if container.running:
        return record.endpoints
    # Without a process there is no endpoint; which networks it will be on is known all the same.
    found = dict(networking.wanted_of(record))
    for name, wanted in found.items():
        if known := record.endpoints.get(name):
            found[name] = msgspec.structs.replace(
                wanted, network_id=known.network_id, mac_address="", dns_names=known.dns_names
            )  # fmt: skip
    return found


def _command(container: Container) -> str:
    config = container.record.config
    parts = [*words(config.entrypoint), *words(config.cmd)]
    return " ".join(f"'{part}'" if " " in part else part for part in parts)


def summary(
    engine: Engine, container: Container, *, size: bool = False, api_version: tuple[int, int] = (1, 51),
    others: Mapping[str, list[str]] | None = None,
) -> api.ContainerSummary:  # fmt: skip
    """`others`: the names that links give, by id."""
    record = container.record
    annotations = record.host_config.annotations if api_version >= (1, 46) else None
    return api.ContainerSummary(
        id=record.id,
        names=(*(others or {}).get(record.id, ()), f"/{record.name}"),
        image=_image_name(engine, container),
        image_id=record.image,
        command=_command(container),
        created=record.created // 1_000_000_000,
        ports=tuple(_published(engine, container)),
        size_rw=(engine.core.snapshots.usage(record.id) or msgspec.UNSET) if size else msgspec.UNSET,
        size_root_fs=(_size_root_fs(engine, container) or msgspec.UNSET) if size else msgspec.UNSET,
        labels=record.config.labels or {},
        state=container.status,
        status=status_text(container),
        host_config=api.SummaryHostConfig(
            network_mode=_network_mode(container), annotations=annotations or msgspec.UNSET
        ),
        network_settings=api.SummaryNetworks(networks=_networks(container)),
        mounts=_mounts(container),
    )


def _published(engine: Engine, container: Container) -> list[api.Port]:
    """While it runs: what is published, and what is merely exposed."""
    if not container.running:
        return []
    bindings = engine.network.bindings(container.id)
    published = {(each.container_port, each.protocol) for each in bindings}
    ports = [
        api.Port(ip=each.host_ip, private_port=each.container_port, public_port=each.host_port, type=each.protocol)
        for each in bindings
    ]
    for name in container.record.config.exposed_ports or {}:
        port, _, protocol = name.partition("/")
        if port.isdigit() and (int(port), protocol or "tcp") not in published:
            ports.append(api.Port(private_port=int(port), type=protocol or "tcp"))
    return ports


def _network_mode(container: Container) -> str:
    return container.record.host_config.network_mode


def _image_name(engine: Engine, container: Container) -> str:
    """The name that it was created by, as long as that still means the same image."""
    record = container.record
    try:
        if engine.core.images.get(record.config.image).id == record.image:
            return record.config.image
    except SampanError:
        pass
    return record.image


def _size_root_fs(engine: Engine, container: Container) -> int:
    own: int = engine.core.snapshots.usage(container.id)
    try:
        return own + int(engine.core.images.get(container.record.image).size)
    except NotFound:
        return own


def inspect(engine: Engine, container: Container, *, size: bool = False) -> api.ContainerInspect:
    record, paths = container.record, engine.core.paths
    state, bundle = record.state, engine.core.paths.bundle(record.id)
    command = (*words(record.config.entrypoint), *words(record.config.cmd))
    endpoints = _networks(container)
    # The members at the top are the default network's alone.
    first = endpoints.get(DEFAULT_NETWORK, EndpointSettings())
    endpoint = engine.network.endpoint(record.id) if container.running else None
    graph = engine.core.snapshots.graph_data(record.id)
    # A start writes the files, whether it succeeds or not.
    has_files = bool(state.started_at or state.error)
    has_log = has_files and record.host_config.log_config.type == "json-file"
    return api.ContainerInspect(
        id=record.id,
        created=rfc3339(record.created),
        path=command[0] if command else "",
        args=command[1:],
        state=api.State(
            status=container.status, running=container.running, paused=container.paused,
            restarting=container.restarting, oom_killed=state.oom_killed, dead=container.dead, pid=container.pid,
            exit_code=state.exit_code, error=state.error, started_at=rfc3339(state.started_at),
            finished_at=rfc3339(state.finished_at), health=health.shown(state.health),
        ),
        image=record.image,
        resolv_conf_path=f"{bundle}/resolv.conf" if has_files else "",
        hostname_path=f"{bundle}/hostname" if has_files else "",
        hosts_path=f"{bundle}/hosts" if has_files else "",
        log_path=paths.log(record.id) if has_log else "",
        name=f"/{record.name}",
        restart_count=state.restart_count,
        exec_ids=tuple(engine.execs.of_container(record.id)) or None,
        host_config=api.shown(
            msgspec.structs.replace(record.host_config, links=links.shown(record, engine.containers))
        ),
        graph_driver=api.GraphDriver(data=msgspec.to_builtins(graph)),
        size_rw=engine.core.snapshots.usage(record.id) if size else msgspec.UNSET,
        size_root_fs=_size_root_fs(engine, container) if size else msgspec.UNSET,
        mounts=_mounts(container),
        config=api.shown(record.config),
        network_settings=api.NetworkSettings(
            sandbox_id=endpoint.sandbox_id if endpoint else "",
            sandbox_key=endpoint.path if endpoint else "",
            ports=_ports(engine, container),
            endpoint_id=first.endpoint_id,
            gateway=first.gateway,
            ip_address=first.ip_address,
            ip_prefix_len=first.ip_prefix_len,
            mac_address=first.mac_address,
            networks=endpoints,
        ),
        at_next_start=_at_next_start(record),
    )  # fmt: skip


def _at_next_start(record: Record) -> api.AtNextStart | msgspec.UnsetType:
    if record.edit is None:
        return msgspec.UNSET
    return api.AtNextStart(**{name: getattr(record.edit, name) for name in api.AtNextStart.__struct_fields__})


def _ports(engine: Engine, container: Container) -> dict[str, tuple[PortBinding, ...] | None]:
    result: dict[str, tuple[PortBinding, ...] | None] = {}
    if container.running:
        for name in container.record.config.exposed_ports or {}:
            result[name if "/" in name else f"{name}/tcp"] = None
    bindings: tuple[Published, ...] = engine.network.bindings(container.id) if container.running else ()
    for each in bindings:
        key = f"{each.container_port}/{each.protocol}"
        binding = PortBinding(host_ip=each.host_ip, host_port=str(each.host_port))
        result[key] = (*(result.get(key) or ()), binding)
    return result


# --- Filters -----------------------------------------------------------------------------------------------


def listed(engine: Engine, filters: Mapping[str, list[str]], *, all_: bool, limit: int) -> list[Container]:
    """The containers of `GET /containers/json`, the newest first. Raises InvalidArgument for an unknown filter."""
    for name in filters:
        if name not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    for status in filters.get("health", ()):
        if status not in _HEALTH:
            raise InvalidArgument(
                f"invalid filter 'health={status}': invalid value for health ({status}): must be one of "
                + ", ".join(_HEALTH)
            )
    is_task = boolean_filter(filters, "is-task")
    exposed, published = _wanted_ports(filters, "expose"), _wanted_ports(filters, "publish")
    for status in filters.get("status", ()):
        if status not in _STATUSES:
            raise InvalidArgument(
                f"invalid filter 'status={status}': invalid value for state ({status}): must be one of created, "
                "running, paused, restarting, removing, exited, dead"
            )
    for code in filters.get("exited", ()):
        if not code.removeprefix("-").isdigit():
            raise InvalidArgument(f"invalid filter 'exited={code}': strconv.Atoi: parsing \"{code}\": invalid syntax")
    containers = engine.containers.all()
    if not all_ and limit <= 0 and not {"status", "exited"} & set(filters):
        containers = [each for each in containers if each.running]
    containers = _between(engine, containers, filters)
    images = {_image_id(engine, name) for name in filters.get("ancestor", ())}
    found = [each for each in containers if _matches(each, filters) and (not images or each.record.image in images)]
    if exposed or published:
        found = [each for each in found if _has_port(engine, each, exposed, published)]
    if is_task:
        found = []  # A task is a swarm's.
    return found[:limit] if limit > 0 else found


def _wanted_ports(filters: Mapping[str, list[str]], name: str) -> set[tuple[int, str]]:
    """`80`, `80/udp` or `80-90/tcp`. Raises InvalidArgument in Docker's words."""
    found: set[tuple[int, str]] = set()
    for text in filters.get(name, ()):
        number, _, protocol = text.partition("/")
        try:
            first, last = parse_range(number)
        except InvalidArgument as error:
            raise InvalidArgument(f"error while looking up for {name} {text}: {error.message}") from None
        found |= {(port, protocol or "tcp") for port in range(first, last + 1)}
    return found


def _has_port(
    engine: Engine, container: Container, exposed: set[tuple[int, str]], published: set[tuple[int, str]]
) -> bool:  # fmt: skip
    return any(
        (each.private_port, each.type) in exposed or (each.public_port, each.type) in published
        for each in _published(engine, container)
    )


def _image_id(engine: Engine, name: str) -> str:
    try:
        return str(engine.core.images.get(name).id)
    except SampanError:
        return name


def _between(engine: Engine, containers: list[Container], filters: Mapping[str, list[str]]) -> list[Container]:
    for name in filters.get("before", ())[:1]:
        moment = engine.containers.resolve(name).record.created
        containers = [each for each in containers if each.record.created < moment]
    for name in filters.get("since", ())[:1]:
        moment = engine.containers.resolve(name).record.created
        containers = [each for each in containers if each.record.created > moment]
    return containers


def _matches(container: Container, filters: Mapping[str, list[str]]) -> bool:
    record = container.record
    labels = record.config.labels or {}

    def has(name: str, test: object) -> bool:
        wanted = filters.get(name)
        return not wanted or any(test(value) for value in wanted)  # type: ignore[operator]

    return (
        has("id", record.id.startswith)
        and has("name", lambda value: _name_matches(value, record.name))
        and has("status", lambda value: value == container.status)
        and has("health", lambda value: value == (record.state.health.status if record.state.health else "none"))
        and has("exited", lambda value: container.status == "exited" and str(record.state.exit_code) == value)
        and has("volume", lambda value: any(value in (each.name, each.destination) for each in record.mounts))
        and has("network", lambda value: value in _network_names(container))
        and all(labelled(labels, value) for value in filters.get("label", ()))
    )


def _network_names(container: Container) -> set[str]:
    record = container.record
    ids = (each.network_id for each in record.endpoints.values())
    return {_network_mode(container), *networking.wanted_of(record), *ids}


def _name_matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None or re.search(pattern, f"/{name}") is not None
    except re.error:
        raise InvalidArgument(f"invalid filter 'name={pattern}'") from None


def labelled(labels: Mapping[str, str], wanted: str) -> bool:
    """`key`, or `key=value`."""
    key, separator, value = wanted.partition("=")
    return key in labels and (not separator or labels[key] == value)
