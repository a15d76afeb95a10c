"""The contents of a container's /etc/hosts, /etc/resolv.conf and /etc/hostname, as Docker writes them. Pure but for
`host_resolv_conf` and `host_hosts`."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from sampan.errors import InvalidArgument

_FIXED_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
NAMES = "127.0.0.11"
"""Where a sandbox on a user-defined network asks for names."""
_FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_STUB = "127.0.0.53"
_HOSTS = "/etc/hosts"
_RESOLV_CONF = "/etc/resolv.conf"
_UPSTREAM_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"


def hosts(
    hostname: str,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra_hosts: Sequence[str] = (),
    host_gateway: str = "",
    linked: Sequence[tuple[str, str]] = (),
) -> str:
    """`addresses`: the container's own; none on network none. `linked`: addresses and names. `extra_hosts`:
    `name:address` (or `name=address`), where the address `host-gateway` stands for `host_gateway`. Raises
    InvalidArgument."""
    lines = [_FIXED_HOSTS]
    for entry in extra_hosts:
        name, address = parse_extra_host(entry)
        if address == "host-gateway":
            if not host_gateway:
                raise InvalidArgument("unable to derive the IP value for host-gateway")
            address = host_gateway
        lines.append(f"{address}\t{name}\n")
    lines += [f"{address}\t{others}\n" for address, others in linked]
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}\n" for address in addresses]
    return "".join(lines)


def host_hosts(extra_hosts: Sequence[str] = (), host_gateway: str = "") -> str:
    """For a container that shares the host's network: the host's own file, unless there are extra hosts."""
    return hosts("", extra_hosts=extra_hosts, host_gateway=host_gateway) if extra_hosts else _read(_HOSTS)


def parse_extra_host(entry: str) -> tuple[str, str]:
    """The name and the address of an `--add-host`; an IPv6 address may stand in brackets. Raises InvalidArgument."""
    # The first of either separates: an IPv6 address is full of colons, and a name holds neither.
    position = min((at for at in (entry.find(":"), entry.find("=")) if at > 0), default=-1)
    name, address = entry[:position], entry[position + 1 :]
    if position < 0 or not address or any(c.isspace() for c in name):
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            ip_address(address)
        except ValueError:
            raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None
    return name, address


def resolv_conf(
    host: str,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    *,
    filter_loopback: bool = True,
    names: bool = False,
) -> str:
    """`host`: the text of the host's own file (see `host_resolv_conf`); each of `dns`, `search` and `options` replaces
    what the host's says if it is not empty.

    `filter_loopback`: leave out name servers that only the host can reach, for a container that does not share its
    network; where none is left, Docker's public ones. A search of `.` stands for none. `names`: the container asks its
    engine's resolver, which asks these servers. Raises InvalidArgument.
    """
    for server in dns:
        try:
            ip_address(server)
        except ValueError:
            raise InvalidArgument(f"invalid IP address {server!r} for --dns") from None
    for word in (*search, *options):
        if not word or any(c.isspace() for c in word):
            raise InvalidArgument(f"invalid value {word!r} for --dns-search or --dns-option")
    servers: list[str] = []
    domains: list[str] = []
    settings: list[str] = []
    for line in host.splitlines():
        keyword, *values = line.split("#", 1)[0].split(";", 1)[0].split() or [""]
        if keyword == "nameserver" and values:
            servers.append(values[0])
        elif keyword in ("search", "domain") and values:
            domains = values  # The last of either kind counts (resolv.conf(5)).
        elif keyword == "options":
            settings += values
    if names:
        servers = [NAMES]
        # A container's name has no dot, and the resolver has to be asked for it as it is.
        if not any(each.startswith("ndots:") for each in options or settings):
            settings = [*(options or settings), "ndots:0"]
            options = ()
    elif dns:
        servers = list(dns)
    elif filter_loopback:
        servers = [server for server in servers if _reachable(server)] or list(_FALLBACK_SERVERS)
    if search:
        domains = [] if list(search) == ["."] else list(search)
    if options:
        settings = list(options)
    lines = [f"nameserver {server}\n" for server in servers]
    if domains:
        lines.append(f"search {' '.join(domains)}\n")
    if settings:
        lines.append(f"options {' '.join(settings)}\n")
    return "".join(lines)


def _reachable(server: str) -> bool:
    try:
        address = ip_address(server)
    except ValueError:
        return False
    # The networks have no IPv6 yet, so a container could not ask such a server.
    return address.version == 4 and not address.is_loopback


def host_resolv_conf() -> str:
    """The host's file; systemd-resolved's list of the real servers where /etc/resolv.conf names its stub alone. Empty
    if there is none."""
    own = _read(_RESOLV_CONF)
    servers = [line.split()[1] for line in own.splitlines() if line.startswith("nameserver") and len(line.split()) > 1]
    if servers == [_STUB]:
        return _read(_UPSTREAM_RESOLV_CONF) or own
    return own


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def hostname(name: str) -> str:
    """The text of /etc/hostname."""
    return f"{name}\n"
