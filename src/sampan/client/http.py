"""HTTP/1.1 as the Engine API needs it: requests with or without a body, answers by length, in chunks or to the end, and
connections that become streams. RFC 9112."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from sampan.errors import Unavailable

_CHUNK = 1 << 16
_MAX_HEAD = 1 << 16
_PORT, _TLS_PORT = 2375, 2376


class Host:
    """Where an engine listens: a unix socket's path, a TCP address, or a machine that `ssh` reaches.

    `files`: paths by `ca`, `cert` and `key`, for TLS; None: no TLS. `verify`: the engine has to prove who it is.
    (No dataclass: importing those takes 7 ms.)
    """

    def __init__(
        self,
        path: str = "",
        address: str = "",
        port: int = 0,
        *,
        ssh: bool = False,
        user: str = "",
        files: dict[str, str] | None = None,
        verify: bool = True,
    ) -> None:
        self.path = path
        self.address = address
        self.port = port
        self.ssh = ssh
        self.user = user
        self.files = files
        self.verify = verify

    @property
    def tcp(self) -> bool:
        """Whether it is reached over a network without another program."""
        return bool(self.address) and not self.ssh

    @property
    def _tcp_port(self) -> int:
        return self.port or (_PORT if self.files is None else _TLS_PORT)

    def with_tls(self, files: dict[str, str], *, verify: bool) -> Host:
        """The same, spoken to by TLS."""
        return Host(self.path, self.address, self.port, files=files, verify=verify)

    def connect(self) -> socket.socket:
        """Raises Unavailable."""
        if self.ssh:
            from sampan.client import ssh

            return ssh.connect(self)
        try:
            connection = self._connected()
        except OSError as error:
            raise Unavailable(
                f"Cannot connect to the engine at {self}: {(error.strerror or str(error)).lower()}"
            ) from error
        if self.files is None:
            return connection
        from sampan import tls

        try:
            return tls.connect(connection, tls.client_context(self.files, verify=self.verify), self.address)
        except Unavailable as error:
            raise Unavailable(f"Cannot connect to the engine at {self}: {error.message}") from error

    def _connected(self) -> socket.socket:
        if self.address:
            return socket.create_connection((self.address, self._tcp_port))
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def __str__(self) -> str:
        if not self.address:
            return f"unix://{self.path}"
        address = f"[{self.address}]" if ":" in self.address else self.address
        if self.ssh:
            port = f":{self.port}" if self.port else ""
            return f"ssh://{f'{self.user}@' if self.user else ''}{address}{port}{self.path}"
        return f"tcp://{address}:{self._tcp_port}"


class Head:
    """An answer's first lines. `length`: of the body; None: to the connection's end. `keeps`: it can have another."""

    def __init__(self, head: bytes, *, bodiless: bool) -> None:
        lines = head.decode("latin-1").split("\r\n")
        try:
            version, status = lines[0].split(" ", 2)[:2]
            self.status = int(status)
        except ValueError:
            raise Unavailable("the engine's answer is no HTTP") from None
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = self.headers.get("content-length")
        self.length = int(length) if length is not None and length.isdigit() else None
        self.chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        if bodiless or self.status in (204, 304):
            self.length, self.chunked = 0, False
        ended = self.length is not None or self.chunked
        closes = self.headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        self.keeps = ended and not closes and self.status != 101


class Response:
    """An answer whose body is read as it is wanted. An upgraded one has a stream, for `take`.

    `bodiless`: it answers a HEAD.
    """

    def __init__(self, connection: socket.socket, *, bodiless: bool = False) -> None:
        self._connection = connection
        self._buffer = b""
        self.head = Head(self._read_head(), bodiless=bodiless)
        self.status = self.head.status
        self.headers = self.head.headers
        self._left = self.head.length

    def _read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill() or len(self._buffer) > _MAX_HEAD:
                raise Unavailable("the engine closed the connection")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _fill(self) -> bool:
        try:
            data = self._connection.recv(_CHUNK)
        except OSError as error:
            raise Unavailable(f"the engine's connection broke: {(error.strerror or '').lower()}") from error
        self._buffer += data
        return bool(data)

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece, as it comes."""
        if self.head.chunked:
            yield from self._chunked_body()
            return
        while self._left is None or self._left > 0:
            if not self._buffer and not self._fill():
                if self._left:
                    raise Unavailable("the engine's answer ends early")
                return
            data, self._buffer = self._buffer, b""
            if self._left is not None:
                data, self._buffer = data[: self._left], data[self._left :]
                self._left -= len(data)
            yield data

    def _chunked_body(self) -> Iterator[bytes]:
        while True:
            size = int(self._line().partition(b";")[0], 16)
            if not size:
                while self._line():
                    continue
                return
            while size:
                if not self._buffer and not self._fill():
                    raise Unavailable("the engine's answer ends early")
                data, self._buffer = self._buffer[:size], self._buffer[size:]
                size -= len(data)
                yield data
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if not self._fill():
                raise Unavailable("the engine's answer ends early")
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def close(self) -> None:
        """Give the connection up; what was not read is lost."""
        self._connection.close()

    def take(self) -> tuple[socket.socket, bytes]:
        """The connection of an upgraded answer, and what was read of the stream already."""
        data, self._buffer = self._buffer, b""
        return self._connection, data


def request_head(method: str, target: str, headers: dict[str, str], body: object) -> bytes:
    """A request's first lines. A body that is no bytes goes in chunks."""
    fields = {"Host": "docker", "User-Agent": "sampan", **headers}
    if isinstance(body, bytes):
        fields["Content-Length"] = str(len(body))
    elif body is not None:
        fields["Transfer-Encoding"] = "chunked"
    elif method in ("POST", "PUT"):
        fields["Content-Length"] = "0"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()


def send(
    connection: socket.socket, method: str, target: str, headers: dict[str, str], body: bytes | Iterable[bytes] | None
) -> None:
    """Send a request. Raises Unavailable when the peer is gone."""
    try:
        connection.sendall(request_head(method, target, headers, body) + (body if isinstance(body, bytes) else b""))
        if body is not None and not isinstance(body, bytes):
            for data in body:
                if data:
                    connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
            connection.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        # The engine has refused the body half-way: its answer says why.
        return
    except OSError as error:
        raise Unavailable(f"the engine's connection broke: {(error.strerror or '').lower()}") from error
