"""Engines of the benchmarks, ours and Docker's, each with roots of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator


class UnixConnection(http.client.HTTPConnection):
    """One kept-alive connection to an engine."""

    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: object = None) -> object:
        data = json.dumps(body) if body is not None else None
        self.request(method, f"/v1.44{path}", data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text.strip() else None


def wait_for(socket_path: str, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError, http.client.HTTPException):
            UnixConnection(socket_path).call("GET", "/version")
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"an engine did not start: {log.read_text()[-1000:]}")


@contextlib.contextmanager
def engine(command: list[str], socket_path: str, directory: pathlib.Path, env: dict[str, str]) -> Iterator[int]:
    """A running engine; its pid."""
    log = directory / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=env)
    try:
        wait_for(socket_path, process, log)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def command(
    name: str, home: pathlib.Path, run: pathlib.Path, peers: str, bridge: str, *more: str
) -> tuple[list[str], dict[str, str]]:
    """How to start dockerd, out of `peers`, or ours; and its environment. It listens at `home/sock`."""
    env = dict(os.environ)
    roots = ["--data-root", f"{home}/data", "--exec-root", str(run), "-H", f"unix://{home}/sock", "--bip", bridge]
    if name == "dockerd":
        env["PATH"] = f"{peers}/usr/bin:{peers}/usr/sbin:{env['PATH']}:/usr/sbin:/sbin"
        dockerd = next(
            path for path in (f"{peers}/usr/sbin/dockerd", f"{peers}/usr/bin/dockerd") if os.path.exists(path)
        )
        return [dockerd, *roots, "--pidfile", f"{home}/pid", *more], env
    return [sys.executable, "-I", "-m", "sampan.engine", *roots, *more], env


def remove_network(data_root: str, exec_root: str, bridge: str) -> None:
    """When our engine has gone: its bridge and its rules outlive it."""
    from sampan.core.metadata import Metadata
    from sampan.core.paths import Paths
    from sampan.network.controller import NetworkController, NetworkSettings

    paths = Paths(data_root, exec_root)
    metadata = Metadata(paths.database)
    controller = NetworkController(
        metadata,
        NetworkSettings(bridge=paths.bridge, table=paths.table, netns_dir=paths.netns, bridge_address=bridge),
    )
    controller.setup()
    controller.teardown()
    controller.close()
    metadata.close()
