"""`--link`: legacy links on the default bridge. The linking container has the other's names in its /etc/hosts and what
it exposes in its environment, and the other one answers to the name `LINKING/ALIAS` as well.

In a record a link is `ID:ALIAS`: names may change. Following the Docker Engine API (`HostConfig.Links`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from sampan.api.containers import HostConfig
from sampan.engine.containers.container import Container
from sampan.engine.containers.record import Record
from sampan.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from sampan.engine.containers.service import Containers
    from sampan.engine.services import Engine

_BRIDGE = "bridge"
_HOST = (
    "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
)  # fmt: skip
_NOT_PASSED_ON = ("HOME", "PATH")


def parse(text: str) -> tuple[str, str]:
    """`NAME[:ALIAS]`, or `/NAME:/LINKING/ALIAS` as inspect shows it: name and alias. Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("empty string specified for links")
    name, *rest = text.split(":")
    if len(rest) > 1:
        raise InvalidArgument(f"bad format for links: {text}")
    alias = rest[0] if rest else name
    if name.startswith("/"):
        name, alias = name[1:], alias.rpartition("/")[2]
    if not name or not alias or any(c.isspace() or c in "/\0" for c in alias):
        raise InvalidArgument(f"bad format for links: {text}")
    return name, alias


def settled(host: HostConfig, resolve: Callable[[str], Container]) -> HostConfig:
    """With the ids of those that are linked. Raises InvalidArgument in Docker's words."""
    if not host.links:
        return host
    found: dict[str, str] = {}
    for name, alias in map(parse, host.links):
        try:
            other = resolve(name)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error.message}") from None
        if other.record.host_config.network_mode == "host":
            raise InvalidArgument(_HOST)
        found[alias] = other.id
    return msgspec.structs.replace(host, links=tuple(f"{other}:{alias}" for alias, other in found.items()))


def of(record: Record) -> list[tuple[str, str]]:
    """Id and alias of each link."""
    return [(each.partition(":")[0], each.partition(":")[2]) for each in record.host_config.links or ()]


def shown(record: Record, containers: Containers) -> tuple[str, ...] | None:
    """As inspect has them; links to what is removed are no more."""
    found = ((containers.find(other), alias) for other, alias in of(record))
    return tuple(f"/{each.name}:/{record.name}/{alias}" for each, alias in found if each is not None) or None


def names(containers: Iterable[Container]) -> dict[str, list[str]]:
    """Each linked container's other names, by its id."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for other, alias in of(container.record):
            found.setdefault(other, []).append(f"/{container.name}/{alias}")
    return found


def by_name(name: str, find: Callable[[str], Record | None]) -> tuple[Record, str] | None:
    """For `LINKING/ALIAS`: the linking container and the id of the other one."""
    linking, slash, alias = name.strip("/").rpartition("/")
    record = find(linking) if slash else None
    if record is not None:
        for other, called in of(record):
            if called == alias:
                return record, other
    return None


# --- At a start -------------------------------------------------------------------------------------


def linked(engine: Engine, record: Record) -> list[tuple[Container, str]]:
    """Those that it is linked with, and by what alias. Raises Conflict for one that does not run or is not on the
    default bridge."""
    if record.host_config.network_mode != _BRIDGE:
        return []
    found: list[tuple[Container, str]] = []
    for other, alias in of(record):
        container = engine.containers.find(other)
        if container is None:
            continue
        if not container.running:
            raise Conflict(f"Cannot link to a non running container: /{container.name} AS /{record.name}/{alias}")
        if not _address(container.record):
            raise Conflict(f"container {container.id} not attached to default bridge network")
        found.append((container, alias))
    return found


def hosts(engine: Engine, record: Record) -> list[tuple[str, str]]:
    """Address and names for /etc/hosts, of those that run."""
    if not record.host_config.links or record.host_config.network_mode != _BRIDGE:
        return []
    found = ((engine.containers.find(other), alias) for other, alias in of(record))
    return [
        (_address(each.record), " ".join(dict.fromkeys((alias, each.record.config.hostname, each.name))))
        for each, alias in found
        if each is not None and each.running and _address(each.record)
    ]


def _address(record: Record) -> str:
    endpoint = record.endpoints.get(_BRIDGE)
    return endpoint.ip_address if endpoint is not None else ""


def environment(record: Record, others: Iterable[tuple[Container, str]]) -> tuple[str, ...]:
    """What the linking container is told of the others: name, exposed ports, and their own environment."""
    found: list[str] = []
    for other, alias in others:
        prefix = alias.replace("-", "_").upper()
        address = _address(other.record)
        ports = sorted(_ports(other.record))
        if ports:
            found.append(f"{prefix}_PORT={ports[0][1]}://{address}:{ports[0][0]}")
        for run in _runs(ports):
            found += _told(prefix, address, run)
        found.append(f"{prefix}_NAME=/{record.name}/{alias}")
        for entry in other.record.config.env or ():
            name, equals, value = entry.partition("=")
            if equals and name not in _NOT_PASSED_ON:
                found.append(f"{prefix}_ENV_{name}={value}")
    return tuple(found)


def _ports(record: Record) -> Iterator[tuple[int, str]]:
    for text in record.config.exposed_ports or {}:
        number, _, protocol = text.partition("/")
        if number.isdigit():
            yield int(number), protocol or "tcp"


def _runs(ports: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
    """Ports that follow one another, with one protocol, together."""
    runs: list[list[tuple[int, str]]] = []
    for number, protocol in sorted(ports, key=lambda port: (port[1], port[0])):
        if runs and runs[-1][-1] == (number - 1, protocol):
            runs[-1].append((number, protocol))
        else:
            runs.append([(number, protocol)])
    return runs


def _told(prefix: str, address: str, run: list[tuple[int, str]]) -> list[str]:
    found: list[str] = []
    (first, protocol), (last, _) = run[0], run[-1]
    if first != last:
        key = f"{prefix}_PORT_{first}_{protocol.upper()}"
        found += [
            f"{key}_START={protocol}://{address}:{first}", f"{key}_PORT_START={first}",
            f"{key}_END={protocol}://{address}:{last}", f"{key}_PORT_END={last}",
        ]  # fmt: skip
    for number, _ in run:
        key = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found += [
            f"{key}={protocol}://{address}:{number}", f"{key}_ADDR={address}", f"{key}_PORT={number}",
            f"{key}_PROTO={protocol}",
        ]  # fmt: skip
    return found


def refresh(engine: Engine, containers: Iterable[Container], started: str) -> None:
    """One that others are linked with has started, and may have another address now."""
    from sampan.engine.containers.starting import write_hosts  # It imports this module.

    for container in containers:
        links = container.record.host_config.links
        if links and container.running and any(other == started for other, _ in of(container.record)):
            write_hosts(engine, container.record)


# --- Changes ----------------------------------------------------------------------------------------


async def remove(containers: Containers, name: str) -> None:
    """`rm --link LINKING/ALIAS`. Raises NotFound, and Conflict for a container's own name."""
    found = containers.link(name)
    if found is None:
        containers.resolve(name)
        raise Conflict("Conflict, cannot remove the default link name of the container")
    record, other = found
    alias = name.strip("/").rpartition("/")[2]
    container = containers.resolve(record.id)
    async with container.lock:
        host = container.record.host_config
        rest = tuple(each for each in host.links or () if each != f"{other}:{alias}")
        container.update(host_config=msgspec.structs.replace(host, links=rest or None))
