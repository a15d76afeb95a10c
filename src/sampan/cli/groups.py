"""Commands of commands: `sampan image ls` is `sampan images`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from sampan.cli.context import Context

Command = Callable[[list[str], Context], int]


def run_group(name: str, words: list[str], context: Context, commands: Mapping[str, Command]) -> int:
    """Run one of a group's commands, or list them."""
    if not words or words[0] in ("-h", "--help"):
        print(f"Usage:  sampan {name} COMMAND\n\nCommands:\n  " + "\n  ".join(commands))
        return 0
    command = commands.get(words[0])
    if command is None:
        text = f"unknown command: sampan {name} {words[0]}\n\nUsage:  sampan {name} COMMAND"
        print(f"sampan: {text}\n\nRun 'sampan {name} --help' for more information", file=sys.stderr)
        return 1
    return command(words[1:], context)


def alias(command: str) -> Command:
    """The command that is known at the top by this name."""

    def run(words: list[str], context: Context) -> int:
        from sampan.cli.__main__ import run as run_command

        return run_command(command, words, context)

    return run
