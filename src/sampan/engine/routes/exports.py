"""What comes out of a container's file system: its changes, its files, an image of it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
from aiohttp import web

from sampan.api.containers import ContainerConfig, words
from sampan.api.images import CommitResponse, FileChange
from sampan.core.changes import compare
from sampan.core.images import Image
from sampan.core.trees import write_tree
from sampan.engine.blocking import run_blocking
from sampan.engine.changes import apply_changes
from sampan.engine.containers.container import Container
from sampan.engine.containers.reading import frozen, view
from sampan.engine.http.request import Request, json_response
from sampan.engine.http.router import HEADERS, RouteDef
from sampan.engine.routes.images import tagged
from sampan.engine.services import Engine
from sampan.engine.transfers import send
from sampan.errors import NotFound
from sampan.oci.image import Empty, Healthcheck, RunConfig


class ExportRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def changes(self, request: Request) -> web.Response:
        container = self._engine.containers.resolve(request.match_info["id"])
        async with view(self._engine, container) as opened:
            found = await run_blocking(compare, opened)
        # A name is any bytes: where they are no UTF-8 Go's JSON has a sign for it, too.
        shown = [(os.fsencode(each.path).decode("utf-8", "replace"), each.kind) for each in found]
        return json_response([FileChange(path=f"/{path}", kind=kind) for path, kind in shown] or None)

    async def export(self, request: Request) -> web.StreamResponse:
        container = self._engine.containers.resolve(request.match_info["id"])
        async with view(self._engine, container) as opened:
            response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/octet-stream"})
            await response.prepare(request)
            await send(lambda stream: write_tree(opened.root, stream), response.write)
        self._engine.containers.publish(container, "export")
        return response

    async def commit(self, request: Request) -> web.Response:
        """An image of a container's files as they are now."""
        engine = self._engine
        container = engine.containers.resolve(request.text_parameter("container"))
        given = await request.document(ContainerConfig | None)  # type: ignore[arg-type]
        repository = request.text_parameter("repo")
        reference = tagged(repository, request.text_parameter("tag")) if repository else None
        config = container.record.config
        run = apply_changes(_run(given or ContainerConfig()), request.query.getall("changes", []))
        parent = engine.core.images.find(container.record.image)
        if parent is None:
            raise NotFound(f"No such image: {container.record.image}")
        comment = request.text_parameter("comment")
        async with frozen(engine, container, request.flag("pause", True)), view(engine, container) as opened:
            image: Image = await run_blocking(
                engine.core.commit, parent, opened, merged(run, _run(config)), reference=reference, comment=comment,
                author=request.text_parameter("author"), created_by=" ".join(words(config.cmd)),
            )  # fmt: skip
        name = reference.familiar if reference else ""
        if reference:
            labels = image.config.run.labels or {}
            engine.events.publish("image", "tag", image.id, {**labels, "name": name})
        self._told(container, image, name, comment)
        return json_response(CommitResponse(id=image.id), 201)

    def _told(self, container: Container, image: Image, name: str, comment: str) -> None:
        attributes = {"comment": comment, "imageID": image.id, "imageRef": name}
        self._engine.containers.publish(container, "commit", attributes)


def _run(config: ContainerConfig) -> RunConfig:
    """A container's configuration, as far as it is its image's too."""
    return RunConfig(
        user=config.user, exposed_ports=_names(config.exposed_ports), env=config.env,
        entrypoint=words(config.entrypoint) or None, cmd=words(config.cmd) or None, volumes=_names(config.volumes),
        working_dir=config.working_dir, labels=config.labels or None, stop_signal=config.stop_signal,
        args_escaped=config.args_escaped, on_build=config.on_build, shell=config.shell,
        healthcheck=msgspec.convert(config.healthcheck, Healthcheck, from_attributes=True) if config.healthcheck
        else None,
    )  # fmt: skip


def _names(names: Mapping[str, object] | None) -> dict[str, Empty] | None:
    return {name: Empty() for name in names} if names else None


def merged(run: RunConfig, container: RunConfig) -> RunConfig:
    """What was asked for, with the container's where it says nothing. An entry point of one's own has no arguments of
    the container's."""
    own = {each.partition("=")[0] for each in run.env or ()}
    env = (*(run.env or ()), *(each for each in container.env or () if each.partition("=")[0] not in own))
    cmd = run.cmd
    if not run.entrypoint and not cmd:
        cmd = container.cmd
    return msgspec.structs.replace(
        container, user=run.user or container.user, env=env or None, cmd=cmd,
        exposed_ports={**(container.exposed_ports or {}), **(run.exposed_ports or {})} or None,
        entrypoint=run.entrypoint or container.entrypoint,
        volumes={**(container.volumes or {}), **(run.volumes or {})} or None,
        working_dir=run.working_dir or container.working_dir,
        labels={**(container.labels or {}), **(run.labels or {})} or None,
        stop_signal=run.stop_signal or container.stop_signal, on_build=run.on_build or container.on_build,
        healthcheck=run.healthcheck or container.healthcheck,
    )  # fmt: skip


def routes(engine: Engine) -> list[RouteDef]:
    on = ExportRoutes(engine)
    return [
        RouteDef("GET", "/containers/{id}/changes", on.changes),
        RouteDef("GET", "/containers/{id}/export", on.export),
        RouteDef("POST", "/commit", on.commit),
    ]
