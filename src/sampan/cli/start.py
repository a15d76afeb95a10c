"""`start` and `attach`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.run import failed_start
from sampan.client.client import Client, Document
from sampan.errors import Conflict, InvalidArgument, NotModified, SampanError

FAILURE = 1


def parser(name: str) -> Parser:
    if name == "attach":
        made = Parser(name, "[OPTIONS] CONTAINER", "Attach to a running container", 1)
        made.add_argument("--no-stdin", action="store_true", help="do not attach standard input")
        made.add_argument("--sig-proxy", default="true", nargs="?", const="true", help="pass signals on")
        made.add_argument("container")
    else:
        made = Parser(name, "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", 1)
        made.add_argument("-a", "--attach", action="store_true", help="attach its output, and pass signals on")
        made.add_argument("-i", "--interactive", action="store_true", help="attach its input")
        made.add_argument("containers", nargs="+", metavar="CONTAINER")
    made.add_argument("--detach-keys", default="", help="key sequence that detaches")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    client = context.client
    if name == "attach":
        inspected = client.call("GET", f"/containers/{flags.container}/json")
        if not inspected["State"]["Running"]:
            raise Conflict("You cannot attach to a stopped container, start it first")
        return _attach(client, inspected, flags, stdin=not flags.no_stdin, start=False)
    if flags.attach or flags.interactive:
        if len(flags.containers) > 1:
            raise InvalidArgument("you cannot start and attach multiple containers at once")
        inspected = client.call("GET", f"/containers/{flags.containers[0]}/json")
        return _attach(client, inspected, flags, stdin=flags.interactive, start=True)
    status = 0
    for container in flags.containers:
        try:
            with contextlib.suppress(NotModified):
                client.call("POST", f"/containers/{container}/start")
            print(container)
        except SampanError as error:
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
    return status


def _attach(client: Client, inspected: Document, flags: argparse.Namespace, *, stdin: bool, start: bool) -> int:
    from sampan.cli.streams import Attached, raw_terminal, terminal_size

    container_id, config = inspected["Id"], inspected["Config"]
    path, terminal = f"/containers/{container_id}", config["Tty"]
    stdin = stdin and config["OpenStdin"]
    connection, first = client.upgrade(
        f"{path}/attach", stream=True, stdin=stdin, stdout=True, stderr=True, detachKeys=flags.detach_keys
    )
    condition = "removed" if inspected["HostConfig"]["AutoRemove"] else "next-exit"
    waiting = client.stream("POST", f"{path}/wait", condition=condition)
    if start:
        try:
            client.call("POST", f"{path}/start")
        except NotModified:
            pass
        except SampanError as error:
            connection.close()
            return failed_start(error)

    def resize() -> None:
        size = terminal_size()
        if size is not None:
            with contextlib.suppress(SampanError):
                client.call("POST", f"{path}/resize", h=size[0], w=size[1])

    def forward(number: int) -> None:
        with contextlib.suppress(SampanError):
            client.call("POST", f"{path}/kill", signal=signal.Signals(number).name)

    proxy = getattr(flags, "sig_proxy", "true") != "false" and not (terminal and stdin)
    if terminal:
        resize()
    with raw_terminal() if terminal and stdin else contextlib.nullcontext():
        Attached(
            connection, first, framed=not terminal, stdin=stdin, on_signal=forward if proxy else None,
            on_resize=resize if terminal else None,
        ).run()  # fmt: skip
    with contextlib.suppress(SampanError):
        state = client.call("GET", f"{path}/json")["State"]
        if state["Running"] and not state["Restarting"]:
            return 0  # Detached.
    return int(json.loads(waiting.read())["StatusCode"])
