"""TLS ended beside a plain socket: a thread speaks TLS on one side and copies to a socket pair on the other.

Whoever has the pair's other end has a socket like any other: it can be polled, handed to another process, and shut down
in one direction, which Python's own TLS sockets cannot (RFC 8446, 6.1: each side closes its direction by itself, and
an attached container reads its input's end while it goes on with its output). The engine and its client both use it.

```
  caller ── plain ── [ pair ] ── thread ── TLS ── network ── peer
```
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

from sampan.errors import InvalidArgument, Unavailable

_CHUNK = 1 << 16
_HANDSHAKE = 10.0
"""Seconds that a peer may take for its handshake."""


def client_context(files: dict[str, str], *, verify: bool) -> ssl.SSLContext:
    """`files`: paths by `ca`, `cert` and `key`. Without `ca`, the system's authorities. Raises InvalidArgument."""
    try:
        context = ssl.create_default_context(cafile=files.get("ca") or None)
        _load_own(context, files)
    except (OSError, ssl.SSLError) as error:
        raise _unusable(files, error) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_context(files: dict[str, str], *, verify: bool) -> ssl.SSLContext:
    """`verify`: only clients with a certificate of `ca` are let in. Raises InvalidArgument."""
    if not files.get("cert") or not files.get("key"):
        raise InvalidArgument("TLS needs --tlscert and --tlskey")
    if verify and not files.get("ca"):
        raise InvalidArgument("--tlsverify needs --tlscacert")
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.get("ca") or None)
        _load_own(context, files)
    except (OSError, ssl.SSLError) as error:
        raise _unusable(files, error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return context


def _load_own(context: ssl.SSLContext, files: dict[str, str]) -> None:
    if files.get("cert"):
        context.load_cert_chain(files["cert"], files.get("key") or None)


def _unusable(files: dict[str, str], error: OSError) -> InvalidArgument:
    missing = f"{error.filename}: " if error.filename else ""
    return InvalidArgument(f"{missing}{', '.join(files.values())}: not usable for TLS: {error.strerror or error}")


def connect(connection: socket.socket, context: ssl.SSLContext, name: str) -> socket.socket:
    """A plain socket for a connection whose peer has to be `name`. Raises Unavailable; then both are closed."""
    return _Relay(connection, context, name).started()


def serve(connection: socket.socket, context: ssl.SSLContext, ready: Callable[[socket.socket], None]) -> None:
    """A client's connection, to its end: for a thread of its own. `ready` gets the plain socket after the handshake.

    Raises Unavailable when there is no agreement; then the connection is closed.
    """
    relay = _Relay(connection, context, None)
    ready(relay.opened())
    relay.run()


class _Relay:
    """One connection. Each direction is read only when what was read before has gone on: nothing piles up."""

    def __init__(self, network: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        self._network = network
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=name is None, server_hostname=name)
        self._plain: socket.socket | None = None
        self._to_network = bytearray()
        self._to_plain = bytearray()
        self._network_ended = self._plain_ended = self._passed_on = False

    def started(self) -> socket.socket:
        other = self.opened()
        threading.Thread(target=self.run, name="tls", daemon=True).start()
        return other

    def opened(self) -> socket.socket:
        try:
            self._handshake()
            self._plain, other = socket.socketpair()
        except BaseException:
            self._network.close()
            raise
        self._plain.setblocking(False)
        self._network.setblocking(False)
        return other

    def _handshake(self) -> None:
        deadline = time.monotonic() + _HANDSHAKE
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    finished = True
                except ssl.SSLWantReadError:
                    finished = False
                self._network.settimeout(max(0.01, deadline - time.monotonic()))
                if data := self._outgoing.read():
                    self._network.sendall(data)
                if finished:
                    return
                data = self._network.recv(_CHUNK)
                if not data:
                    raise Unavailable("TLS: the peer closed the connection during the handshake")
                self._incoming.write(data)
        except ssl.SSLError as error:
            # The peer hears the reason, where there is one to tell.
            self._network.settimeout(1.0)
            with contextlib.suppress(OSError):
                self._network.sendall(self._outgoing.read())
            raise Unavailable(f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}") from error
        except OSError as error:
            raise Unavailable(f"TLS: {(error.strerror or str(error)).lower()}") from error

    def run(self) -> None:
        assert self._plain is not None
        try:
            self._decrypt()  # What came behind the handshake.
            while self._copy(self._plain):
                continue
        except OSError:
            pass
        finally:
            self._plain.close()
            self._network.close()

    def _copy(self, plain: socket.socket) -> bool:
        """Wait, and do what can be done; False when both directions have ended."""
        if self._network_ended and not self._to_plain and not self._passed_on:
            self._passed_on = True
            plain.shutdown(socket.SHUT_WR)
        if self._passed_on and self._plain_ended and not self._to_network:
            return False
        poll = select.poll()
        network = (0 if self._to_plain or self._network_ended else select.POLLIN) | (
            select.POLLOUT if self._to_network else 0
        )
        inside = (0 if self._to_network or self._plain_ended else select.POLLIN) | (
            select.POLLOUT if self._to_plain else 0
        )
        poll.register(self._network, network)
        # One that has shut down both of its directions would be told of again and again.
        if inside or not (self._plain_ended and self._passed_on):
            poll.register(plain, inside)
        for descriptor, events in poll.poll():
            if descriptor == plain.fileno():
                if events & select.POLLIN and inside & select.POLLIN:
                    self._encrypt(plain.recv(_CHUNK))
                elif events & select.POLLHUP and not events & select.POLLIN and not self._passed_on:
                    return False  # Whoever had the other end has let go of it.
                if events & select.POLLOUT and self._to_plain:
                    del self._to_plain[: plain.send(self._to_plain)]
            else:
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and network & select.POLLIN:
                    self._receive()
                elif events & (select.POLLERR | select.POLLHUP):
                    return False
                if events & select.POLLOUT and self._to_network:
                    del self._to_network[: self._network.send(self._to_network)]
        return True

    def _receive(self) -> None:
        data = self._network.recv(_CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._decrypt()

    def _decrypt(self) -> None:
        while not self._network_ended:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                data = b""  # A direction that ends without a word has ended all the same.
            if not data:
                self._network_ended = True
            self._to_plain += data
        self._to_network += self._outgoing.read()

    def _encrypt(self, data: bytes) -> None:
        if data:
            self._tls.write(data)
        else:
            self._plain_ended = True
            # Our side's last word is written by the first step; the peer's comes when it has no more to say.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self._to_network += self._outgoing.read()
