"""The client: everything that an engine can be asked."""

from __future__ import annotations

import os
from types import TracebackType

from sampan.api.containers import CreateRequest
from sampan.client.asynchronous.calls import Calls
from sampan.client.asynchronous.containers import Containers
from sampan.client.asynchronous.execs import Execs
from sampan.client.asynchronous.images import Images
from sampan.client.asynchronous.networks import Networks
from sampan.client.asynchronous.system import System
from sampan.client.asynchronous.transport import Transport
from sampan.client.asynchronous.volumes import Volumes
from sampan.client.client import parse_host
from sampan.client.documents import Completed
from sampan.client.http import Host

DEFAULT_HOST = "unix:///run/sampan/sampan.sock"


class AsyncDocker:
    """`host`: where the engine is (`unix://`, `tcp://`, `ssh://`); else SAMPAN_HOST or DOCKER_HOST say, or it is
    Sampan's own socket. Any engine that speaks Docker's API will do, from version 1.24 on.

    Raises of `sampan.errors`: the kind that stands behind an answer, and Unavailable when there is none.
    """

    def __init__(self, host: str | Host = "") -> None:
        where = host or os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self.calls = Calls(Transport(parse_host(where) if isinstance(where, str) else where))
        self.containers = Containers(self.calls)
        self.execs = Execs(self.calls)
        self.images = Images(self.calls)
        self.networks = Networks(self.calls)
        self.volumes = Volumes(self.calls)
        self.system = System(self.calls)

    async def run(
        self, request: CreateRequest, *, name: str = "", stdin: bytes | None = None, keep: bool = False
    ) -> Completed:  # fmt: skip
        """Run a container to its end, and remove it, unless `keep`. `stdin`: its input."""
        if stdin is not None:
            request = _with_input(request)
        made = await self.containers.create(request, name=name)
        try:
            stream = await self.containers.attach(made.id, stdin=stdin is not None)
            async with stream:
                await self.containers.start(made.id)
                if stdin is not None:
                    await stream.write(stdin)
                    await stream.end_input()
                stdout, stderr = await stream.read()
            ended = await self.containers.wait(made.id)
            return Completed(ended.status_code, stdout, stderr)
        finally:
            if not keep:
                await self.containers.remove(made.id, force=True, volumes=True)

    async def close(self) -> None:
        await self.calls.close()

    async def __aenter__(self) -> AsyncDocker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        await self.close()


def _with_input(request: CreateRequest) -> CreateRequest:
    import msgspec

    return msgspec.structs.replace(request, open_stdin=True, stdin_once=True, attach_stdin=True)
