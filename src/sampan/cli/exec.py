"""`exec`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.flags import environment
from sampan.errors import InvalidArgument, SampanError

FAILURE = 1


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", 125)
    made.add_argument("-d", "--detach", action="store_true", help="run it in the background")
    made.add_argument("-i", "--interactive", action="store_true", help="keep standard input open")
    made.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    made.add_argument("--privileged", action="store_true", help="all capabilities")
    made.add_argument("-u", "--user", default="", help="user (and group)")
    made.add_argument("-w", "--workdir", default="", help="working directory")
    made.add_argument("-e", "--env", action="append", default=[], help="set an environment variable")
    made.add_argument("--env-file", action="append", default=[], help="read environment variables from a file")
    made.add_argument("--detach-keys", default="", help="key sequence that detaches")
    made.add_argument("container")
    made.add_argument("command", nargs=argparse.REMAINDER)
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    if not flags.command:
        parser(name).lack("at least 2 arguments")
    if flags.tty and flags.interactive and not flags.detach and not os.isatty(0):
        raise InvalidArgument("the input device is not a TTY")
    client = context.client
    attached = not flags.detach
    made = client.call(
        "POST", f"/containers/{flags.container}/exec",
        {
            "Cmd": flags.command, "User": flags.user, "WorkingDir": flags.workdir, "Privileged": flags.privileged,
            "Env": environment(flags.env, flags.env_file), "Tty": flags.tty, "Detach": flags.detach,
            "AttachStdin": flags.interactive and attached, "AttachStdout": attached, "AttachStderr": attached,
            "DetachKeys": flags.detach_keys,
        },
    )  # fmt: skip
    path = f"/exec/{made['Id']}"
    if flags.detach:
        try:
            client.call("POST", f"{path}/start", {"Detach": True, "Tty": flags.tty})
        except SampanError as error:
            from sampan.cli.attachment import failed_start

            return failed_start(error)
        return 0
    return _run(context, path, flags)


def _run(context: Context, path: str, flags: argparse.Namespace) -> int:
    from sampan.cli.attachment import resizer
    from sampan.cli.streams import Attached, raw_terminal, terminal_size

    client = context.client
    start: dict[str, object] = {"Detach": False, "Tty": flags.tty}
    size = terminal_size() if flags.tty else None
    if size is not None:
        start["ConsoleSize"] = list(size)
    connection, first = client.upgrade(f"{path}/start", start)
    sys.stdout.flush()
    with raw_terminal() if flags.tty and flags.interactive else contextlib.nullcontext():
        Attached(
            connection, first, framed=not flags.tty, stdin=flags.interactive,
            on_resize=resizer(client, path) if flags.tty else None,
        ).run()  # fmt: skip
    return int(client.call("GET", f"{path}/json")["ExitCode"] or 0)
