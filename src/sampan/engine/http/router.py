"""Dispatch: from method, path and version to a handler, and from an error to its document.

A handler is `async def handler(request: Request) -> web.StreamResponse | None`; None says that the connection was taken
by `hijack`. It runs to its end even if the client goes away in the middle, so that nothing is left half done;
a route that only tells (a stream of events or logs, a wait) says `cancellable` and is cancelled instead.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

from sampan import __version__
from sampan.engine.http.connection import Connection
from sampan.engine.http.errors import error_response, status_of
from sampan.engine.http.request import Request
from sampan.errors import SampanError

API_VERSION = (1, 51)
MIN_API_VERSION = (1, 24)

Handler = Callable[[Request], Awaitable[web.StreamResponse | None]]

_log = logging.getLogger("sampan.http")
_VERSIONED = re.compile(r"/v(\d+)\.(\d+)(/.*)")
_PARAMETER = re.compile(r"\{(\w+)(?::([^}]+))?\}")
HEADERS = {
    "Api-Version": f"{API_VERSION[0]}.{API_VERSION[1]}",
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Sampan/{__version__} (linux)",
}


@dataclass(frozen=True)
class RouteDef:
    """`path` without version; `{name}` is one segment, `{name:.+}` several (image names have slashes)."""

    method: str
    path: str
    handler: Handler
    cancellable: bool = False


def _segments(first: str) -> str:
    """What a parameter without a pattern matches. A linked container has a name of two parts, `LINKING/ALIAS`."""
    return "[^/]+(?:/[^/]+)?" if first == "containers" else "[^/]+"


class Router:
    def __init__(self, routes: Iterable[RouteDef]) -> None:
        self._telling: set[asyncio.Task[object]] = set()
        self._exact: dict[tuple[str, str], RouteDef] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], RouteDef]]] = {}
        for route in routes:
            if "{" not in route.path:
                self._exact[route.method, route.path] = route
                continue
            # Sorted by the first segment, so that a look-up tries a handful of patterns.
            first = route.path.split("/", 2)[1]
            parts = _PARAMETER.split(route.path)
            source = "".join(
                re.escape(part) if at % 3 == 0 else f"(?P<{part}>{parts[at + 1] or _segments(first)})"
                for at, part in enumerate(parts)
                if at % 3 != 2
            )
            self._patterns.setdefault((route.method, first), []).append((re.compile(source), route))

    def find(self, method: str, path: str) -> tuple[RouteDef, dict[str, str]] | None:
        """The route for a path without its version, and the path's parameters."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        for pattern, route in self._patterns.get((method, path.split("/", 2)[1] if "/" in path else ""), ()):
            match = pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict()
        return None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request; what aiohttp's low-level server calls."""
        assert isinstance(request, Request)
        response = await self._answer(request)
        if isinstance(request.protocol, Connection):
            request.protocol.declined()
        return response

    async def _tell(self, handler: Handler, request: Request) -> web.StreamResponse | None:
        task = asyncio.current_task()
        assert task is not None
        self._telling.add(task)
        try:
            return await handler(request)
        finally:
            self._telling.discard(task)

    def cancel_streams(self) -> None:
        """End the requests that only tell: the engine goes, and they would never end by themselves."""
        for task in self._telling:
            task.cancel()

    async def _answer(self, request: Request) -> web.StreamResponse:
        path = request.path
        request.api_version = API_VERSION
        versioned = _VERSIONED.fullmatch(path)
        if versioned is not None:
            version = (int(versioned[1]), int(versioned[2]))
            path = versioned[3]
            refusal = _refused_version(version)
            if refusal:
                return _with_headers(error_response(400, refusal))
            request.api_version = version
        found = self.find(request.method, path)
        if found is None:
            return _with_headers(error_response(404, "page not found"))
        route, request.match_info = found
        try:
            if route.cancellable:
                response = await self._tell(route.handler, request)
            else:
                response = await asyncio.shield(asyncio.ensure_future(route.handler(request)))
        except SampanError as error:
            _check_unbegun(request, error.message)
            response = error_response(status_of(error), error.message)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            _check_unbegun(request, str(error))
            response = error_response(500, f"{type(error).__name__}: {error}".splitlines()[0])
        if response is None:
            # The transport was aborted by `hijack`; aiohttp sees this as a client that left.
            raise ConnectionResetError
        return _with_headers(response)


def _check_unbegun(request: Request, message: str) -> None:
    """An answer that has begun can't become another: its connection breaks, so that the client sees it is not whole."""
    if request.writer.output_size:
        _log.warning("%s %s: the answer breaks off: %s", request.method, request.path, message)
        raise ConnectionResetError


def _refused_version(version: tuple[int, int]) -> str:
    name = f"{version[0]}.{version[1]}"
    if version > API_VERSION:
        return (
            f"client version {name} is too new. Maximum supported API version is {API_VERSION[0]}.{API_VERSION[1]}"
        )  # fmt: skip
    if version < MIN_API_VERSION:
        return (
            f"client version {name} is too old. Minimum supported API version is "
            f"{MIN_API_VERSION[0]}.{MIN_API_VERSION[1]}, please upgrade your client to a newer version"
        )
    return ""


def _with_headers(response: web.StreamResponse) -> web.StreamResponse:
    if not response.prepared:
        response.headers.update(HEADERS)
    return response
