"""`volume …`."""

from __future__ import annotations

import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.groups import Command, run_group
from sampan.cli.image import confirmed
from sampan.cli.inspect import group_command
from sampan.cli.table import size, table
from sampan.errors import SampanError

FAILURE = 1


def _list(words: list[str], context: Context) -> int:
    made = Parser("volume ls", "[OPTIONS]", "List volumes", 1)
    made.add_argument("-q", "--quiet", action="store_true", help="names only")
    made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
    flags = made.parse_args(words)
    found = context.client.call("GET", "/volumes", filters=parse_filters(flags.filter))["Volumes"] or []
    if flags.quiet:
        for each in found:
            print(each["Name"])
        return 0
    print(table(("DRIVER", "VOLUME NAME"), [(each["Driver"], each["Name"]) for each in found]))
    return 0


def _create(words: list[str], context: Context) -> int:
    made = Parser("volume create", "[OPTIONS] [VOLUME]", "Create a volume", 1)
    made.add_argument("-d", "--driver", default="local", help="volume driver")
    made.add_argument("--label", action="append", default=[], help="NAME=VALUE")
    made.add_argument("-o", "--opt", action="append", default=[], help="driver option: NAME=VALUE")
    made.add_argument("name", nargs="?", default="")
    flags = made.parse_args(words)
    volume = context.client.call(
        "POST", "/volumes/create",
        {
            "Name": flags.name, "Driver": flags.driver,
            "Labels": dict(each.partition("=")[::2] for each in flags.label),
            "DriverOpts": dict(each.partition("=")[::2] for each in flags.opt),
        },
    )  # fmt: skip
    print(volume["Name"])
    return 0


def _remove(words: list[str], context: Context) -> int:
    made = Parser("volume rm", "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", 1)
    made.add_argument("-f", "--force", action="store_true", help="no error if it is not there")
    made.add_argument("names", nargs="+", metavar="VOLUME")
    flags = made.parse_args(words)
    status = 0
    for each in flags.names:
        try:
            context.client.call("DELETE", f"/volumes/{each}", force=flags.force)
            print(each)
        except SampanError as error:
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
    return status


def _prune(words: list[str], context: Context) -> int:
    made = Parser("volume prune", "[OPTIONS]", "Remove unused volumes", 1)
    made.add_argument("-a", "--all", action="store_true", help="those that have a name too")
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    flags = made.parse_args(words)
    if not confirmed(flags.force, "This will remove all volumes that no container uses."):
        return 1
    report = context.client.call("POST", "/volumes/prune", filters={"all": ["1"]} if flags.all else {})
    for each in report["VolumesDeleted"] or ():
        print(each)
    print(f"Total reclaimed space: {size(report['SpaceReclaimed'], 4)}")
    return 0


COMMANDS: dict[str, Command] = {
    "ls": _list, "list": _list, "create": _create, "inspect": group_command("volume"), "rm": _remove, "prune": _prune,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
