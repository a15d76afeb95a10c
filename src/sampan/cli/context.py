"""What every command needs: the engine, which is started if there is none."""

from __future__ import annotations

import os
import sys
import time
from functools import cached_property

from sampan.client.client import Client, parse_host
from sampan.errors import Unavailable

DEFAULT_SOCKET = "/run/sampan/sampan.sock"
_START_TIMEOUT = 20.0


class Context:
    """`host`: what -H says, or the environment; empty: the default socket, with an engine behind it on demand."""

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("SAMPAN_HOST", "") or os.environ.get("DOCKER_HOST", "")

    @cached_property
    def client(self) -> Client:
        """Raises Unavailable when there is no engine, and none can be started."""
        client = Client(parse_host(self.host or f"unix://{DEFAULT_SOCKET}"))
        if not self.host:
            try:
                client.host.connect().close()
            except Unavailable:
                _start_engine(client)
        return client


def _start_engine(client: Client) -> None:
    """Start an engine that goes again when it is idle, and wait until it answers."""
    import subprocess

    directory = os.path.dirname(DEFAULT_SOCKET)
    log_path = f"{directory}/engine.log"
    try:
        os.makedirs(directory, mode=0o711, exist_ok=True)
        log = open(log_path, "ab")  # noqa: SIM115 - handed over to the engine
    except OSError as error:
        raise Unavailable(
            f"Cannot connect to the engine at {client.host}, nor start one: {error.filename}: "
            f"{(error.strerror or '').lower()}"
        ) from error
    with log:
        engine = subprocess.Popen(
            [sys.executable, "-I", "-m", "sampan.engine", "--on-demand"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        try:
            client.host.connect().close()
        except Unavailable:
            if engine.poll() is not None and engine.returncode != 0:
                raise Unavailable(f"the engine did not start: {_last_line(log_path)}") from None
            time.sleep(0.01)
        else:
            return
    raise Unavailable(f"the engine did not answer within {_START_TIMEOUT:.0f} s; see {log_path}")


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    return lines[-1] if lines else f"see {path}"
