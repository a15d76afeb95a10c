"""Who one is at registries: Docker's `config.json`, and the programs that keep passwords for it.

`auths` in the file itself, base64 of NAME:PASSWORD (which hides nothing); `credHelpers` and `credsStore` name a program
`docker-credential-NAME`, told `get`, `store` or `erase`, with JSON on its standard streams.
"""

from __future__ import annotations

import base64
import json
import os

from sampan.errors import InvalidArgument, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_TOKEN = "<token>"
"""The name that a helper keeps an identity token under."""


def server_of(name: str) -> str:
    """The key of a registry: from what a person writes, `https://` and a path left out; Docker Hub's is an address."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if not host or host in _HUB_NAMES else host


def server_of_image(image: str) -> str:
    """The key of an image's registry: Docker's rule for what is a registry in a name."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return server_of(first)
    return HUB


def header(server: str) -> dict[str, str]:
    """`X-Registry-Auth` for a request to the engine."""
    document = json.dumps(Config().get(server)).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(document).decode()}


class Config:
    """`~/.docker/config.json`, or that of DOCKER_CONFIG. Raises InvalidArgument for what does not decode."""

    def __init__(self) -> None:
        directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        self.path = f"{directory}/config.json"
        self._document: dict[str, Any] = {}
        try:
            with open(self.path, encoding="utf-8") as file:
                self._document = json.loads(file.read() or "{}")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            raise InvalidArgument(f"{self.path}: {why}") from error
        if not isinstance(self._document, dict):
            raise InvalidArgument(f"{self.path}: it is no object")

    def _part(self, name: str) -> dict[str, Any]:
        part = self._document.get(name)
        return part if isinstance(part, dict) else {}

    def _helper(self, server: str) -> str:
        return str(self._part("credHelpers").get(server) or self._document.get("credsStore") or "")

    def get(self, server: str) -> dict[str, str]:
        """The engine's `AuthConfig`: empty where one is nobody."""
        if helper := self._helper(server):
            try:
                kept = _run(helper, "get", server)
            except NotFound:
                return {}
            if kept.get("Username") == _TOKEN:
                return {"serveraddress": server, "identitytoken": kept.get("Secret", "")}
            return {
                "serveraddress": server, "username": kept.get("Username", ""), "password": kept.get("Secret", "")
            }  # fmt: skip
        auths = self._part("auths")
        # Older files have whole addresses.
        key = next((each for each in auths if each == server or server_of(each) == server), "")
        entry = auths.get(key)
        if not isinstance(entry, dict):
            return {}
        name, _, password = _decoded(entry.get("auth", ""), server, self.path).partition(":")
        found = {"serveraddress": server, "username": name, "password": password.rstrip("\0")}
        for member in ("identitytoken", "registrytoken"):
            if entry.get(member):
                found[member] = entry[member]
        return found

    def store(self, server: str, username: str, password: str, identity: str) -> str:
        """Keep a login; returns the helper that has it, empty if it lies in the file."""
        helper = self._helper(server)
        if helper:
            name, secret = (_TOKEN, identity) if identity else (username, password)
            _run(helper, "store", json.dumps({"ServerURL": server, "Username": name, "Secret": secret}))
            entry: dict[str, str] = {}
        else:
            secret = "" if identity else password
            entry = {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}
            if identity:
                entry["identitytoken"] = identity
        self._document["auths"] = {**self._part("auths"), server: entry}
        self._write()
        return helper

    def erase(self, server: str) -> bool:
        """Forget a login; whether there was one."""
        auths = self._part("auths")
        keys = [each for each in auths if each == server or server_of(each) == server]
        if helper := self._helper(server):
            _run(helper, "erase", server)
        for key in keys:
            del auths[key]
        if keys:
            self._document["auths"] = auths
            self._write()
        return bool(keys)

    def set(self, name: str, value: str) -> None:
        """Keep a text under a name; empty: none."""
        self._document.pop(name, None)
        if value:
            self._document[name] = value
        self._write()

    def _write(self) -> None:
        """All or nothing, and for the owner's eyes alone; a link stays one."""
        path = os.path.realpath(self.path)
        temporary = f"{path}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(self._document, indent="\t") + "\n")
            os.rename(temporary, path)
        except OSError as error:
            raise InvalidArgument(f"{path}: {(error.strerror or '').lower()}") from error


def _decoded(auth: str, server: str, path: str) -> str:
    try:
        return base64.b64decode(auth).decode()
    except ValueError as error:
        raise InvalidArgument(f"{path}: the login of {server} does not decode: {error}") from error


def _run(helper: str, action: str, given: str) -> dict[str, str]:
    """One call of a credential helper. Raises NotFound (it knows none), Unavailable."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, action], input=given.encode(), capture_output=True, check=False)
    except OSError as error:
        raise Unavailable(
            f'error getting credentials - err: exec: "{program}": {(error.strerror or "").lower()}'
        ) from error
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        if "credentials not found" in text:
            raise NotFound(text)
        raise Unavailable(f"{program} {action}: {text or done.stderr.decode('utf-8', 'replace').strip()}")
    if action != "get":
        return {}
    try:
        answer: dict[str, str] = json.loads(text)
    except ValueError as error:
        raise Unavailable(f"{program} {action}: its answer does not decode: {error}") from error
    return answer
