"""Requests that no client would send, at every endpoint: each gets an answer that says what is wrong with it, none a
500, and nothing is left of them. SAMPAN_TEST_EXAMPLES: how many for each endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import urllib.parse
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sampan.api import exec as exec_api
from sampan.api import networks as network_api
from sampan.api import system as system_api
from sampan.api import volumes as volume_api
from sampan.api.containers import CreateRequest, HostConfig, UpdateRequest
from sampan.engine import config
from sampan.engine.http.router import RouteDef
from sampan.engine.routes import all_routes
from sampan.engine.services import Engine as Services
from sampan.errors import SampanError
from tests.e2e.conftest import Engine

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox"), pytest.mark.timeout(900)
]  # fmt: skip
_EXAMPLES = int(os.environ.get("SAMPAN_TEST_EXAMPLES", "12"))
_NOWHERE = "127.0.0.1:1/nothing"
_STREAMS = ("/events", "/logs", "/stats", "/wait", "/attach", "/exec/", "/ws")


def _routes() -> list[RouteDef]:
    async def make() -> list[RouteDef]:
        return all_routes(Services(config.Config()))

    return asyncio.run(make())


ROUTES = _routes()

# --- What is sent -----------------------------------------------------------------------------------

_ODD = (
    "", "-1", "0", "1", "99999999999999999999", "true", "maybe", "[]", "{}", "null", "\0", "1h", "1.5", "NaN", "inf",
    "-", "2020-13-41T00:00:00Z", "2020-01-01T00:00:00Z", "a=b", "=", "..", "\udcff", "a" * 300, "box", "victim",
    "http://", "'", '"', "%", "\n", "SIGKILL", "ctrl-", "[", "::", "0x10", "\uff11",
)  # fmt: skip
WORDS = st.sampled_from(_ODD) | st.text(max_size=12)
NUMBERS = st.sampled_from((0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**30)) | st.integers()
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6,
)  # fmt: skip


def _like(kind: Any) -> st.SearchStrategy[Any]:
    """Values that decode as this type, as often as not."""
    info = msgspec.inspect
    match kind:
        case info.StructType(fields=fields):
            return st.fixed_dictionaries({}, optional={each.encode_name: _like(each.type) for each in fields})
        case info.UnionType(types=types):
            return st.one_of([_like(each) for each in types])
        case info.DictType(value_type=value):
            return st.dictionaries(WORDS, _like(value), max_size=2)
        case info.VarTupleType(item_type=item) | info.ListType(item_type=item):
            return st.lists(_like(item), max_size=2)
        case info.TupleType(item_types=items):
            return st.tuples(*map(_like, items)).map(list)
        case info.IntType():
            return NUMBERS
        case info.BoolType():
            return st.booleans()
        case info.StrType():
            return WORDS
        case info.NoneType():
            return st.none()
        case _:
            return JSON


def _documents(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """A few members each, most of the right type."""
    fields = {each.encode_name: each.type for each in msgspec.inspect.type_info(kind).fields}  # type: ignore[attr-defined]
    one = st.sampled_from(sorted(fields)).flatmap(lambda name: st.tuples(st.just(name), _like(fields[name]) | JSON))
    return st.lists(one, max_size=4).map(dict)


BODIES: dict[str, st.SearchStrategy[Any]] = {
    "/containers/create": st.builds(
        lambda config, host: {"Image": "box", "Cmd": ["true"], **config, "HostConfig": host},
        _documents(CreateRequest), _documents(HostConfig) | JSON,
    ),
    "/containers/{id}/update": _documents(UpdateRequest),
    "/containers/{id}/exec": _documents(exec_api.ExecCreateRequest),
    "/exec/{id}/start": _documents(exec_api.ExecStartRequest),
    "/networks/create": _documents(network_api.NetworkCreateRequest),
    "/networks/{id}/connect": _documents(network_api.NetworkConnectRequest),
    "/networks/{id}/disconnect": _documents(network_api.NetworkConnectRequest),
    "/volumes/create": _documents(volume_api.VolumeCreateRequest),
    "/auth": _documents(system_api.AuthRequest),
}  # fmt: skip
QUERIES = (
    "all", "limit", "size", "filters", "since", "until", "follow", "stdout", "stderr", "tail", "timestamps", "details",
    "stream", "one-shot", "ps_args", "name", "platform", "t", "signal", "condition", "h", "w", "detachKeys", "force",
    "v", "link", "path", "noOverwriteDirNonDir", "copyUIDGID", "container", "repo", "tag", "comment", "author",
    "changes", "pause", "names", "term", "quiet", "digests", "shared-size", "manifests", "type", "verbose", "logs",
    "stdin",
)  # fmt: skip
FILTERS = st.dictionaries(
    st.sampled_from(("status", "label", "name", "id", "before", "since", "exited", "health", "until", "publish",
                     "expose", "is-task", "dangling", "reference", "type", "event", "driver", "scope")) | WORDS,
    st.lists(WORDS, max_size=2) | st.dictionaries(WORDS, st.booleans(), max_size=2) | JSON, max_size=2,
).map(json.dumps)  # fmt: skip


def _harmless(path: str, body: Any) -> Any:
    """Nothing of this machine is made, and no other machine is asked."""
    if path == "/auth" and isinstance(body, dict):
        return {**body, "serveraddress": "127.0.0.1:1"}
    host = body.get("HostConfig") if isinstance(body, dict) else None
    if isinstance(host, dict):
        for name in ("Binds", "Mounts", "CgroupParent", "Devices", "Privileged", "LogConfig"):
            if name in host and "/" in json.dumps(host[name]):
                del host[name]
        if host.get("Privileged"):
            del host["Privileged"]
    return body


@st.composite
def requests(draw: st.DrawFn, route: RouteDef) -> bytes:
    """Head and body."""
    name = draw(st.sampled_from(("victim", "victim", "nosuch", "box", "none", "bridge")) | WORDS)
    if re.search(r"distribution|push", route.path):
        name = _NOWHERE
    path = re.sub(r"\{\w+(:[^}]+)?\}", urllib.parse.quote(name, safe="/:", errors="surrogateescape"), route.path)
    pairs = {draw(st.sampled_from(QUERIES)): draw(WORDS) for _ in range(draw(st.integers(0, 3)))}
    if draw(st.booleans()):
        pairs["filters"] = draw(FILTERS | WORDS)
    if route.path == "/images/create":
        pairs = {**pairs, "fromImage": _NOWHERE}
    if route.path in ("/images/search",):
        pairs["term"] = _NOWHERE
    if "prune" in route.path:
        pairs["filters"] = draw(FILTERS | st.just("{"))
    version = draw(st.sampled_from(("", "", "/v1.24", "/v1.51", "/v1.41", "/v1.52", "/v0", "/vx")))
    target = f"{version}{path}?{urllib.parse.urlencode(pairs, errors='surrogateescape')}"
    body = b""
    if route.method in ("POST", "PUT"):
        document = draw(BODIES.get(route.path, JSON))
        body = draw(
            st.just(json.dumps(_harmless(route.path, document)).encode()) | st.binary(max_size=40)
            | st.sampled_from((b"", b"{", b"null", b"[]", b'{"a":', b"\xff\xfe", b'"' + b"[" * 2000))
        )  # fmt: skip
    kind = draw(
        st.sampled_from(("application/json",) * 6 + ("text/plain", "application/x-tar", "", "multipart/form-data"))
    )
    head = [f"{route.method} {target} HTTP/1.1", "Host: d", f"Content-Length: {len(body)}", "Connection: close"]
    head += [f"Content-Type: {kind}"] if kind else []
    if draw(st.integers(0, 5)) == 0:
        head += ["X-Registry-Auth: " + draw(st.sampled_from(("x", "e30=", "bnVsbA==", "W10=", "eyJhIjoxfQ==")))]
    return "\r\n".join([*head, "", ""]).encode() + body


# --- What is answered -------------------------------------------------------------------------------


def _answer(engine: Engine, request: bytes) -> tuple[int, bytes]:
    """Status and what there is of the body by then: a stream may go on for ever."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(engine.paths.socket)
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(1 << 16)
            if not more:
                break
            data += more
        endless = any(each.encode() in request.split(b"?")[0] for each in _STREAMS)
        with contextlib.suppress(TimeoutError):
            connection.settimeout(0.05 if endless else 60)
            while more := connection.recv(1 << 16):
                data += more
    assert data.startswith(b"HTTP/1.1 "), (request, data)
    return int(data.split(b" ", 2)[1]), data.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def watched(engine: Engine) -> Iterator[Engine]:
    """Afterwards nothing is left of it all."""
    descriptors = f"/proc/{engine.pid}/fd"
    _revive(engine)
    before = len(os.listdir(descriptors))
    yield engine
    engine.remove_containers()
    for each in engine.client.call("GET", "/containers/json", all=True):
        engine.client.call("DELETE", f"/containers/{each['Id']}", force=True, v=True)
    for kind in ("networks", "volumes", "images"):
        engine.client.call("POST", f"/{kind}/prune", filters={"all": ["1"]} if kind == "volumes" else {})
    for image in engine.client.call("GET", "/images/json"):
        for tag in image["RepoTags"]:
            if tag != "box:latest":
                engine.client.call("DELETE", f"/images/{urllib.parse.quote(tag, safe='/:')}", force=True)
    assert engine.left_over() == []
    assert sorted(each["Name"] for each in engine.client.call("GET", "/networks")) == ["bridge", "host", "none"]
    assert len(os.listdir(descriptors)) <= before + 12, os.listdir(descriptors)


def _revive(engine: Engine) -> None:
    """The container that all is done to: there, and running."""
    body = {"Image": "box", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none"}}
    with contextlib.suppress(SampanError):
        engine.client.call("POST", "/containers/victim/unpause")
    with contextlib.suppress(SampanError):
        engine.client.call("POST", "/containers/create", body, name="victim")
    with contextlib.suppress(SampanError):
        engine.client.call("POST", "/containers/victim/start")


@pytest.mark.parametrize("route", ROUTES, ids=lambda each: f"{each.method} {each.path}")
def test_no_request_is_too_much(watched: Engine, route: RouteDef) -> None:
    @settings(
        max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests(route))
    def ask(request: bytes) -> None:
        status, body = _answer(watched, request)
        assert status < 500 or status in (501, 503), (status, body, request)
        if status >= 400 and not request.startswith(b"HEAD"):
            message = json.loads(body)["message"]
            assert message and "\n" not in message.strip() and "Traceback" not in message, (status, message, request)

    _revive(watched)
    ask()


def test_what_is_made_of_odd_configurations_starts_or_says_why(watched: Engine) -> None:
    """And is removed without a trace."""

    @settings(max_examples=_EXAMPLES * 4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODIES["/containers/create"])
    def make(body: Any) -> None:
        body = _harmless("/containers/create", {**body, "Image": "box", "Cmd": ["true"], "Entrypoint": None})
        data = json.dumps(body).encode()
        head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: close\r\n"
        status, answer = _answer(watched, f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        assert status < 500 or status in (501, 503), (status, answer, body)
        if status != 201:
            return
        made = json.loads(answer)["Id"]
        head = f"POST /containers/{made}/start HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        status, answer = _answer(watched, head.encode())
        assert status < 500 or status in (501, 503), (status, answer, body)
        with contextlib.suppress(SampanError):  # It may be removing itself.
            watched.client.call("DELETE", f"/containers/{made}", force=True, v=True)

    make()
