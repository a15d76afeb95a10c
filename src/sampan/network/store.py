"""The network layer's rows in the metadata database: networks, endpoints and published ports.

An endpoint's row is written before its namespace and interface are made and deleted after they are gone; a port's row
stands from before the reservation until after the rules are withdrawn. What the kernel holds is so always known here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

import msgspec

from sampan.core.metadata import Metadata
from sampan.network.definitions import Definition
from sampan.network.endpoints import Endpoint, NetworkInfo

_SCHEMA = (
    """CREATE TABLE network (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, created INTEGER NOT NULL,
        address TEXT NOT NULL DEFAULT '', last_address INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    """CREATE TABLE network_endpoint (
        id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, network_id TEXT NOT NULL REFERENCES network (id),
        container_id TEXT NOT NULL, path TEXT NOT NULL, ip INTEGER, prefix INTEGER NOT NULL, gateway TEXT NOT NULL,
        mac TEXT NOT NULL, host_interface TEXT NOT NULL, UNIQUE (network_id, ip)) WITHOUT ROWID""",
    """CREATE TABLE network_port (
        protocol TEXT NOT NULL, host_port INTEGER NOT NULL, host_ip TEXT NOT NULL,
        endpoint_id TEXT NOT NULL REFERENCES network_endpoint (id) ON DELETE CASCADE, container_port INTEGER NOT NULL,
        PRIMARY KEY (protocol, host_port, host_ip)) WITHOUT ROWID""",
    "CREATE INDEX network_port_endpoint ON network_port (endpoint_id)",
)

_SCHEMA_2 = (
    "ALTER TABLE network ADD COLUMN definition BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE network_endpoint ADD COLUMN interface TEXT NOT NULL DEFAULT 'eth0'",
    "ALTER TABLE network_endpoint ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE network_endpoint ADD COLUMN bare INTEGER NOT NULL DEFAULT 0",
)

_SCHEMA_3 = (
    "ALTER TABLE network_endpoint ADD COLUMN ip6 TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE network_endpoint ADD COLUMN prefix6 INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE network_endpoint ADD COLUMN gateway6 TEXT NOT NULL DEFAULT ''",
)

_DEFAULT_NETWORKS = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


@dataclass(frozen=True)
class NetworkRow:
    id: str
    name: str
    driver: str
    created: int
    address: IPv4Interface | None
    """The default bridge's; None before it is chosen, and for all others."""
    last_address: int
    definition: Definition | None = None
    """A user-defined one's."""


def described(row: NetworkRow, definition: Definition | None) -> NetworkInfo:
    """For list and inspect, without its endpoints."""
    if definition is None:
        return NetworkInfo(id=row.id, name=row.name, driver=row.driver, created=row.created)
    second, routed = definition.interface6, definition.routed
    return NetworkInfo(
        id=row.id, name=row.name, driver=row.driver, created=row.created, subnet=str(definition.subnet),
        gateway="" if routed else str(definition.interface.ip), ip_range=definition.ip_range,
        reserved=definition.reserved, configured=definition.configured, subnet6=str(definition.subnet6 or ""),
        gateway6=str(second.ip) if second and not routed else "", ip_range6=definition.ip_range6,
        reserved6=definition.reserved6, configured6=definition.configured6, internal=definition.internal,
        attachable=definition.attachable, host_ip=definition.host_ip, labels=definition.labels,
        options=definition.options,
    )  # fmt: skip


@dataclass(frozen=True)
class PortRow:
    endpoint_id: str
    protocol: str
    host_ip: str
    host_port: int
    container_port: int


class NetworkStore:
    """Typed access to the rows. Each method is one transaction."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        metadata.migrate("network-1", _SCHEMA)
        metadata.migrate("network-2", _SCHEMA_2)
        metadata.migrate("network-3", _SCHEMA_3)
        with metadata.transaction() as cursor:
            for name, driver in _DEFAULT_NETWORKS:
                cursor.execute(
                    "INSERT OR IGNORE INTO network (id, name, driver, created) VALUES (?, ?, ?, ?)",
                    (os.urandom(32).hex(), name, driver, time.time_ns()),
                )

    def networks(self) -> list[NetworkRow]:
        with self._metadata.transaction() as cursor:
            rows = cursor.execute("SELECT * FROM network ORDER BY created").fetchall()
        return [
            NetworkRow(
                key, name, driver, created, IPv4Interface(address) if address else None, last,
                msgspec.json.decode(definition, type=Definition) if definition else None,
            )
            for key, name, driver, created, address, last, definition in rows
        ]  # fmt: skip

    def add_network(self, row: NetworkRow) -> None:
        definition = msgspec.json.encode(row.definition)
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "INSERT INTO network (id, name, driver, created, definition) VALUES (?, ?, ?, ?, ?)",
                (row.id, row.name, row.driver, row.created, definition),
            )

    def remove_network(self, network_id: str) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM network WHERE id = ?", (network_id,))

    def set_address(self, network_id: str, address: IPv4Interface) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute("UPDATE network SET address = ?, last_address = 0 WHERE id = ?", (str(address), network_id))

    def endpoints(self) -> list[Endpoint]:
        with self._metadata.transaction() as cursor:
            rows = cursor.execute(
                "SELECT e.id, e.sandbox_id, n.name, e.network_id, e.path, e.container_id, e.ip, e.prefix, e.gateway,"
                " e.mac, e.host_interface, e.interface, e.priority, e.bare, e.ip6, e.prefix6, e.gateway6, n.driver"
                " FROM network_endpoint e JOIN network n ON n.id = e.network_id"
            ).fetchall()
        return [
            Endpoint(
                id=row[0], sandbox_id=row[1], network=row[2], network_id=row[3], path=row[4], container_id=row[5],
                ip=str(IPv4Address(row[6])) if row[6] is not None else "", prefix=row[7], gateway=row[8], mac=row[9],
                host_interface=row[10], interface=row[11], priority=row[12], bare=bool(row[13]), ip6=row[14],
                prefix6=row[15], gateway6=row[16], driver="bridge" if row[17] == "null" else row[17],
            )
            for row in rows
        ]  # fmt: skip

    def add_endpoint(self, endpoint: Endpoint) -> None:
        number = int(IPv4Address(endpoint.ip)) if endpoint.ip else None
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "INSERT INTO network_endpoint (id, sandbox_id, network_id, container_id, path, ip, prefix, gateway,"
                " mac, host_interface, interface, priority, bare, ip6, prefix6, gateway6)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    endpoint.id, endpoint.sandbox_id, endpoint.network_id, endpoint.container_id, endpoint.path, number,
                    endpoint.prefix, endpoint.gateway, endpoint.mac, endpoint.host_interface, endpoint.interface,
                    endpoint.priority, endpoint.bare, endpoint.ip6, endpoint.prefix6, endpoint.gateway6,
                ),
            )  # fmt: skip
            if number is not None:
                cursor.execute("UPDATE network SET last_address = ? WHERE id = ?", (number, endpoint.network_id))

    def set_container(self, endpoint_id: str, container_id: str, *, bare: bool = False) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute(
                "UPDATE network_endpoint SET container_id = ?, bare = ? WHERE id = ?", (container_id, bare, endpoint_id)
            )

    def replace_endpoint(self, old: str, new: Endpoint) -> None:
        """One goes and another comes, of the same sandbox."""
        with self._metadata.transaction():
            self.remove_endpoint(old)
            self.add_endpoint(new)

    def remove_endpoint(self, endpoint_id: str) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM network_port WHERE endpoint_id = ?", (endpoint_id,))
            cursor.execute("DELETE FROM network_endpoint WHERE id = ?", (endpoint_id,))

    def ports(self) -> list[PortRow]:
        with self._metadata.transaction() as cursor:
            rows = cursor.execute(
                "SELECT endpoint_id, protocol, host_ip, host_port, container_port FROM network_port"
            ).fetchall()
        return [PortRow(*row) for row in rows]

    def add_ports(self, rows: Iterable[PortRow]) -> None:
        with self._metadata.transaction() as cursor:
            for row in rows:
                cursor.execute(
                    "INSERT INTO network_port (endpoint_id, protocol, host_ip, host_port, container_port)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (row.endpoint_id, row.protocol, row.host_ip, row.host_port, row.container_port),
                )

    def replace_ports(self, endpoint_id: str, rows: Iterable[PortRow]) -> None:
        """Have these and no others of the endpoint's."""
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM network_port WHERE endpoint_id = ?", (endpoint_id,))
            cursor.executemany(
                "INSERT INTO network_port (endpoint_id, protocol, host_ip, host_port, container_port)"
                " VALUES (?, ?, ?, ?, ?)",
                [(each.endpoint_id, each.protocol, each.host_ip, each.host_port, each.container_port) for each in rows],
            )

    def move_ports(self, endpoint_id: str, to: str) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute("UPDATE network_port SET endpoint_id = ? WHERE endpoint_id = ?", (to, endpoint_id))

    def remove_ports(self, endpoint_id: str) -> None:
        with self._metadata.transaction() as cursor:
            cursor.execute("DELETE FROM network_port WHERE endpoint_id = ?", (endpoint_id,))
