"""`network …`: what there is; making networks comes later, and the engine says so."""

from __future__ import annotations

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.groups import Command, run_group
from sampan.cli.inspect import group_command
from sampan.cli.table import short, table

FAILURE = 1


def _list(words: list[str], context: Context) -> int:
    made = Parser("network ls", "[OPTIONS]", "List networks", 1)
    made.add_argument("-q", "--quiet", action="store_true", help="ids only")
    flags = made.parse_args(words)
    found = context.client.call("GET", "/networks")
    if flags.quiet:
        for each in found:
            print(short(each["Id"]))
        return 0
    rows = sorted((short(each["Id"]), each["Name"], each["Driver"], each["Scope"]) for each in found)
    print(table(("NETWORK ID", "NAME", "DRIVER", "SCOPE"), rows))
    return 0


def _create(words: list[str], context: Context) -> int:
    made = Parser("network create", "[OPTIONS] NETWORK", "Create a network", 1)
    made.add_argument("-d", "--driver", default="bridge", help="network driver")
    made.add_argument("name")
    flags = made.parse_args(words)
    print(context.client.call("POST", "/networks/create", {"Name": flags.name, "Driver": flags.driver})["Id"])
    return 0


COMMANDS: dict[str, Command] = {"ls": _list, "list": _list, "inspect": group_command("network"), "create": _create}


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
