"""Requests to registries: one session for an operation, each host with its own TLS, redirects followed by hand.

A redirect to another host carries no credentials, whatever the registry says, and never leads from TLS to plain HTTP
(unless that host may be spoken to so).
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from sampan import __version__
from sampan.core.remotes.refusals import RateLimited, ServerStumbled
from sampan.core.remotes.settings import Patience
from sampan.core.remotes.trust import Trust, is_loopback
from sampan.errors import InvalidArgument, SampanError, Unavailable

RunBlocking = Callable[..., Awaitable[Any]]
Body = bytes | Callable[[], AsyncIterator[bytes]]
"""Bytes, or what makes the pieces, anew for each try."""
T = TypeVar("T")

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_BUFFER = 1 << 20


class ConnectionBroke(Unavailable):
    """The network failed, before or in the middle of an answer: worth another try."""


class NotTLS(ConnectionBroke):
    """The other side speaks plain HTTP where TLS was wanted."""


class Http:
    """An async context manager; safe for several tasks."""

    def __init__(self, trust: Trust, patience: Patience, run_blocking: RunBlocking) -> None:
        self.trust = trust
        self.patience = patience
        self.run_blocking = run_blocking
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.connect, sock_read=patience.stall)
        self._session = aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_BUFFER
        )

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Body | None = None,
        authorization: str = "",
    ) -> aiohttp.ClientResponse:  # fmt: skip
        """The answer, whatever its status, at the end of all redirects. The caller releases it. Raises ConnectionBroke,
        Unavailable (certificates, redirects), InvalidArgument (an address that is none)."""
        fields = {"User-Agent": f"sampan/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        if authorization:
            fields["Authorization"] = authorization
        try:
            at = URL(url, encoded=url.isascii())  # What a registry has signed goes back as it came.
        except ValueError as error:
            raise InvalidArgument(f"invalid address {url!r}: {error}") from error
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._once(method, at, fields, body)
            if response.status not in _REDIRECTS:
                return response
            target = response.headers.get("Location", "")
            response.release()
            at, before = self._led(at, target), at
            if at.origin() != before.origin():
                fields.pop("Authorization", None)
                if method not in ("GET", "HEAD"):
                    raise Unavailable(f'{method.capitalize()} "{before}": it is led to another host, {at.authority}')
            if before.scheme == "https" and at.scheme == "http" and not await self.unverified(at.authority):
                raise Unavailable(f'{method.capitalize()} "{before}": it is led from TLS to plain HTTP, {at}')
        raise Unavailable(f'{method.capitalize()} "{url}": stopped after {_MOST_REDIRECTS} redirects')

    def _led(self, at: URL, target: str) -> URL:
        try:
            led = at.join(URL(target, encoded=True))
        except ValueError:
            led = URL()
        if led.scheme not in ("http", "https") or not led.host or not target:
            raise Unavailable(f'Get "{at}": it is led to {target[:200]!r}, which is no address')
        return led

    async def unverified(self, host: str) -> bool:
        return bool(await self.run_blocking(self.trust.unverified, host))

    async def _once(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body | None
    ) -> aiohttp.ClientResponse:  # fmt: skip
        tls: ssl.SSLContext | bool = True
        if url.scheme == "https":
            tls = await self.run_blocking(self.trust.context, url.authority)
        sent = f'{method.capitalize()} "{url.with_query(None)}": '
        try:
            if not callable(body):
                return await self._request(method, url, headers, body, tls)
            # What is sent may stall as well as what is read; the pieces push the deadline on.
            async with asyncio.timeout(self.patience.stall) as limit:
                pieces = _watched(body(), limit, self.patience.stall)
                return await self._request(method, url, headers, pieces, tls)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unavailable(f"{sent}{_certificate(error)}") from error
        except aiohttp.ClientConnectorSSLError as error:
            if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER_FAILURE" in str(error):
                raise NotTLS(f"{sent}http: server gave HTTP response to HTTPS client") from error
            raise Unavailable(f"{sent}tls: {error.os_error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ConnectionBroke(f"{sent}{reason(error)}") from error
        except ValueError as error:
            raise Unavailable(f"{sent}{error}") from error

    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], body: Any, tls: ssl.SSLContext | bool
    ) -> aiohttp.ClientResponse:  # fmt: skip
        return await self._session.request(
            method, url, headers=headers, data=body, ssl=tls, allow_redirects=False, proxy=_proxy(url)
        )

    async def content(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """The first `most` bytes of an answer's body. Raises ConnectionBroke."""
        data = bytearray()
        async for piece in self.pieces(response):
            data += piece
            if len(data) > most:
                break
        return bytes(data[:most])

    @staticmethod
    async def pieces(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises ConnectionBroke when it breaks off or stalls."""
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ConnectionBroke(f'Get "{response.url.with_query(None)}": {reason(error)}') from error

    async def again(self, tries: int, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, and again after a pause where the registry or the network stumbled."""
        for attempt in range(tries):
            try:
                return await work()
            except (ConnectionBroke, ServerStumbled, RateLimited) as error:
                if attempt == tries - 1 or isinstance(error, NotTLS) or not await self.rest(attempt, error):
                    raise
        raise AssertionError("unreachable")

    async def rest(self, attempt: int, error: SampanError) -> bool:
        """The pause before another try; False at once where the registry wants more than one has patience for."""
        patience = self.patience
        most = min(patience.longest, patience.pause * 2**attempt)
        pause = most * random.uniform(0.5, 1.0)
        if isinstance(error, RateLimited):
            if error.rest > patience.retry_after:
                return False
            pause = max(pause, error.rest)
        await asyncio.sleep(pause)
        return True


async def _watched(pieces: AsyncIterator[bytes], limit: asyncio.Timeout, stall: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    async for piece in pieces:
        limit.reschedule(loop.time() + stall)
        yield piece
    limit.reschedule(None)  # From here on the session's own limit counts.


def _proxy(url: URL) -> str | None:
    """What the environment says; never for this machine itself, as Go has it."""
    host = url.host or ""
    if is_loopback(host) or urllib.request.proxy_bypass_environment(url.authority):  # type: ignore[attr-defined]
        return None
    name = f"{url.scheme}_proxy"
    return os.environ.get(name) or os.environ.get(name.upper()) or None


def reason(error: BaseException) -> str:
    """Why a connection failed, in Go's words where there are some."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError):
        why = (os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)).lower()
        return f"dial tcp {error.host}:{error.port}: connect: {why}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, TimeoutError):
        return "the connection timed out" if isinstance(error, aiohttp.ConnectionTimeoutError) else "i/o timeout"
    return str(error) or type(error).__name__


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    message = getattr(found, "verify_message", "") or str(found)
    if "hostname" in message.lower() or "ip address mismatch" in message.lower():
        return f"tls: failed to verify certificate: x509: {message}"
    if "unable to get" in message or "self-signed" in message or "self signed" in message:
        return f"tls: failed to verify certificate: x509: certificate signed by unknown authority ({message})"
    return f"tls: failed to verify certificate: x509: {message}"
