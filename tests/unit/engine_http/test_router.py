"""Dispatch, versions, errors, keep-alive, and what becomes of a request whose client leaves."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import time

import msgspec
import pytest
from aiohttp import web

from sampan import errors
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import Handler, RouteDef
from sampan.engine.http.stream import MessageStream
from tests.unit.engine_http.served import serve


class Body(msgspec.Struct, frozen=True):
    number: int = 7


async def echo(request: Request) -> web.Response:
    return json_response({"path": request.match_info, "version": request.api_version, "q": dict(request.query)})


async def take(request: Request) -> web.Response:
    return json_response(await request.document(Body))


def raising(error: BaseException) -> Handler:
    async def handler(request: Request) -> web.StreamResponse:
        raise error

    return handler


ROUTES = [
    RouteDef("GET", "/plain", echo),
    RouteDef("HEAD", "/plain", echo),
    RouteDef("GET", "/images/{name:.+}/json", echo),
    RouteDef("GET", "/containers/{id}/json", echo),
    RouteDef("POST", "/take", take),
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/images/registry.example:5000/a/b:tag/json", {"name": "registry.example:5000/a/b:tag"}),
        ("/v1.51/images/a@sha256:12/json", {"name": "a@sha256:12"}),
        ("/containers/a%20b/json", {"id": "a b"}),
        ("/v1.24/plain", {}),
    ],
)
async def test_parameters_of_a_path(short_dir: pathlib.Path, path: str, found: dict[str, str]) -> None:
    async with serve(short_dir, ROUTES) as served:
        client = await served.connect()
        answer = await client.ask("GET", path)
        client.close()
    assert answer.status == 200
    assert msgspec.json.decode(answer.body)["path"] == found


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nothing", 404, "page not found"),
        ("/containers/a/b/c/json", 404, "page not found"),
        ("/", 404, "page not found"),
        ("/v1.52/plain", 400, "client version 1.52 is too new. Maximum supported API version is 1.51"),
        (
            "/v1.23/plain", 400,
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a "
            "newer version",
        ),
    ],
)  # fmt: skip
async def test_what_is_not_served(short_dir: pathlib.Path, path: str, status: int, message: str) -> None:
    async with serve(short_dir, ROUTES) as served:
        client = await served.connect()
        answer = await client.ask("GET", path)
        client.close()
    assert (answer.status, msgspec.json.decode(answer.body)) == (status, {"message": message})
    assert answer.headers["Api-Version"] == "1.51"


async def test_one_connection_serves_many_requests(short_dir: pathlib.Path) -> None:
    async with serve(short_dir, ROUTES) as served:
        client = await served.connect()
        assert (await client.ask("HEAD", "/plain")).status == 200
        assert (await client.ask("POST", "/take", b'{"number": 3}')).body == b'{"number":3}\n'
        assert (await client.ask("POST", "/take", b'{"number": "x"}')).status == 400
        # As Go reads it: null is what is not there.
        assert (await client.ask("POST", "/take", b'{"number": null, "x": [null]}')).body == b'{"number":7}\n'
        assert (await client.ask("POST", "/take", b'{"number": "x", "y": null}')).status == 400
        assert (await client.ask("POST", "/take", b"null")).status == 400
        form = await client.ask("POST", "/take", b'{"number": 3}', ["Content-Type: text/plain"])
        assert (form.status, b"unsupported Content-Type header (text/plain)" in form.body) == (400, True)
        assert (await client.ask("GET", "/nothing")).status == 404
        assert msgspec.json.decode((await client.ask("GET", "/v1.30/plain?a=b")).body) == {
            "path": {}, "version": [1, 30], "q": {"a": "b"},
        }  # fmt: skip
        assert (await client.ask("POST", "/take")).body == b'{"number":7}\n'
        client.close()


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.NotFound("No such image: x"), 404, "No such image: x"),
        (errors.CommandNotFound("exec: x"), 400, "exec: x"),
        (errors.Conflict("in use"), 409, "in use"),
        (errors.Unsupported("later"), 501, "later"),
        (ValueError("odd\nlines"), 500, "ValueError: odd"),
    ],
)
async def test_errors_become_documents(
    short_dir: pathlib.Path, caplog: pytest.LogCaptureFixture, error: BaseException, status: int, message: str
) -> None:
    caplog.set_level(logging.CRITICAL, logger="sampan.http")
    async with serve(short_dir, [RouteDef("GET", "/fail", raising(error))]) as served:
        client = await served.connect()
        answer = await client.ask("GET", "/fail")
        client.close()
    assert (answer.status, msgspec.json.decode(answer.body)) == (status, {"message": message})


async def test_not_modified_has_no_body(short_dir: pathlib.Path) -> None:
    routes = [RouteDef("POST", "/start", raising(errors.NotModified("runs"))), *ROUTES]
    async with serve(short_dir, routes) as served:
        client = await served.connect()
        assert (await client.ask("POST", "/start")).status == 304
        # A body after 304 would be taken for the next answer.
        assert (await client.ask("GET", "/plain")).status == 200
        client.close()


async def test_an_error_before_and_inside_a_stream(short_dir: pathlib.Path) -> None:
    async def handler(request: Request) -> web.StreamResponse:
        async with MessageStream(request) as stream:
            if request.flag("late"):
                await stream.send({"status": "begun"})
            raise errors.NotFound("gone")
        return stream.response

    async with serve(short_dir, [RouteDef("POST", "/pull", handler)]) as served:
        client = await served.connect()
        early = await client.ask("POST", "/pull")
        late = await client.ask("POST", "/pull?late=1")
        client.close()
    assert (early.status, early.body) == (404, b'{"message":"gone"}\n')
    assert late.status == 200
    assert [msgspec.json.decode(line) for line in late.body.split()] == [
        {"status": "begun"}, {"errorDetail": {"message": "gone"}, "error": "gone"},
    ]  # fmt: skip


@pytest.mark.parametrize("cancellable", [True, False])
async def test_a_client_that_leaves(short_dir: pathlib.Path, cancellable: bool) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def handler(request: Request) -> web.StreamResponse:
        began.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ended.set_result("cancelled")
            raise
        ended.set_result("finished")
        return web.Response()

    async with serve(short_dir, [RouteDef("POST", "/work", handler, cancellable=cancellable)]) as served:
        client = await served.connect()
        client.send("POST", "/work")
        await began.wait()
        client.close()
        await asyncio.sleep(0.05)
        go_on.set()
        assert await asyncio.wait_for(ended, 1) == ("cancelled" if cancellable else "finished")


async def test_the_end_of_the_engine_ends_streams(short_dir: pathlib.Path) -> None:
    began = asyncio.Event()

    async def handler(request: Request) -> web.StreamResponse:
        async with MessageStream(request) as stream:
            await stream.begin()
            began.set()
            await asyncio.sleep(3600)
        return stream.response

    async with serve(short_dir, [RouteDef("GET", "/events", handler, cancellable=True)]) as served:
        client = await served.connect()
        client.send("GET", "/events")
        await began.wait()
        ended_at = time.monotonic()
        served.router.cancel_streams()
        await served.server.shutdown(5)
        assert time.monotonic() - ended_at < 0.5
        assert (await client.reader.read()).endswith(b"\r\n\r\n")
        client.close()


async def test_the_end_of_the_engine_waits_for_work_and_not_for_idle_connections(short_dir: pathlib.Path) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> web.StreamResponse:
        began.set()
        await go_on.wait()
        return web.Response(text="done")

    async with serve(short_dir, [RouteDef("POST", "/work", handler), *ROUTES]) as served:
        idle, busy = await served.connect(), await served.connect()
        assert (await idle.ask("GET", "/plain")).status == 200
        busy.send("POST", "/work")
        await began.wait()
        end = asyncio.create_task(served.server.end(5))
        assert await asyncio.wait_for(idle.reader.read(), 1) == b""
        go_on.set()
        assert (await busy.receive()).body == b"done"
        await asyncio.wait_for(end, 1)
        idle.close()
        busy.close()
