"""Answers to a registry's challenges: Basic, and Bearer with a token from the realm that the registry names.

```
client                           registry                     token server (realm)
  GET /v2/NAME/… ───────────────────▶
  ◀── 401 Bearer realm, service, scope
  GET realm?service&scope… (Basic), or POST with a refresh token ──▶
  ◀──────────────────────────────────────────────── token, expires
  GET /v2/NAME/… Bearer token ──────▶
```

distribution's specs "token" and "oauth". A token ends when the registry says 401 again, which may be in the middle of a
long transfer: then another one is got.
"""

from __future__ import annotations

import asyncio
import base64
import re
import urllib.parse
from collections.abc import Sequence

import msgspec

from sampan.core.remotes.http import Http
from sampan.core.remotes.refusals import MAX_ERROR, error_text, refusal
from sampan.core.remotes.settings import Credentials
from sampan.errors import Unauthorized, Unavailable

_CLIENT = "sampan"
_PART = re.compile(r'([!#$%&\'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]*)))?')
_MAX_TOKEN = 1 << 20


class Challenge(msgspec.Struct, frozen=True):
    """One of a `WWW-Authenticate` header: the scheme and its parameters' names in lower case."""

    scheme: str
    parameters: dict[str, str]


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What a token server answers; `refresh_token`: an identity for later."""

    token: str | None = ""
    access_token: str | None = ""
    refresh_token: str | None = ""


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """RFC 9110 11.6.1: several in one header, or in several."""
    found: list[Challenge] = []
    for header in headers:
        for match in _PART.finditer(header):
            name, quoted, plain = match[1].lower(), match[2], match[3]
            if quoted is None and plain is None:
                found.append(Challenge(name, {}))
            elif found:
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                found[-1].parameters[name] = value
    return found


def basic(credentials: Credentials) -> str:
    """The header of RFC 7617."""
    login = f"{credentials.username}:{credentials.password}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


class Authorizer:
    """One user at one registry, for one operation. `scopes`: what will be done, such as `repository:NAME:pull`.

    `name`: for the messages. Safe for several tasks: the first one that is refused gets a token for all."""

    def __init__(self, http: Http, credentials: Credentials, scopes: Sequence[str] = ()) -> None:
        self._http = http
        self._credentials = credentials
        self._scopes = list(scopes)
        self._lock = asyncio.Lock()
        self.header = f"Bearer {credentials.registry_token}" if credentials.registry_token else ""
        self.identity = ""
        """The refresh token that came along, when one was asked for."""

    def add_scope(self, scope: str) -> None:
        """One more thing to do; the next token covers it."""
        if scope not in self._scopes:
            self._scopes.append(scope)
            if not self._credentials.registry_token and self.header.startswith("Bearer "):
                self.header = ""

    async def answer(self, challenges: Sequence[str], used: str, *, offline: bool = False) -> bool:
        """Get a header for a request that was refused with `used`; False if there is nothing more to say.

        `offline`: ask for an identity too. Raises Unauthorized, Unavailable."""
        async with self._lock:
            if self.header and self.header != used:
                return True
            if self._credentials.registry_token:
                return False
            self.header = await self._answer(parse_challenges(challenges), offline)
            return self.header != used

    async def _answer(self, challenges: Sequence[Challenge], offline: bool) -> str:
        for challenge in challenges:
            if challenge.scheme == "bearer":
                return f"Bearer {await self._token(challenge.parameters, offline)}"
        for challenge in challenges:
            if challenge.scheme == "basic":
                if not self._credentials.username:
                    raise Unauthorized("no basic auth credentials")
                return basic(self._credentials)
        names = ", ".join(each.scheme for each in challenges) or "nothing known"
        raise Unauthorized(f"unauthorized: the registry asks for {names}")

    async def _token(self, parameters: dict[str, str], offline: bool) -> str:
        realm, service = parameters.get("realm", ""), parameters.get("service", "")
        scopes = list(dict.fromkeys((*self._scopes, *filter(None, [parameters.get("scope", "")]))))
        await self._check_realm(realm)
        status, data, url, headers = await self._http.again(
            self._http.patience.requests, lambda: self._ask(realm, service, scopes, offline)
        )
        if status != 200:
            if status in (400, 401, 403):
                text = error_text(data)[1] or "incorrect username or password"
                raise Unauthorized(text if text.startswith("unauthorized") else f"unauthorized: {text}")
            raise refusal("GET", url, status, headers, data)
        try:
            token = msgspec.json.decode(data, type=Token)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable(f"the token of {realm} does not decode: {error}") from error
        self.identity = token.refresh_token or ""
        found = token.access_token or token.token or ""
        if not found or not found.isascii() or not found.isprintable():
            raise Unavailable(f"authorization server {realm} did not include a token in the response")
        return found

    async def _check_realm(self, realm: str) -> None:
        parts = urllib.parse.urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            raise Unavailable(f"the registry names {realm[:200]!r} as the place of its tokens, which is no address")
        if parts.scheme == "http" and not await self._http.unverified(parts.netloc):
            raise Unavailable(f"the registry wants credentials sent to {realm} over plain HTTP")

    async def _ask(
        self, realm: str, service: str, scopes: list[str], offline: bool
    ) -> tuple[int, bytes, str, dict[str, str]]:
        """Status, content, address and headers. A login of a token goes in a form, as oauth2 has it; all others in the
        way that every token server knows."""
        given = self._credentials
        if given.identity_token:
            form = {
                "grant_type": "refresh_token", "service": service, "client_id": _CLIENT, "scope": " ".join(scopes),
                "refresh_token": given.identity_token,
            }  # fmt: skip
            return await self._read("POST", realm, "", urllib.parse.urlencode(form).encode())
        query = [*((("service", service),) if service else ()), *(("scope", scope) for scope in scopes)]
        if offline:
            query += [("offline_token", "true"), ("client_id", _CLIENT)]
        if given.username:
            query.append(("account", given.username))
        separator = "&" if "?" in realm else "?"
        url = f"{realm}{separator}{urllib.parse.urlencode(query)}" if query else realm
        return await self._read("GET", url, basic(given) if given.username else "", None)

    async def _read(
        self, method: str, url: str, authorization: str, form: bytes | None
    ) -> tuple[int, bytes, str, dict[str, str]]:
        fields = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        response = await self._http.send(method, url, headers=fields, body=form, authorization=authorization)
        async with response:
            data = await self._http.content(response, _MAX_TOKEN if response.status == 200 else MAX_ERROR)
            headers = dict(response.headers)
            if response.status == 429 or response.status >= 500:
                raise refusal(method, url, response.status, headers, data)
            return response.status, data, url, headers
