"""`image …`: the commands on images by their long names, and `image from-host`."""

from __future__ import annotations

import os
import tempfile

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.groups import alias, run_group
from sampan.cli.inspect import group_command
from sampan.cli.table import size

FAILURE = 1


def from_host_parser() -> Parser:
    made = Parser(
        "image from-host", "NAME[:TAG] PROGRAM|PATH [PROGRAM|PATH...]",
        "Make an image of programs of this machine, with the libraries that they need", 1,
    )  # fmt: skip
    made.add_argument("image", metavar="NAME[:TAG]")
    made.add_argument("paths", nargs="+", metavar="PROGRAM|PATH")
    return made


def _from_host(words: list[str], context: Context) -> int:
    from sampan.cli.transfer import show
    from sampan.fromhost import pack

    flags = from_host_parser().parse_args(words)
    client = context.client
    with tempfile.TemporaryFile() as file:
        pack(flags.image, flags.paths, file)
        file.seek(0)
        pieces = iter(lambda: file.read(1 << 20), b"")
        return show(client.messages("POST", "/images/load", body=pieces, headers={"Content-Type": "application/x-tar"}))


def _prune(words: list[str], context: Context) -> int:
    made = Parser("image prune", "[OPTIONS]", "Remove unused images", 1)
    made.add_argument("-a", "--all", action="store_true", help="those that have a name too")
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    made.add_argument("--filter", action="append", default=[], help="until=TIME, label=KEY[=VALUE], label!=…")
    flags = made.parse_args(words)
    kind = "images without at least one container associated to them" if flags.all else "dangling images"
    if not confirmed(flags.force, f"This will remove all {kind}."):
        return 1
    from sampan.cli.usage import prune_images

    reclaimed = prune_images(context.client, parse_filters(flags.filter), everything=flags.all)
    print(f"Total reclaimed space: {size(reclaimed, 4)}")
    return 0


def confirmed(force: bool, warning: str) -> bool:
    """Ask, unless told not to; without a terminal the answer is no."""
    if force:
        return True
    print(f"WARNING! {warning}")
    if not os.isatty(0):
        return False
    return input("Are you sure you want to continue? [y/N] ").strip().lower() in ("y", "yes")


COMMANDS = {
    "ls": alias("images"), "list": alias("images"), "from-host": _from_host,
    "inspect": group_command("image"), "rm": alias("rmi"),
    "tag": alias("tag"), "pull": alias("pull"), "push": alias("push"), "load": alias("load"), "save": alias("save"),
    "import": alias("import"), "history": alias("history"), "prune": _prune,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
