"""`run` and `create`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.flags import add_container_flags, create_document
from sampan.client.client import Client, Document
from sampan.client.http import Response
from sampan.errors import InvalidArgument, NotFound, SampanError

FAILURE = 125
_NOT_FOUND = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE = ("permission denied", "is a directory", "not a directory", "exec format error")


def parser(name: str) -> Parser:
    text = "Create and run a new container from an image" if name == "run" else "Create a new container"
    # -h is the host name here, as with Docker.
    made = Parser(name, "[OPTIONS] IMAGE [COMMAND] [ARG...]", text, help_flag=False)
    if name == "run":
        made.add_argument("-d", "--detach", action="store_true", help="run in the background and print the id")
        made.add_argument(
            "--sig-proxy", type=_truth, nargs="?", const=True, default=True, help="pass signals on (the default)"
        )
    add_container_flags(made)
    return made


def _truth(text: str) -> bool:
    return text.lower() not in ("false", "0", "no")


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    if name == "run" and flags.tty and flags.interactive and not flags.detach and not os.isatty(0):
        raise InvalidArgument("the input device is not a TTY")
    if flags.cidfile and os.path.exists(flags.cidfile):
        raise InvalidArgument(
            f"container ID file found, make sure the other container isn't running or delete {flags.cidfile}"
        )
    client = context.client
    container_id = _create(client, flags)
    if flags.cidfile:
        with open(flags.cidfile, "w", encoding="ascii") as file:
            file.write(container_id)
    if name == "create":
        print(container_id)
        return 0
    if flags.detach:
        try:
            client.call("POST", f"/containers/{container_id}/start")
        except SampanError as error:
            return failed_start(error)
        print(container_id)
        return 0
    return _run_attached(client, container_id, flags)


def _create(client: Client, flags: argparse.Namespace) -> str:
    document = create_document(flags)
    if flags.pull == "always":
        _pull(client, flags)
    try:
        made = client.call("POST", "/containers/create", document, name=flags.name, platform=flags.platform)
    except NotFound as error:
        if flags.pull != "missing" or "No such image" not in error.message:
            raise
        print(f"Unable to find image '{_with_tag(flags.image)}' locally", file=sys.stderr)
        _pull(client, flags)
        made = client.call("POST", "/containers/create", document, name=flags.name, platform=flags.platform)
    for warning in made.get("Warnings") or ():
        print(f"WARNING: {warning}", file=sys.stderr)
    return str(made["Id"])


def _with_tag(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def _pull(client: Client, flags: argparse.Namespace) -> None:
    from sampan.cli.transfer import pull

    pull(client, flags.image, platform=flags.platform, output=None if flags.quiet else sys.stderr)


def failed_start(error: SampanError) -> int:
    """The line, and Docker's status for what it says: 127 no such program, 126 not executable, 125 else."""
    print(f"sampan: {error.message}", file=sys.stderr)
    text = error.message.lower()
    if any(each in text for each in _NOT_FOUND):
        return 127
    return 126 if any(each in text for each in _NOT_EXECUTABLE) else 125


def _run_attached(client: Client, container_id: str, flags: argparse.Namespace) -> int:
    from sampan.cli.streams import Attached, raw_terminal, terminal_size

    path = f"/containers/{container_id}"
    connection, first = client.upgrade(
        f"{path}/attach", stream=True, stdin=flags.interactive, stdout=not flags.attach or "stdout" in flags.attach,
        stderr=not flags.attach or "stderr" in flags.attach, detachKeys=flags.detach_keys,
    )  # fmt: skip
    # The wait stands before the start: an end cannot be missed, nor the removal of a container that removes itself.
    waiting = client.stream("POST", f"{path}/wait", condition="removed" if flags.rm else "next-exit")
    try:
        client.call("POST", f"{path}/start")
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

    if flags.tty:
        resize()
    with raw_terminal() if flags.tty and flags.interactive else contextlib.nullcontext():
        Attached(
            connection, first, framed=not flags.tty, stdin=flags.interactive,
            on_signal=forward if flags.sig_proxy and not (flags.tty and flags.interactive) else None,
            on_resize=resize if flags.tty else None,
        ).run()  # fmt: skip
    return _exit_status(client, container_id, waiting, flags)


def _exit_status(client: Client, container_id: str, waiting: Response, flags: argparse.Namespace) -> int:
    if flags.tty and flags.interactive:
        # The stream may have ended because somebody typed the detach keys.
        with contextlib.suppress(SampanError):
            state: Document = client.call("GET", f"/containers/{container_id}/json")["State"]
            if state["Running"] and not state["Restarting"]:
                return 0
    return int(json.loads(waiting.read())["StatusCode"])
