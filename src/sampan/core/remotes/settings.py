"""What the engine's configuration says of registries, and how patient one is with them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

DEFAULT_CERTS = ("/etc/docker/certs.d", "/etc/sampan/certs.d")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A user's name and password, or a token that a login gave; all empty: nobody. `registry_token` is sent to the
    registry as it is."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. `attempts`: tries of one transfer that brings nothing; of short requests `requests`. `stall`:
    no byte comes for so long. `pause`: before the second try; doubled with each further one, up to `longest`, and cut
    at random, so that many who were refused at once don't come back at once."""

    attempts: int = 5
    requests: int = 3
    connect: float = 30.0
    stall: float = 60.0
    pause: float = 0.25
    longest: float = 8.0
    retry_after: float = 20.0
    """A registry that wants a longer rest than this is not waited for."""


class RemoteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`insecure`: HOST[:PORT] or networks. `mirrors`: URLs by registry. `certs`: directories that hold HOST/*.crt."""

    insecure: tuple[str, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = {}
    certs: tuple[str, ...] = DEFAULT_CERTS
    downloads: int = 3
    uploads: int = 5
    patience: Patience = Patience()
