"""`run` and `create`."""

from __future__ import annotations

import argparse
import os
import sys

from sampan.cli.arguments import Parser, add_sig_proxy
from sampan.cli.context import Context
from sampan.cli.flags import add_container_flags, create_document
from sampan.client.client import Client
from sampan.errors import InvalidArgument, NotFound, SampanError

FAILURE = 125


def parser(name: str) -> Parser:
    text = "Create and run a new container from an image" if name == "run" else "Create a new container"
    # -h is the host name here, as with Docker.
    made = Parser(name, "[OPTIONS] IMAGE [COMMAND] [ARG...]", text, help_flag=False)
    if name == "run":
        made.add_argument("-d", "--detach", action="store_true", help="run in the background and print the id")
        add_sig_proxy(made)
    add_container_flags(made)
    return made


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
        return _start(client, container_id)
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


def _run_attached(client: Client, container_id: str, flags: argparse.Namespace) -> int:
    from sampan.cli.attachment import OUTPUTS, run_attached

    return run_attached(
        client, container_id, terminal=flags.tty, stdin=flags.interactive, outputs=flags.attach or OUTPUTS,
        detach_keys=flags.detach_keys, forward_signals=flags.sig_proxy, start=True, removed=flags.rm,
    )  # fmt: skip


def _start(client: Client, container_id: str) -> int:
    try:
        client.call("POST", f"/containers/{container_id}/start")
    except SampanError as error:
        from sampan.cli.attachment import failed_start

        return failed_start(error)
    print(container_id)
    return 0
