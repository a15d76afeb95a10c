"""python -m tests.e2e.documents.record SOCKET DOCKER - play everything against Docker's engine, and keep its answers.

SOCKET: of a dockerd that has a data root and an exec root of its own, DIRECTORY/data and DIRECTORY/run:
`dockerd --data-root DIRECTORY/data --exec-root DIRECTORY/run -H unix://SOCKET --bip 172.27.0.1/16`. DOCKER: the command
of the same version. The answers that are kept are of 28.5.2 on Debian 12 with cgroup v1 and runc 1.1.5.
"""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
from typing import Any

from tests.e2e.documents import answers, others, refusals, volumes
from tests.e2e.documents.scenes import SCENES, VERSION, Api, Scene, Stage


class _Asked(http.server.BaseHTTPRequestHandler):
    """An engine that only listens to what it is asked for."""

    requests: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(201, b'{"Id": "made", "Warnings": []}')

    def do_HEAD(self) -> None:
        self._answer(200)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (("Api-Version", VERSION[1:]), ("Ostype", "linux"), ("Content-Type", "application/json")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def address_string(self) -> str:
        return ""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def request_of(scene: Scene, docker: str) -> dict[str, Any]:
    """What the docker command at this path asks an engine for."""
    if scene.request is not None:
        return scene.request
    asked: list[dict[str, Any]] = []
    handler = type("Handler", (_Asked,), {"requests": asked})
    command = [docker, "create", *scene.words]
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{directory}/sock", "DOCKER_CONFIG": directory}
        with socketserver.ThreadingUnixStreamServer(f"{directory}/sock", handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            server.shutdown()
    if not asked:
        raise RuntimeError(f"{command}: {done.stderr}")
    return asked[0]


def main(path: str, docker: str) -> None:
    stage = Stage(Api(path))
    stage.import_images()
    recorded: dict[str, Any] = {}
    for scene in SCENES:
        print(scene.name)
        request = request_of(scene, docker)
        recorded[scene.name] = {"request": request, **stage.play(scene, request)}
    recorded["others"] = others.play(stage)
    recorded["kinds of volumes"] = volumes.play(stage)
    recorded["refusals"] = refusals.play(stage)
    answers.keep(recorded)


if __name__ == "__main__":
    main(*sys.argv[1:])
