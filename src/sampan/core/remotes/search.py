"""Searching a registry, where it can be searched: Docker Hub's API `/v1/search`, which no specification has."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

import msgspec

from sampan.core.remotes.auth import basic
from sampan.core.remotes.endpoints import HUB_INDEX
from sampan.core.remotes.http import Http, RunBlocking
from sampan.core.remotes.refusals import MAX_ERROR, refusal
from sampan.core.remotes.remote import find_endpoint, open_http
from sampan.core.remotes.settings import Credentials, RemoteSettings
from sampan.errors import Unsupported

_MAX_ANSWER = 4 << 20


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One repository that was found, in the registry's words."""

    name: str
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct, frozen=True, kw_only=True):
    results: tuple[Result, ...] | None = ()


def split_term(term: str) -> tuple[str, str]:
    """The host to ask, and what for: `quay.example/thing` asks quay.example, all else Docker Hub."""
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (HUB_INDEX, rest) if first in ("docker.io", HUB_INDEX) else (first, rest)
    return HUB_INDEX, term.removeprefix("library/")


async def search(
    term: str, limit: int, settings: RemoteSettings, run_blocking: RunBlocking, credentials: Credentials | None = None
) -> Sequence[Result]:
    """Raises Unsupported where the registry has no search, Unauthorized, Unavailable."""
    host, wanted = split_term(term)
    async with open_http(settings, run_blocking) as http:
        endpoint = await find_endpoint(http, host)
        query = urllib.parse.urlencode({"q": wanted, "n": limit})
        url = f"{endpoint.scheme}://{endpoint.host}/v1/search?{query}"
        authorization = basic(credentials) if credentials and credentials.username else ""
        return await http.again(http.patience.requests, lambda: _ask(http, host, url, authorization))


async def _ask(http: Http, host: str, url: str, authorization: str) -> Sequence[Result]:
    async with await http.send("GET", url, authorization=authorization) as response:
        data = await http.content(response, _MAX_ANSWER if response.status == 200 else MAX_ERROR)
        if response.status not in (200, 404):
            raise refusal("GET", url, response.status, response.headers, data)
    if response.status == 200:
        try:
            return msgspec.json.decode(data, type=_Results).results or ()
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    raise Unsupported(f"registry {host} has no search")
