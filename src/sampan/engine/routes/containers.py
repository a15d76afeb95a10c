"""The container endpoints of the Engine API."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from sampan.api.container_documents import ContainerSummary, PruneReport
from sampan.api.containers import CreateRequest, CreateResponse, UpdateRequest, UpdateResponse, WaitError, WaitResponse
from sampan.engine.blocking import run_blocking
from sampan.engine.containers import documents, links, log_formats, log_options, logs, stats
from sampan.engine.containers.container import Container, End
from sampan.engine.containers.detach import parse_detach_keys
from sampan.engine.containers.signals import parse_signal
from sampan.engine.containers.top import top
from sampan.engine.http.filters import known_filters, labels_match
from sampan.engine.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM, hijack, stream_type
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import HEADERS, RouteDef
from sampan.engine.http.stream import MessageStream
from sampan.engine.timestamps import parse_moment
from sampan.errors import Conflict, InvalidArgument, SampanError, Unsupported
from sampan.faults import stage
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine


_OLD_MAC_ADDRESS = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)


class ContainerRoutes:
    """One method an endpoint."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _resolve(self, request: Request) -> Container:
        return self._engine.containers.resolve(request.match_info["id"])

    # --- Reading ----------------------------------------------------------------------------------

    async def list(self, request: Request) -> web.StreamResponse:
        found = documents.listed(
            self._engine, request.filters(), all_=request.flag("all"), limit=request.integer("limit", 0) or 0
        )
        size = request.flag("size")

        def summaries() -> list[ContainerSummary]:
            version = request.api_version
            others = links.names(self._engine.containers.all())
            return [
                documents.summary(self._engine, each, size=size, api_version=version, others=others) for each in found
            ]

        return json_response(await run_blocking(summaries) if size else summaries())

    async def inspect(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        return json_response(documents.inspect(self._engine, container, size=request.flag("size")))

    async def top(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        task = self._engine.containers.live(container)
        response = top(await task.pids(), request.text_parameter("ps_args"))
        self._engine.containers.publish(container, "top")
        return json_response(response)

    async def logs(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        tail = request.text_parameter("tail", "all")
        query = logs.Query(
            stdout=request.flag("stdout"),
            stderr=request.flag("stderr"),
            tail=int(tail) if tail.isdigit() else -1,
            since=_moment(request.text_parameter("since")),
            until=_moment(request.text_parameter("until")),
            timestamps=request.flag("timestamps"),
            details=request.flag("details"),
            framed=not container.record.config.tty,
        )
        if not query.stdout and not query.stderr:
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        path = log_options.path(self._engine, container.record)
        if not path:
            raise Unsupported("configured logging driver does not support reading")
        kind = MULTIPLEXED_STREAM if query.framed and request.api_version >= (1, 42) else RAW_STREAM
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": kind})
        with logs.opened(path, query) as log:
            pieces = log.read()
            first = await run_blocking(next, pieces, None)
            await response.prepare(request)
            while first is not None:
                await response.write(first)
                first = await run_blocking(next, pieces, None)
            if request.flag("follow"):
                async for more in log.follow(lambda: container.running):
                    await response.write(more)
        return response

    async def stats(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        alone = request.flag("one-shot") and request.api_version >= (1, 41)
        if not request.flag("stream", default=True):
            return json_response(await stats.one(self._engine, container, alone=alone))
        if alone:
            raise InvalidArgument("cannot have stream=true and one-shot=true")
        async with MessageStream(request) as stream:
            async for each in stats.stream(self._engine, container):
                await stream.send(each)
        return stream.response

    # --- Life -------------------------------------------------------------------------------------

    async def create(self, request: Request) -> web.StreamResponse:
        document = await request.document(CreateRequest)
        container, warnings = await self._engine.containers.create(
            document, request.text_parameter("name"), request.text_parameter("platform"),
            deep_read_only=request.api_version >= (1, 44),
        )  # fmt: skip
        if document.mac_address and request.api_version >= (1, 44):
            warnings = (*warnings, _OLD_MAC_ADDRESS)
        return json_response(CreateResponse(id=container.id, warnings=warnings), status=201)

    async def start(self, request: Request) -> web.StreamResponse:
        if (request.content_length or 0) > len("null{} "):
            raise InvalidArgument(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        if request.text_parameter("checkpoint"):
            raise InvalidArgument("checkpoint is only supported in experimental mode")
        await self._engine.containers.start(self._resolve(request))
        return web.Response(status=204)

    async def stop(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        signal = request.text_parameter("signal")
        if signal:
            try:
                parse_signal(signal)
            except InvalidArgument as error:
                raise InvalidArgument(f"cannot stop container: {request.match_info['id']}: {error.message}") from None
        await self._engine.containers.stop(container, request.integer("t"), signal)
        return web.Response(status=204)

    async def restart(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        await self._engine.containers.restart(container, request.integer("t"), request.text_parameter("signal"))
        return web.Response(status=204)

    async def kill(self, request: Request) -> web.StreamResponse:
        try:
            signal = parse_signal(request.text_parameter("signal") or "SIGKILL")
            await self._engine.containers.kill(self._resolve(request), signal)
        except SampanError as error:
            message = f"cannot kill container: {request.match_info['id']}: {error.message}"
            raise type(error)(message) from error
        return web.Response(status=204)

    async def pause(self, request: Request) -> web.StreamResponse:
        await self._engine.containers.pause(self._resolve(request))
        return web.Response(status=204)

    async def unpause(self, request: Request) -> web.StreamResponse:
        await self._engine.containers.unpause(self._resolve(request))
        return web.Response(status=204)

    async def rename(self, request: Request) -> web.StreamResponse:
        await self._engine.containers.rename(self._resolve(request), request.text_parameter("name"))
        return web.Response(status=204)

    async def update(self, request: Request) -> web.StreamResponse:
        warnings = await self._engine.containers.update(self._resolve(request), await request.document(UpdateRequest))
        return json_response(UpdateResponse(warnings=warnings or None))

    async def delete(self, request: Request) -> web.StreamResponse:
        if request.flag("link"):
            await links.remove(self._engine.containers, request.match_info["id"])
            return web.Response(status=204)
        container = self._resolve(request)
        await self._engine.containers.remove(
            container, force=request.flag("force"), volumes=request.flag("v"), called=request.match_info["id"]
        )
        return web.Response(status=204)

    async def prune(self, request: Request) -> web.StreamResponse:
        filters = known_filters(request.filters(), ("label", "label!", "until"))
        if len(filters.get("until", ())) > 1:
            raise InvalidArgument("more than one until filter specified")
        until = min(map(parse_moment, filters.get("until", ())), default=None)
        deleted: list[str] = []
        reclaimed = 0
        for container in self._engine.containers.all():
            if container.running or not labels_match(container.record.config.labels or {}, filters):
                continue
            if until is not None and container.record.created >= until:
                continue
            size = await run_blocking(self._engine.core.snapshots.usage, container.id)
            with contextlib.suppress(SampanError):
                await self._engine.containers.remove(container)
                deleted.append(container.id)
                reclaimed += size
        self._engine.events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return json_response(PruneReport(containers_deleted=tuple(deleted) or None, space_reclaimed=reclaimed))

    async def wait(self, request: Request) -> web.StreamResponse:
        """The head goes out at once, so that the client knows that its wait stands before it starts the container."""
        container = self._resolve(request)
        condition = request.text_parameter("condition") or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        if condition == "removed":
            waiting = container.removal()
        elif condition == "next-exit" or container.running or not container.given_back.is_set():
            waiting = container.next_end()
        else:
            waiting = _now(End(container.record.state.exit_code))
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/json"})
        await response.prepare(request)
        end = await waiting
        error = WaitError(message=end.error) if end.error else None
        await response.write(msgspec.json.encode(WaitResponse(status_code=end.exit_code, error=error)) + b"\n")
        return response

    # --- Terminals --------------------------------------------------------------------------------

    async def resize(self, request: Request) -> web.StreamResponse:
        container = self._resolve(request)
        height, width = request.window()
        if container.task is None:
            raise Conflict(f"container {container.id} is not running")
        await container.task.resize(msg.WindowSize(width=width, height=height))
        return web.Response(status=200)

    async def attach(self, request: Request) -> web.StreamResponse | None:
        """The connection goes to the shim; one that comes before the start waits for it."""
        container = self._resolve(request)
        if container.paused:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.restarting:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        keys = parse_detach_keys(request.text_parameter("detachKeys"))
        config = container.record.config
        stream, stdin = request.flag("stream"), request.flag("stdin")
        stdout, stderr = request.flag("stdout"), request.flag("stderr")
        history = b""
        if request.flag("logs") and (path := log_options.path(self._engine, container.record)):
            query = logs.Query(stdout=stdout, stderr=stderr, framed=not config.tty)
            with logs.opened(path, query) as log:
                history = await run_blocking(lambda: b"".join(log.read()))
        taken = await hijack(request, stream_type(request, tty=config.tty), history)
        if not stream:
            taken.close()  # The logs were all that was asked for.
            return None
        attachment = msg.Attachment(
            stdin=stdin and stream and config.open_stdin, stdout=stdout and stream, stderr=stderr and stream,
            framed=not config.tty, received=taken.received, detach_keys=keys if config.tty else b"",
        )  # fmt: skip
        stage("attach.taken")
        self._engine.containers.publish(container, "attach")
        if container.task is not None:
            with contextlib.suppress(SampanError):
                await container.task.attach(attachment, taken.fd)
        else:
            container.pending.append((taken.fd, attachment))
        return None


def _moment(text: str) -> int:
    return log_formats.parse_time(text) if text and text != "0" else 0


async def _now(end: End) -> End:
    return end


def routes(engine: Engine) -> list[RouteDef]:
    """`/containers`."""
    on = ContainerRoutes(engine)
    return [
        RouteDef("GET", "/containers/json", on.list),
        RouteDef("POST", "/containers/create", on.create),
        RouteDef("POST", "/containers/prune", on.prune),
        RouteDef("GET", "/containers/{id}/json", on.inspect),
        RouteDef("GET", "/containers/{id}/top", on.top),
        RouteDef("GET", "/containers/{id}/logs", on.logs, cancellable=True),
        RouteDef("GET", "/containers/{id}/stats", on.stats, cancellable=True),
        RouteDef("POST", "/containers/{id}/start", on.start),
        RouteDef("POST", "/containers/{id}/stop", on.stop),
        RouteDef("POST", "/containers/{id}/restart", on.restart),
        RouteDef("POST", "/containers/{id}/kill", on.kill),
        RouteDef("POST", "/containers/{id}/pause", on.pause),
        RouteDef("POST", "/containers/{id}/unpause", on.unpause),
        RouteDef("POST", "/containers/{id}/rename", on.rename),
        RouteDef("POST", "/containers/{id}/update", on.update),
        RouteDef("POST", "/containers/{id}/wait", on.wait, cancellable=True),
        RouteDef("POST", "/containers/{id}/resize", on.resize),
        RouteDef("POST", "/containers/{id}/attach", on.attach),
        RouteDef("DELETE", "/containers/{id}", on.delete),
    ]
