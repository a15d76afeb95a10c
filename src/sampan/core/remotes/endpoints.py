"""Where registries and their mirrors listen. Pure."""

from __future__ import annotations

import ipaddress
import urllib.parse

import msgspec

from sampan.errors import InvalidArgument
from sampan.oci.reference import DEFAULT_DOMAIN

HUB = "registry-1.docker.io"
HUB_INDEX = "index.docker.io"
_HUB_NAMES = frozenset({"", DEFAULT_DOMAIN, HUB_INDEX, HUB, "registry.hub.docker.com"})


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a registry listens. `prefix`: a path before `/v2`, as a mirror may have one."""

    scheme: str
    host: str
    prefix: str = ""
    mirror: bool = False

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}/v2"


def host_of(domain: str) -> str:
    """Where the registry of a name's domain answers."""
    return HUB if domain == DEFAULT_DOMAIN else domain


def registry_host(address: str) -> str:
    """`https://index.docker.io/v1/` and nothing at all are Docker Hub; else the host of an address or name. Raises
    InvalidArgument."""
    host = urllib.parse.urlsplit(address if "://" in address else f"//{address}").netloc
    if "@" in host or (address and not host):
        raise InvalidArgument(f"invalid registry address {address!r}")
    return HUB if host in _HUB_NAMES else host


def mirror_endpoint(url: str) -> Endpoint:
    """A mirror's URL. Raises InvalidArgument in Docker's words."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidArgument(f"invalid mirror: {url!r} is not of the form https://HOST[:PORT][/PATH]")
    if "@" in parts.netloc:
        raise InvalidArgument(f"invalid mirror: username/password not allowed in URI of {parts.hostname}")
    if parts.query or parts.fragment:
        raise InvalidArgument(f"invalid mirror: query or fragment at end of the URI {url!r}")
    return Endpoint(scheme=parts.scheme, host=parts.netloc, prefix=parts.path.rstrip("/"), mirror=True)


def check_insecure(registry: str) -> None:
    """HOST[:PORT] or a network. Raises InvalidArgument in Docker's words."""
    if "://" in registry:
        raise InvalidArgument(f"insecure registry {registry} should not contain '{registry.partition('://')[0]}://'")
    if "/" not in registry:
        if not registry or registry.startswith("-") or registry.endswith("-"):
            raise InvalidArgument(f"invalid insecure registry {registry!r}")
        return
    try:
        ipaddress.ip_network(registry, strict=False)
    except ValueError:
        raise InvalidArgument(f"insecure registry {registry} is not valid: HOST[:PORT] or a network") from None
