"""`start` and `attach`."""

from __future__ import annotations

import argparse
import contextlib

from sampan.cli.arguments import Parser, add_sig_proxy
from sampan.cli.context import Context
from sampan.cli.each import for_each
from sampan.client.client import Client, Document
from sampan.errors import Conflict, InvalidArgument, NotModified

FAILURE = 1


def parser(name: str) -> Parser:
    if name == "attach":
        made = Parser(name, "[OPTIONS] CONTAINER", "Attach to a running container", 1)
        made.add_argument("--no-stdin", action="store_true", help="do not attach standard input")
        add_sig_proxy(made)
        made.add_argument("container")
    else:
        made = Parser(name, "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers", 1)
        made.add_argument("-a", "--attach", action="store_true", help="attach its output, and pass signals on")
        made.add_argument("-i", "--interactive", action="store_true", help="attach its input")
        made.add_argument("--wait", action="store_true", help="stay until it has ended, as systemd's units do")
        made.add_argument("containers", nargs="+", metavar="CONTAINER")
        made.set_defaults(sig_proxy=True)
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
    if flags.wait:
        from sampan.cli.systemd import start_and_wait

        if len(flags.containers) > 1:
            raise InvalidArgument("you cannot start and wait for multiple containers at once")
        return start_and_wait(client, flags.containers[0])

    def start(container: str) -> None:
        with contextlib.suppress(NotModified):
            client.call("POST", f"/containers/{container}/start")
        print(container)

    return for_each(flags.containers, start)


def _attach(client: Client, inspected: Document, flags: argparse.Namespace, *, stdin: bool, start: bool) -> int:
    from sampan.cli.attachment import run_attached

    return run_attached(
        client, inspected["Id"], terminal=inspected["Config"]["Tty"], stdin=stdin and inspected["Config"]["OpenStdin"],
        detach_keys=flags.detach_keys, forward_signals=flags.sig_proxy, start=start,
        removed=inspected["HostConfig"]["AutoRemove"],
    )  # fmt: skip
