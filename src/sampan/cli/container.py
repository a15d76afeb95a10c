"""`container …`: the commands on containers by their long names."""

from __future__ import annotations

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.groups import Command, alias, run_group
from sampan.cli.image import confirmed
from sampan.cli.inspect import group_command
from sampan.cli.table import size

FAILURE = 1


def _prune(words: list[str], context: Context) -> int:
    made = Parser("container prune", "[OPTIONS]", "Remove all stopped containers", 1)
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    made.add_argument("--filter", action="append", default=[], help="until=TIME, label=KEY[=VALUE], label!=…")
    flags = made.parse_args(words)
    if not confirmed(flags.force, "This will remove all stopped containers."):
        return 1
    report = context.client.call("POST", "/containers/prune", filters=parse_filters(flags.filter))
    if report["ContainersDeleted"]:
        print("Deleted Containers:")
        print("\n".join(report["ContainersDeleted"]) + "\n")
    print(f"Total reclaimed space: {size(report['SpaceReclaimed'], 4)}")
    return 0


COMMANDS: dict[str, Command] = {
    **{
        name: alias(name)
        for name in (
            "run", "create", "start", "stop", "restart", "kill", "rm", "pause", "unpause", "wait", "rename", "attach",
            "exec", "update", "logs", "top", "port", "commit", "diff", "export", "stats", "cp",
        )
    },
    "ls": alias("ps"), "list": alias("ps"), "ps": alias("ps"), "inspect": group_command("container"), "prune": _prune,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
