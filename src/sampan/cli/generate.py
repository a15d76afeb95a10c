"""`generate …`."""

from __future__ import annotations

from sampan.cli.context import Context
from sampan.cli.groups import Command, run_group
from sampan.cli.systemd import generate

FAILURE = 1
COMMANDS: dict[str, Command] = {"systemd": generate}


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
