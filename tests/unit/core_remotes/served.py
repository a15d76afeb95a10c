"""A registry that does what a test says: blobs and manifests from memory, and faults on demand."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from sampan.core.remotes.settings import Patience, RemoteSettings
from sampan.oci.digest import Digest, digest_of
from sampan.oci.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
QUICK = Patience(attempts=4, requests=3, connect=5, stall=0.3, pause=0.01, longest=0.05, retry_after=2)


async def run_blocking(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


class Registry:
    """`users`: names and passwords that it wants, by `auth` "basic" or "bearer"; with "bearer" it is its own token
    server, whose tokens are good for `uses` requests each."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.seen: list[web.Request] = []
        self.auth = ""
        self.users = {"alice": "secret"}
        self.identities = {"identity-of-alice": "alice"}
        self.uses = 1000
        self.token_requests: list[dict[str, Any]] = []
        self.uploads: dict[str, bytearray] = {}
        self.mountable: set[str] = set()
        self._tokens: dict[str, int] = {}
        self._faults: list[tuple[re.Pattern[str], Fault]] = []
        self.address = ""
        self._runner: web.ServerRunner | None = None

    async def start(self, ssl_context: Any = None) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)  # type: ignore[arg-type]
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def fault(self, pattern: str, fault: Fault, times: int = 1) -> None:
        """For the next requests whose `METHOD path` matches; one that returns None lets the request through."""
        self._faults += [(re.compile(pattern), fault)] * times

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, f"{each.method} {each.path_qs}") is not None for each in self.seen)

    def add_blob(self, data: bytes) -> Descriptor:
        digest = digest_of(data)
        self.blobs[digest] = data
        return Descriptor(media_type=OCI_LAYER, digest=digest, size=len(data))

    def add_image(self, tag: str, config: bytes, layers: list[bytes], **more: Any) -> Digest:
        described = msgspec.structs.replace(self.add_blob(config), media_type=OCI_CONFIG)
        manifest = Manifest(
            media_type=OCI_MANIFEST, config=described, layers=tuple(self.add_blob(each) for each in layers)
        )  # fmt: skip
        document = {**msgspec.to_builtins(manifest), **more}
        return self.add_manifest(tag, OCI_MANIFEST, msgspec.json.encode(document))

    def add_manifest(self, tag: str, kind: str, data: bytes) -> Digest:
        digest = digest_of(data)
        self.manifests[tag] = self.manifests[digest] = (kind, data)
        return digest

    # --- Serving ----------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        for at, (pattern, fault) in enumerate(self._faults):
            if pattern.search(f"{request.method} {request.path_qs}"):
                del self._faults[at]
                if (response := await fault(request)) is not None:
                    return response
                break
        if request.path == "/token":
            return await self._token(request)
        if (refused := self._refused(request)) is not None:
            return refused
        return await self._answer(request)

    def _refused(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if not self.auth:
            return None
        if self.auth == "basic":
            challenge = 'Basic realm="registry"'
            good = given.startswith("Basic ") and self._user(given) is not None
        else:
            match = re.match(r"/v2/(.+)/(blobs|manifests|tags)/", request.path)
            scope = f',scope="repository:{match[1]}:pull"' if match else ""
            challenge = f'Bearer realm="http://{self.address}/token",service="test registry"{scope}'
            token = given.removeprefix("Bearer ")
            good = self._tokens.get(token, 0) > 0
            if good:
                self._tokens[token] -= 1
        return None if good else error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def _user(self, header: str) -> str | None:
        name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return name if self.users.get(name) == password else None

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        header = request.headers.get("Authorization", "")
        self.token_requests.append(
            {"method": request.method, "scopes": request.query.getall("scope", []), "header": header, **request.query,
             **form}
        )  # fmt: skip
        if request.method == "POST":
            if form.get("refresh_token") not in self.identities:
                return error(401, "UNAUTHORIZED", "unknown identity")
        elif self._user(header) is None:
            return error(401, "UNAUTHORIZED", "incorrect username or password")
        token = f"token-{len(self.token_requests)}"
        self._tokens[token] = self.uses
        more = {"refresh_token": "identity-of-alice"} if request.query.get("offline_token") else {}
        return web.json_response({"access_token": token, "expires_in": 60, **more})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.json_response({})
        match = re.fullmatch(r"(?:/cache)?/v2/(.+)/(manifests|blobs|tags)/(.+)", request.path)
        if match is None:
            return error(404, "NAME_UNKNOWN", "no such thing")
        if match[2] == "tags":
            return self._tags(request)
        if match[3].startswith("uploads/"):
            return await self._upload(request, match[1], match[3].removeprefix("uploads/"))
        if match[2] == "manifests":
            if request.method == "PUT":
                digest = self.add_manifest(match[3], request.content_type, await request.read())
                return web.Response(status=201, headers={"Docker-Content-Digest": digest})
            if match[3] not in self.manifests:
                return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            kind, data = self.manifests[match[3]]
            return web.Response(body=data, headers={"Content-Type": kind})
        if match[3] not in self.blobs:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return ranged(request, self.blobs[match[3]])

    def _tags(self, request: web.Request) -> web.Response:
        """Two on a page."""
        names = sorted(each for each in self.manifests if ":" not in each)
        last = request.query.get("last", "")
        rest = [each for each in names if each > last]
        headers = {"Link": f'<{request.path}?n=2&last={rest[1]}>; rel="next"'} if len(rest) > 2 else {}
        return web.json_response({"name": "x", "tags": rest[:2]}, headers=headers)

    async def _upload(self, request: web.Request, name: str, session: str) -> web.Response:
        if request.method == "POST":
            mounted = request.query.get("mount", "")
            if mounted in self.blobs and request.query.get("from", "") in self.mountable:
                return web.Response(status=201, headers={"Docker-Content-Digest": mounted})
            session = f"session-{len(self.uploads)}"
            self.uploads[session] = bytearray()
            return self._at(name, session)
        if session not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        content = self.uploads[session]
        if request.method == "GET":
            return self._at(name, session, 204)
        begin = request.headers.get("Content-Range", "").partition("-")[0]
        if begin and int(begin) != len(content):
            return error(416, "BLOB_UPLOAD_INVALID", "wrong range")
        async for piece in request.content.iter_any():
            content += piece
        if request.method == "PATCH":
            return self._at(name, session)
        del self.uploads[session]
        digest = request.query["digest"]
        if digest_of(bytes(content)) != digest:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs[digest] = bytes(content)
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    def _at(self, name: str, session: str, status: int = 202) -> web.Response:
        end = max(0, len(self.uploads[session]) - 1)
        place = f"/v2/{name}/blobs/uploads/{session}?state=x%2Fy"
        return web.Response(status=status, headers={"Location": place, "Range": f"0-{end}"})


def ranged(request: web.Request, data: bytes) -> web.Response:
    """All of it, or what a `Range: bytes=N-` asks for."""
    begin = request.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
    if not begin:
        return web.Response(body=data)
    at = int(begin)
    headers = {"Content-Range": f"bytes {at}-{len(data) - 1}/{len(data)}"}
    return web.Response(status=206, body=data[at:], headers=headers)


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers)


def settings(**more: Any) -> RemoteSettings:
    return RemoteSettings(**{"patience": QUICK, "certs": (), **more})


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
