"""The commands that do one thing to each of several containers, from `stop` to `wait`; and `rename`."""

from __future__ import annotations

import argparse
import contextlib

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.each import for_each
from sampan.client.client import Client
from sampan.errors import NotModified

FAILURE = 1
_TEXTS = {
    "stop": "Stop one or more running containers",
    "restart": "Restart one or more containers",
    "kill": "Kill one or more running containers",
    "rm": "Remove one or more containers",
    "pause": "Pause all processes within one or more containers",
    "unpause": "Unpause all processes within one or more containers",
    "wait": "Block until one or more containers stop, then print their exit codes",
}


def parser(name: str) -> Parser:
    if name == "rename":
        made = Parser(name, "CONTAINER NEW_NAME", "Rename a container", 1)
        made.add_argument("container")
        made.add_argument("new_name")
        return made
    made = Parser(name, "[OPTIONS] CONTAINER [CONTAINER...]", _TEXTS[name], 1)
    if name in ("stop", "restart"):
        made.add_argument("-t", "--time", "--timeout", type=int, default=None, help="seconds before it is killed")
        made.add_argument("-s", "--signal", default="", help="signal to send")
    elif name == "kill":
        made.add_argument("-s", "--signal", default="KILL", help="signal to send")
    elif name == "rm":
        made.add_argument("-f", "--force", action="store_true", help="kill it if it runs")
        made.add_argument("-v", "--volumes", action="store_true", help="remove its anonymous volumes too")
        made.add_argument("-l", "--link", action="store_true", help="remove a link")
    made.add_argument("containers", nargs="+", metavar="CONTAINER")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    client = context.client
    if name == "rename":
        client.call("POST", f"/containers/{flags.container}/rename", name=flags.new_name)
        return 0
    return for_each(
        flags.containers, lambda container: print(_do(client, name, container, flags)),
        missing_is_fine=name == "rm" and flags.force,
    )  # fmt: skip


def _do(client: Client, name: str, container: str, flags: argparse.Namespace) -> str:
    path = f"/containers/{container}"
    match name:
        case "stop" | "restart":
            with contextlib.suppress(NotModified):  # It does not run: so it is stopped.
                seconds = None if flags.time is None else str(flags.time)
                client.call("POST", f"{path}/{name}", t=seconds, signal=flags.signal)
        case "kill":
            client.call("POST", f"{path}/kill", signal=flags.signal)
        case "rm":
            client.call("DELETE", path, force=flags.force, v=flags.volumes, link=flags.link)
        case "wait":
            return str(client.call("POST", f"{path}/wait")["StatusCode"])
        case _:
            client.call("POST", f"{path}/{name}")
    return container
