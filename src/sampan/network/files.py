"""The contents of a container's /etc/hosts, /etc/resolv.conf and /etc/hostname, as Docker writes them."""

from __future__ import annotations

from collections.abc import Sequence


def hosts(
    hostname: str, domainname: str = "", ip: str = "", extra_hosts: Sequence[str] = (), host_gateway: str = ""
) -> str:
    """`extra_hosts`: `name:address`, where the address `host-gateway` stands for `host_gateway`. Raises InvalidArgument."""
    raise NotImplementedError


def resolv_conf(
    host: str, dns: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = (), *, filter_loopback: bool = True
) -> str:
    """`host`: the text of the host's own resolv.conf (see `host_resolv_conf`). `filter_loopback`: for containers that do not share
    the host's network."""
    raise NotImplementedError


def host_resolv_conf() -> str:
    """The host's file; systemd-resolved's upstream list where /etc/resolv.conf names only its stub. Empty if there is none."""
    raise NotImplementedError


def hostname(name: str) -> str:
    """The file's text."""
    raise NotImplementedError
