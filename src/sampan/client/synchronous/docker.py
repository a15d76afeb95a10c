"""The client: everything that an engine can be asked."""

from __future__ import annotations

import os
from types import TracebackType

from sampan.api.containers import CreateRequest
from sampan.client.client import parse_host
from sampan.client.documents import Completed
from sampan.client.http import Host
from sampan.client.synchronous.calls import Calls
from sampan.client.synchronous.containers import Containers
from sampan.client.synchronous.execs import Execs
from sampan.client.synchronous.images import Images
from sampan.client.synchronous.networks import Networks
from sampan.client.synchronous.system import System
from sampan.client.synchronous.transport import Transport
from sampan.client.synchronous.volumes import Volumes

DEFAULT_HOST = "unix:///run/sampan/sampan.sock"


class Docker:
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

    def run(
        self, request: CreateRequest, *, name: str = "", stdin: bytes | None = None, keep: bool = False
    ) -> Completed:  # fmt: skip
        """Run a container to its end, and remove it, unless `keep`. `stdin`: its input."""
        if stdin is not None:
            request = _with_input(request)
        made = self.containers.create(request, name=name)
        try:
            stream = self.containers.attach(made.id, stdin=stdin is not None)
            with stream:
                self.containers.start(made.id)
                if stdin is not None:
                    stream.write(stdin)
                    stream.end_input()
                stdout, stderr = stream.read()
            ended = self.containers.wait(made.id)
            return Completed(ended.status_code, stdout, stderr)
        finally:
            if not keep:
                self.containers.remove(made.id, force=True, volumes=True)

    def close(self) -> None:
        self.calls.close()

    def __enter__(self) -> Docker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()


def _with_input(request: CreateRequest) -> CreateRequest:
    import msgspec

    return msgspec.structs.replace(request, open_stdin=True, stdin_once=True, attach_stdin=True)
