"""`/containers`, and `/commit`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable

from sampan.api.container_documents import ContainerSummary, PruneReport, TopResponse
from sampan.api.containers import CreateRequest, CreateResponse, UpdateRequest, UpdateResponse, WaitResponse
from sampan.api.images import CommitResponse, FileChange
from sampan.api.stats import Stats
from sampan.client.asynchronous.calls import Calls
from sampan.client.asynchronous.streams import Stream, outputs
from sampan.client.asynchronous.transport import Body
from sampan.client.client import quoted
from sampan.client.documents import ContainerDetails, Filters, Output, PathStat, as_filters, decode_header
from sampan.errors import NotModified

_TAR = {"Content-Type": "application/x-tar"}


class Containers:
    """A container is named by its name or its id, or as much of the id as is its own.

    All raise NotFound for one that is not there, and Conflict for one in the wrong state.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    # --- Reading ----------------------------------------------------------------------------------

    async def list(
        self, *, all_: bool = False, limit: int | None = None, size: bool = False, filters: Filters | None = None
    ) -> tuple[ContainerSummary, ...]:  # fmt: skip
        """Those that run; `all_`: the others too."""
        response = await self._calls.open(
            "GET", "/containers/json", all=all_, limit=limit, size=size, filters=as_filters(filters)
        )
        return await self._calls.document(tuple[ContainerSummary, ...], response)

    async def inspect(self, container: str, *, size: bool = False) -> ContainerDetails:
        """`size`: with `size_rw` and `size_root_fs`."""
        response = await self._calls.open("GET", f"/containers/{quoted(container)}/json", size=size)
        return await self._calls.document(ContainerDetails, response)

    async def top(self, container: str, ps_args: str = "") -> TopResponse:
        """Its processes."""
        response = await self._calls.open("GET", f"/containers/{quoted(container)}/top", ps_args=ps_args)
        return await self._calls.document(TopResponse, response)

    async def logs(
        self,
        container: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since: str = "",
        until: str = "",
        timestamps: bool = False,
        details: bool = False,
        tail: int | None = None,
    ) -> AsyncIterator[Output]:
        """What it wrote, and with `follow` what it will. Times: RFC 3339, or seconds since the epoch."""
        inspected = await self.inspect(container)
        response = await self._calls.open(
            "GET", f"/containers/{quoted(container)}/logs", stdout=stdout, stderr=stderr, follow=follow, since=since,
            until=until, timestamps=timestamps, details=details, tail="all" if tail is None else str(tail),
        )  # fmt: skip
        async for piece in outputs(self._calls, response, terminal=inspected.config.tty):
            yield piece

    async def changes(self, container: str) -> tuple[FileChange, ...]:
        """What it did to its image's files."""
        response = await self._calls.open("GET", f"/containers/{quoted(container)}/changes")
        return await self._calls.document(tuple[FileChange, ...], response)

    async def export(self, container: str) -> AsyncIterator[bytes]:
        """Its root as a tar."""
        response = await self._calls.open("GET", f"/containers/{quoted(container)}/export")
        async for data in self._calls.pieces(response):
            yield data

    async def stats(self, container: str) -> AsyncIterator[Stats]:
        """What it uses, every second."""
        response = await self._calls.open("GET", f"/containers/{quoted(container)}/stats", stream="1")
        async for each in self._calls.messages(Stats, response):
            yield each

    async def stats_once(self, container: str, *, one_shot: bool = False) -> Stats:
        """`one_shot`: at once, without the look before that a share of the CPU's time is reckoned from."""
        response = await self._calls.open(
            "GET", f"/containers/{quoted(container)}/stats", stream="0", parameters={"one-shot": one_shot}
        )
        return await self._calls.document(Stats, response)

    # --- Life -------------------------------------------------------------------------------------

    async def create(self, request: CreateRequest, *, name: str = "", platform: str = "") -> CreateResponse:
        """Raises NotFound when the image is not here."""
        response = await self._calls.open("POST", "/containers/create", request, name=name, platform=platform)
        return await self._calls.document(CreateResponse, response)

    async def start(self, container: str, *, detach_keys: str = "") -> bool:
        """False when it ran already."""
        return await self._changed(f"{quoted(container)}/start", detachKeys=detach_keys)

    async def stop(self, container: str, *, timeout: int | None = None, signal: str = "") -> bool:
        """`timeout`: seconds before it is killed; -1: never. False when it did not run."""
        return await self._changed(f"{quoted(container)}/stop", t=_seconds(timeout), signal=signal)

    async def restart(self, container: str, *, timeout: int | None = None, signal: str = "") -> None:
        await self._changed(f"{quoted(container)}/restart", t=_seconds(timeout), signal=signal)

    async def kill(self, container: str, signal: str = "KILL") -> None:
        await self._changed(f"{quoted(container)}/kill", signal=signal)

    async def pause(self, container: str) -> None:
        await self._changed(f"{quoted(container)}/pause")

    async def unpause(self, container: str) -> None:
        await self._changed(f"{quoted(container)}/unpause")

    async def rename(self, container: str, name: str) -> None:
        await self._changed(f"{quoted(container)}/rename", name=name)

    async def resize(self, container: str, *, height: int, width: int) -> None:
        """Its terminal."""
        await self._changed(f"{quoted(container)}/resize", h=height, w=width)

    async def _changed(self, path: str, **query: object) -> bool:
        try:
            await self._calls.done(await self._calls.open("POST", f"/containers/{path}", parameters=query))
        except NotModified:
            return False
        return True

    async def update(self, container: str, request: UpdateRequest) -> UpdateResponse:
        """Its limits and its restart policy."""
        response = await self._calls.open("POST", f"/containers/{quoted(container)}/update", request)
        return await self._calls.document(UpdateResponse, response)

    async def wait(self, container: str, condition: str = "not-running") -> WaitResponse:
        """`condition`: not-running, next-exit or removed."""
        response = await self._calls.open("POST", f"/containers/{quoted(container)}/wait", condition=condition)
        return await self._calls.document(WaitResponse, response)

    async def attach(
        self,
        container: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        logs: bool = False,
        detach_keys: str = "",
    ) -> Stream:
        """Its streams, from now on; `logs`: with what it wrote before. One that was not started yet: from its start."""
        inspected = await self.inspect(container)
        connection, _ = await self._calls.upgrade(
            f"/containers/{quoted(container)}/attach", stream=True, stdin=stdin, stdout=stdout, stderr=stderr,
            logs=logs, detachKeys=detach_keys,
        )  # fmt: skip
        return Stream(connection, terminal=inspected.config.tty)

    async def remove(
        self, container: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:  # fmt: skip
        """`volumes`: its anonymous ones too."""
        path = f"/containers/{quoted(container)}"
        await self._calls.done(await self._calls.open("DELETE", path, force=force, v=volumes, link=link))

    async def prune(self, filters: Filters | None = None) -> PruneReport:
        """Remove those that do not run."""
        response = await self._calls.open("POST", "/containers/prune", filters=as_filters(filters))
        return await self._calls.document(PruneReport, response)

    # --- Files ------------------------------------------------------------------------------------

    async def stat(self, container: str, path: str) -> PathStat:
        """Raises NotFound."""
        response = await self._calls.open("HEAD", f"/containers/{quoted(container)}/archive", path=path)
        await self._calls.done(response)
        return decode_header(response.headers["x-docker-container-path-stat"], PathStat)

    async def get_archive(self, container: str, path: str) -> AsyncIterator[bytes]:
        """A file or a directory as a tar."""
        response = await self._calls.open("GET", f"/containers/{quoted(container)}/archive", path=path)
        async for data in self._calls.pieces(response):
            yield data

    async def put_archive(
        self, container: str, path: str, archive: Body, *, keep_kind: bool = False, copy_owner: bool = False
    ) -> None:  # fmt: skip
        """Unpack a tar into a directory. `keep_kind`: no file replaces a directory, nor a directory a file."""
        response = await self._calls.open(
            "PUT", f"/containers/{quoted(container)}/archive", body=archive, headers=_TAR, path=path,
            noOverwriteDirNonDir=keep_kind, copyUIDGID=copy_owner,
        )  # fmt: skip
        await self._calls.done(response)

    async def commit(
        self,
        container: str,
        repository: str = "",
        tag: str = "",
        *,
        comment: str = "",
        author: str = "",
        changes: Iterable[str] = (),
        pause: bool = True,
    ) -> str:
        """Make an image of it, and give the image's id. `changes`: Dockerfile instructions."""
        more = "".join(f"&changes={quoted(each)}" for each in changes)
        response = await self._calls.open(
            "POST", f"/commit?container={quoted(container)}{more}", body=json.dumps({}).encode(),
            headers={"Content-Type": "application/json"}, repo=repository, tag=tag, comment=comment, author=author,
            pause="1" if pause else "0",
        )  # fmt: skip
        return (await self._calls.document(CommitResponse, response)).id


def _seconds(timeout: int | None) -> str | None:
    """As text: a 0 says something."""
    return None if timeout is None else str(timeout)
