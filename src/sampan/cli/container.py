"""`container …`: the commands on containers by their long names."""

from __future__ import annotations

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.groups import Command, alias, run_group
from sampan.cli.image import confirmed
from sampan.cli.inspect import inspect
from sampan.cli.table import size

FAILURE = 1


def _inspect(words: list[str], context: Context) -> int:
    made = Parser("container inspect", "[OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information", 1)
    made.add_argument("-f", "--format", default="", help="a Go template")
    made.add_argument("-s", "--size", action="store_true", help="sizes too")
    made.add_argument("names", nargs="+", metavar="CONTAINER")
    flags = made.parse_args(words)
    return inspect(context.client, flags.names, "container", flags.format, size=flags.size)


def _prune(words: list[str], context: Context) -> int:
    made = Parser("container prune", "[OPTIONS]", "Remove all stopped containers", 1)
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    if not confirmed(made.parse_args(words).force, "This will remove all stopped containers."):
        return 1
    report = context.client.call("POST", "/containers/prune")
    if report["ContainersDeleted"]:
        print("Deleted Containers:")
        print("\n".join(report["ContainersDeleted"]) + "\n")
    print(f"Total reclaimed space: {size(report['SpaceReclaimed'])}")
    return 0


COMMANDS: dict[str, Command] = {
    **{
        name: alias(name)
        for name in (
            "run", "create", "start", "stop", "restart", "kill", "rm", "pause", "unpause", "wait", "rename", "attach",
            "exec", "logs", "top", "port",
        )
    },
    "ls": alias("ps"), "list": alias("ps"), "ps": alias("ps"), "inspect": _inspect, "prune": _prune,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
