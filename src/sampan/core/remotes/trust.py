"""Whom a registry's client believes: certificates by host, and the hosts that may be spoken to without them.

`certs.d/HOST[:PORT]` holds what Docker's engine reads there: `*.crt` are authorities to believe besides the system's,
`*.cert` with `*.key` of the same name are the client's own. Plain HTTP, and TLS with anybody, are for configured
insecure registries and for loopback addresses; a loopback registry with authorities of its own is held to them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence

from sampan.errors import InvalidArgument


def split_host(host: str) -> tuple[str, int | None]:
    """`[::1]:5000` is (`::1`, 5000)."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and not name.endswith(":") and (":" not in name or name.startswith("[")):
        return name.strip("[]"), int(port)
    return host.strip("[]"), None


def is_loopback(host: str) -> bool:
    """A name or an address that never leaves the machine; `HOST[:PORT]`."""
    name, _ = split_host(host)
    address = _address(name)
    return address.is_loopback if address is not None else name.lower() == "localhost"


def is_insecure(host: str, insecure: Sequence[str]) -> bool:
    """Whether the configuration says so, by name, by name and port, or by a network that an address is in. A name is
    looked up for the networks alone, which blocks."""
    name, _ = split_host(host)
    networks = [ipaddress.ip_network(each, strict=False) for each in insecure if "/" in each]
    if host in insecure or name in insecure:
        return True
    return any(address in network for network in networks for address in _addresses(name))


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _addresses(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    if (address := _address(name)) is not None:
        return [address]
    try:
        found = {str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(name, None)}
    except OSError:
        return []
    return [ipaddress.ip_address(each) for each in found]


class Trust:
    """For one operation: what was read is remembered, and the next operation reads again. Its calls block."""

    def __init__(self, insecure: Sequence[str], directories: Sequence[str]) -> None:
        self._insecure = insecure
        self._directories = directories
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._unverified: dict[str, bool] = {}

    def unverified(self, host: str) -> bool:
        """Whether plain HTTP will do for `HOST[:PORT]`, and TLS with whoever answers."""
        if host not in self._unverified:
            self._unverified[host] = is_insecure(host, self._insecure) or (
                is_loopback(host) and not any(name.endswith(".crt") for _, name in self._files(host))
            )
        return self._unverified[host]

    def context(self, host: str) -> ssl.SSLContext:
        """TLS with `HOST[:PORT]`. Raises InvalidArgument for files that are not what they should be."""
        if host not in self._contexts:
            self._contexts[host] = self._make(host)
        return self._contexts[host]

    def _files(self, host: str) -> list[tuple[str, str]]:
        """Directory and name, of every directory that there is for the host."""
        found: list[tuple[str, str]] = []
        for top in self._directories:
            directory = f"{top}/{host}"
            try:
                found += [(directory, name) for name in sorted(os.listdir(directory))]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise InvalidArgument(f"read {directory}: {(error.strerror or '').lower()}") from error
        return found

    def _make(self, host: str) -> ssl.SSLContext:
        if self.unverified(host):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context()
        for directory, name in self._files(host):
            path = f"{directory}/{name}"
            try:
                if name.endswith(".crt") and context.verify_mode != ssl.CERT_NONE:
                    context.load_verify_locations(cafile=path)
                elif name.endswith(".cert"):
                    key = f"{path.removesuffix('.cert')}.key"
                    if not os.path.exists(key):
                        raise InvalidArgument(
                            f"missing key {os.path.basename(key)} for client certificate {name}. CA certificates must "
                            "use the extension .crt"
                        )
                    context.load_cert_chain(path, key, password=_no_password)
                elif name.endswith(".key") and not os.path.exists(f"{path.removesuffix('.key')}.cert"):
                    raise InvalidArgument(
                        f"missing client certificate {name.removesuffix('.key')}.cert for key {name}"
                    )  # fmt: skip
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
                raise InvalidArgument(f"certificate {path}: {_why(error)}") from error
        return context


def _no_password() -> str:
    """OpenSSL would ask for one on the terminal."""
    raise ValueError("the key is encrypted")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return (getattr(error, "strerror", None) or str(error)).lower()
