"""Image names as Docker reads them: `nginx` is `docker.io/library/nginx:latest`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.errors import InvalidArgument
from sampan.oci.digest import Digest, parse_digest

DEFAULT_DOMAIN = "docker.io"
_OFFICIAL = "library/"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_ID = re.compile(r"[a-f0-9]{64}")
_MAX_NAME = 255


@dataclass(frozen=True)
class Reference:
    """`name` is complete (`docker.io/library/nginx`); tag and digest are empty if not given."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """As people write it: without Docker Hub's domain and its `library/`."""
        return self.path.removeprefix(_OFFICIAL) if self.domain == DEFAULT_DOMAIN else self.name

    @property
    def familiar(self) -> str:
        text = self.familiar_name
        if self.tag:
            text += f":{self.tag}"
        if self.digest:
            text += f"@{self.digest}"
        return text

    def with_default_tag(self) -> Reference:
        """`latest`, where there is neither tag nor digest."""
        return self if self.tag or self.digest else Reference(self.domain, self.path, "latest")


def parse_reference(text: str) -> Reference:
    """Raises InvalidArgument in Docker's words."""
    if _ID.fullmatch(text):
        raise InvalidArgument(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )  # fmt: skip
    rest, separator, digest_text = text.partition("@")
    digest: Digest | None = None
    if separator:
        try:
            digest = parse_digest(digest_text)
        except InvalidArgument:
            raise _invalid() from None
    # A colon after the last slash begins a tag; before it, a port.
    slash = rest.rfind("/")
    colon = rest.find(":", slash + 1)
    tag = ""
    if colon >= 0:
        rest, tag = rest[:colon], rest[colon + 1 :]
    first, separator, remainder = rest.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, path = first, remainder
    else:
        domain, path = DEFAULT_DOMAIN, rest
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and path and "/" not in path:
        path = _OFFICIAL + path
    if path.lower() != path:
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain) or (colon >= 0 and not _TAG.fullmatch(tag)):
        raise _invalid()
    if len(f"{domain}/{path}") > _MAX_NAME:
        raise InvalidArgument(f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(domain, path, tag, digest)


def _invalid() -> InvalidArgument:
    return InvalidArgument("invalid reference format")
