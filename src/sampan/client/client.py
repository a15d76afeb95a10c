"""The client: one kept-alive connection for calls, and one more for each stream."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator

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
        response = self._exchange(self._kept(), method, path, document, body, headers, query)
        data = response.read(head_only=method == "HEAD")
        if response.headers.get("connection", "").lower() == "close":
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
        connection = self.host.connect()
        try:
            return self._exchange(connection, method, path, document, body, headers, query)
        except BaseException:
            connection.close()
            raise

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
        return self._exchange(self.host.connect(), "POST", path, document, None, headers, query).take()

    def _kept(self) -> socket.socket:
        if self._connection is not None and _has_ended(self._connection):
            self.close()
        if self._connection is None:
            self._connection = self.host.connect()
        return self._connection

    def _exchange(
        self,
        connection: socket.socket,
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
        target = self._prefix + path
        if parameters := query_string(query):
            # A path may come with parameters that stand more than once, which keywords can't.
            target += "&" + parameters[1:] if "?" in path else parameters
        send(connection, method, target, fields, body)
        response = Response(connection)
        if response.status >= 400 or response.status == 304:
            data = response.read(head_only=method == "HEAD")
            raise _KINDS.get(response.status, errors.Internal)(_message(data, response.status))
        return response

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _has_ended(connection: socket.socket) -> bool:
    """Between two calls there is nothing else to read: the engine closes a connection that has long been idle."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _message(data: bytes, status: int) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode("utf-8", "replace").strip() or f"the engine answered {status}"
