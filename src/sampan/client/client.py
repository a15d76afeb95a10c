"""The client: one kept-alive connection for calls, and one more for each stream."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Iterator

from sampan import errors
from sampan.client.http import Host, Response, send

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would be a tenth of what a command imports.
    from typing import Any

    Document = Any
    """What JSON says: the client does not interpret it."""
else:
    Document = object

API_VERSION = "1.51"
_KINDS: dict[int, type[errors.SampanError]] = {
    304: errors.NotModified, 400: errors.InvalidArgument, 401: errors.Unauthorized, 403: errors.Forbidden,
    404: errors.NotFound, 409: errors.Conflict, 501: errors.Unsupported, 503: errors.Unavailable,
}  # fmt: skip


def parse_host(text: str) -> Host:
    """`unix:///path`, `tcp://address[:port]` or `ssh://[user@]host[:port][/socket]`.

    Raises InvalidArgument, Unsupported.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        # As Docker's: a bare address is one of TCP.
        scheme, rest = ("unix", scheme) if scheme.startswith("/") else ("tcp", scheme)
    if scheme == "unix" and rest:
        return Host(path=rest)
    if scheme in ("npipe", "fd"):
        raise errors.Unsupported(f"host {text}: {scheme} is not supported")
    address, _, path = rest.partition("/")
    user, at, address = address.rpartition("@")
    name, port = _name_and_port(address)
    number = int(port or 0) if not port or (port.isascii() and port.isdigit() and len(port) <= 5) else -1
    if not 0 <= number <= 65535 or not name:
        raise errors.InvalidArgument(f'unable to parse docker host "{text}"')
    if scheme == "ssh" and ":" not in user and not name.startswith("-"):
        return Host(f"/{path}" if path else "", name, number, ssh=True, user=user)
    if scheme in ("tcp", "http", "https") and not at and not path:
        return Host(address=name, port=number)
    raise errors.InvalidArgument(f'unable to parse docker host "{text}"')


def _name_and_port(text: str) -> tuple[str, str]:
    """An IPv6 address stands in brackets."""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        return (name, rest.removeprefix(":")) if bracket and (not rest or rest.startswith(":")) else ("", "")
    name, _, port = text.partition(":")
    return name, port


_TOO_NEW = "is too new. Maximum supported API version is "
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(text: str) -> str:
    """Percent-encoded for a query. RFC 3986"""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def query_string(parameters: dict[str, object]) -> str:
    """`?a=1&b=x`, without what is None or False; dicts go as JSON."""
    parts: list[str] = []
    for name, value in parameters.items():
        if value is None or value is False or value == "":
            continue
        text = "1" if value is True else json.dumps(value) if isinstance(value, dict) else str(value)
        parts.append(f"{name}={quoted(text)}")
    return "?" + "&".join(parts) if parts else ""


class Client:
    """Raises the kind that stands behind an answer's status, with the engine's message, and Unavailable."""

    def __init__(self, host: Host, version: str = API_VERSION) -> None:
        self.host = host
        self._prefix = f"/v{version}"
        self._connection: socket.socket | None = None

    def call(
        self,
        method: str,
        path: str,
        document: Document = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        **query: object,
    ) -> Document:
        """One call whose answer is JSON (or empty: None), over the kept connection."""
        response = self._exchange(self._kept, method, path, document, body, headers, query)
        data = response.read()
        if not response.head.keeps:
            self.close()
        if not data.strip():
            return None
        return json.loads(data) if "json" in response.headers.get("content-type", "") else data.decode()

    def stream(
        self,
        method: str,
        path: str,
        document: Document = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        **query: object,
    ) -> Response:
        """A call whose answer goes on: over a connection of its own."""
        return self._exchange(self.host.connect, method, path, document, body, headers, query)

    def messages(self, method: str, path: str, document: Document = None, **more: Any) -> Iterator[Document]:
        """The JSON messages of a stream."""
        response = self.stream(method, path, document, **more)
        rest = b""
        try:
            for data in response.chunks():
                rest += data
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
            if rest.strip():
                yield json.loads(rest)
        finally:
            response.close()

    def upgrade(self, path: str, document: Document = None, **query: object) -> tuple[socket.socket, bytes]:
        """A call that turns its connection into a stream (attach, exec)."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        return self._exchange(self.host.connect, "POST", path, document, None, headers, query).take()

    def _kept(self) -> socket.socket:
        if self._connection is not None and has_ended(self._connection):
            self.close()
        if self._connection is None:
            self._connection = self.host.connect()
        return self._connection

    def _exchange(
        self,
        connect: Callable[[], socket.socket],
        method: str,
        path: str,
        document: Document,
        body: bytes | Iterable[bytes] | None,
        headers: dict[str, str] | None,
        query: dict[str, object],
    ) -> Response:
        fields = dict(headers or {})
        if document is not None:
            body = json.dumps(document).encode()
            fields["Content-Type"] = "application/json"
        if parameters := query_string(query):
            # A path may come with parameters that stand more than once, which keywords can't.
            path += "&" + parameters[1:] if "?" in path else parameters
        response, error = self._asked(connect, method, path, fields, body)
        # An older engine says what it speaks. A body that came in pieces has gone, and cannot be sent again.
        spoken = error.message.partition(_TOO_NEW)[2].strip() if error else ""
        if spoken and (body is None or isinstance(body, bytes)):
            self._prefix = f"/v{spoken}"
            response, error = self._asked(connect, method, path, fields, body)
        if error is not None:
            raise error
        return response

    def _asked(
        self,
        connect: Callable[[], socket.socket],
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> tuple[Response, errors.SampanError | None]:
        """The answer, and the error that it is; then nobody else's connection stays open."""
        connection = connect()
        kept = False
        try:
            send(connection, method, self._prefix + path, headers, body)
            response = Response(connection, bodiless=method == "HEAD")
            if response.status < 400 and response.status != 304:
                kept = True
                return response, None
            error = failure(response.status, response.read())
            kept = connection is self._connection and response.head.keeps
            return response, error
        finally:
            if not kept:
                connection.close()
                self._connection = None if connection is self._connection else self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def has_ended(connection: socket.socket) -> bool:
    """Between two calls there is nothing else to read: the engine closes a connection that has long been idle."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def failure(status: int, data: bytes) -> errors.SampanError:
    """The kind that stands behind a status, with what the engine says."""
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode("utf-8", "replace").strip() or f"the engine answered {status}"
    return _KINDS.get(status, errors.Internal)(message)
