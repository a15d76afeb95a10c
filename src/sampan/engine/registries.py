"""What a client says of registries: the credentials in its headers."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec

from sampan.api.images import RegistryAuth
from sampan.core.remotes.endpoints import host_of, registry_host
from sampan.core.remotes.settings import Credentials
from sampan.engine.http.request import Request
from sampan.errors import InvalidArgument
from sampan.oci.reference import Reference

_T = TypeVar("_T")


def credentials(request: Request, reference: Reference) -> Credentials:
    """For a registry: the `X-Registry-Auth` header, or the registry's part of `X-Registry-Config`. Raises
    InvalidArgument for what does not decode."""
    if header := request.headers.get("X-Registry-Auth", ""):
        return from_document(_decoded(header, RegistryAuth, "X-Registry-Auth"))
    header = request.headers.get("X-Registry-Config", "")
    known = _decoded(header, dict[str, RegistryAuth], "X-Registry-Config") if header else {}
    for address, given in known.items():
        if registry_host(address) == host_of(reference.domain):
            return from_document(given)
    return Credentials()


def _decoded(header: str, kind: type[_T], name: str) -> _T:
    try:
        document = base64.urlsafe_b64decode(header.replace("+", "-").replace("/", "_") + "=" * (-len(header) % 4))
        return msgspec.json.decode(document or b"{}", type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidArgument(f"invalid {name} header: {error}") from None


def from_document(given: RegistryAuth) -> Credentials:
    """`auth`, the name and password in one, counts where they are not given apart. Raises InvalidArgument."""
    username, password = given.username, given.password
    if given.auth and not username:
        try:
            username, _, password = base64.b64decode(given.auth).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(f"invalid credentials: auth: {error}") from None
    return Credentials(
        username=username, password=password, identity_token=given.identitytoken, registry_token=given.registrytoken
    )
