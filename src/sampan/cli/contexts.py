"""Docker's contexts: engines by name, kept below `~/.docker/contexts`.

`meta/ID/meta.json` says where an engine is, and `tls/ID/docker/{ca,cert,key}.pem` is what TLS with it needs; ID is the
name's SHA-256. `config.json` names the current one. `default` is no file: it is what the environment says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

from sampan.errors import Conflict, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "default"
TLS_FILES = ("ca", "cert", "key")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")


def directory() -> str:
    """Where Docker's command keeps what is a person's: DOCKER_CONFIG, or `~/.docker`."""
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def settings() -> dict[str, Any]:
    """`config.json`; empty where there is none, or where it does not decode: `login` tells of that."""
    try:
        with open(f"{directory()}/config.json", encoding="utf-8") as file:
            document = json.loads(file.read() or "{}")
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


class Endpoint:
    """Where a context's engine is. `files`: paths by `ca`, `cert` and `key`, of those that it has."""

    def __init__(self, name: str, description: str, host: str, skip_verify: bool, files: dict[str, str]) -> None:
        self.name = name
        self.description = description
        self.host = host
        self.skip_verify = skip_verify
        self.files = files


def _id(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def metadata_path(name: str) -> str:
    """A context's directory of metadata."""
    return f"{directory()}/contexts/meta/{_id(name)}"


def tls_path(name: str) -> str:
    """A context's directory of keys."""
    return f"{directory()}/contexts/tls/{_id(name)}"


def metadata(name: str) -> dict[str, Any]:
    """`meta.json`. Raises NotFound, InvalidArgument."""
    path = f"{metadata_path(name)}/meta.json"
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise NotFound(f'context "{name}": context not found: open {path}: {why}') from error
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("Name"), str):
        raise InvalidArgument(f"{path}: it is no context")
    return document


def endpoint(name: str) -> Endpoint:
    """Raises NotFound, InvalidArgument."""
    document = metadata(name)
    docker = (document.get("Endpoints") or {}).get("docker") or {}
    tls = f"{tls_path(name)}/docker"
    files = {each: f"{tls}/{each}.pem" for each in TLS_FILES if os.path.exists(f"{tls}/{each}.pem")}
    description = str((document.get("Metadata") or {}).get("Description", ""))
    return Endpoint(name, description, str(docker.get("Host", "")), bool(docker.get("SkipTLSVerify")), files)


def names() -> list[str]:
    """Of all contexts that are kept, sorted."""
    found: list[str] = []
    base = f"{directory()}/contexts/meta"
    try:
        entries = os.listdir(base)
    except OSError:
        return []
    for entry in entries:
        try:
            with open(f"{base}/{entry}/meta.json", encoding="utf-8") as file:
                found.append(str(json.load(file)["Name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found)


def current() -> str:
    """The context that is in force without `--context` and `--host`."""
    if os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST"):
        return DEFAULT
    return os.environ.get("DOCKER_CONTEXT") or str(settings().get("currentContext") or DEFAULT)


def check_name(name: str) -> None:
    """Raises InvalidArgument."""
    if name == DEFAULT:
        raise InvalidArgument('"default" is a reserved context name')
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def _write(path: str, data: bytes, mode: int) -> None:
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
    os.rename(temporary, path)


def save(name: str, description: str, docker: dict[str, Any], files: dict[str, bytes], *, new: bool) -> None:
    """Keep a context. `files`: what TLS needs, by its name. Raises Conflict, NotFound, InvalidArgument."""
    check_name(name)
    path, tls = metadata_path(name), f"{tls_path(name)}/docker"
    if new and os.path.exists(f"{path}/meta.json"):
        raise Conflict(f'context "{name}" already exists')
    document = {} if new else metadata(name)
    document |= {
        "Name": name,
        "Metadata": {**(document.get("Metadata") or {}), **({"Description": description} if description else {})},
        "Endpoints": {**(document.get("Endpoints") or {}), "docker": docker},
    }
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
        if files:
            os.makedirs(tls, mode=0o700, exist_ok=True)
        for each, data in files.items():
            _write(f"{tls}/{each}.pem", data, 0o600)
        _write(f"{path}/meta.json", json.dumps(document, separators=(",", ":")).encode(), 0o644)
    except OSError as error:
        raise InvalidArgument(f"{error.filename}: {(error.strerror or '').lower()}") from error


def remove(name: str) -> None:
    """Raises NotFound."""
    import shutil

    metadata(name)
    for path in (tls_path(name), metadata_path(name)):
        shutil.rmtree(path, ignore_errors=True)


def use(name: str) -> None:
    """Make it the current one. Raises NotFound, InvalidArgument."""
    from sampan.cli.credentials import Config

    if name != DEFAULT:
        metadata(name)
    Config().set("currentContext", "" if name == DEFAULT else name)


def parse_endpoint(words: str) -> dict[str, str]:
    """`host=…,ca=…,cert=…,key=…,skip-tls-verify=true,from=…`. Raises InvalidArgument."""
    found: dict[str, str] = {}
    for word in words.split(",") if words else ():
        key, _, value = word.partition("=")
        if key not in ("host", "ca", "cert", "key", "skip-tls-verify", "from"):
            raise InvalidArgument(f"unable to create context: {key}: unrecognized config key")
        found[key] = value
    return found


def read_files(paths: Iterable[tuple[str, str]]) -> dict[str, bytes]:
    """Raises InvalidArgument."""
    found: dict[str, bytes] = {}
    for key, path in paths:
        try:
            with open(os.path.expanduser(path), "rb") as file:
                found[key] = file.read()
        except OSError as error:
            raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from error
    return found
