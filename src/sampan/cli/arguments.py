"""Argument parsers that read words as Docker's command does, and speak as it does for a mistake.

What argparse reads otherwise is put right before it sees the words (`Parser._joined`): the word after a flag is its
value whatever it looks like (`--entrypoint -x`), a flag that is true or false may have a value (`--rm=false`), and
what follows the image or the container of `run` and `exec` belongs to the command in it, `--` among it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_WIDTH = 100
_MISSING = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "
WRONG_FLAG = 125


class WrongFlag(InvalidArgument):
    """A flag's value that only a command can tell to be wrong. `status`: what the command ends with."""

    status = WRONG_FLAG


class Asked(Exception):
    """Raised instead of parsing, when somebody wants to know what a command takes: `ask`."""

    def __init__(self, parser: Parser) -> None:
        super().__init__()
        self.parser = parser


asking = False
"""Whether the parsers are asked for themselves, by completion and by the reference's generator."""


def _formatter(prog: str) -> argparse.HelpFormatter:
    # With its width given, argparse does not ask for the terminal's with every option that is added.
    return argparse.HelpFormatter(prog, width=_WIDTH)


class Parser(argparse.ArgumentParser):
    """`status`: what a wrong value ends with; a wrong flag ends with 125, and a missing argument with 1."""

    def __init__(self, name: str, usage: str, description: str, status: int = 125, *, help_flag: bool = True) -> None:
        ways = [f"sampan {name} {line}" for line in usage.split("\n")]
        super().__init__(
            prog=f"sampan {name}", usage="\n".join(ways), description=description, allow_abbrev=False,
            add_help=help_flag, formatter_class=_formatter,
        )  # fmt: skip
        self._status = status

    def error(self, message: str) -> NoReturn:
        status = self._status
        if message.startswith(_MISSING):
            self.lack(message.removeprefix(_MISSING))
        if message.startswith(_UNKNOWN):
            word = next(each for each in message.removeprefix(_UNKNOWN).split(" ") if each != "--")
            flag = word.startswith("-") and len(word) > 1
            many = f"'{self.prog}' has an argument too many: {word}"
            message, status = (f"unknown flag: {word.partition('=')[0]}", WRONG_FLAG) if flag else (many, 1)
        self._end(message, status)

    def lack(self, what: str) -> NoReturn:
        """End, for the want of an argument."""
        self._end(f"'{self.prog}' requires {what}", 1)

    def format_usage(self) -> str:
        """As Docker's command writes it, each way on a line."""
        return "Usage:  " + (self.usage or "").replace("\n", "\n        ")

    def format_help(self) -> str:
        """In Docker's layout."""
        flags = [action for action in self._actions if action.option_strings]
        titles = [_title(action) for action in flags]
        width = max(map(len, titles), default=0) + 3
        lines = [f"  {title:<{width}}{action.help or ''}".rstrip() for title, action in zip(titles, flags, strict=True)]
        return "\n".join([self.format_usage(), "", self.description or "", "", "Options:", *lines, ""])

    def _end(self, message: str, status: int) -> NoReturn:
        usage = self.format_usage()
        print(f"{self.prog}: {message}\n\n{usage}\n\nRun '{self.prog} --help' for more information", file=sys.stderr)
        sys.exit(status)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        if asking:
            raise Asked(self)
        words, rest = self._joined(list(sys.argv[1:] if args is None else args))
        found = super().parse_args(words, namespace)
        positionals = [action for action in self._actions if not action.option_strings]
        if positionals and positionals[-1].nargs == argparse.REMAINDER:
            setattr(found, positionals[-1].dest, rest)
        return found

    def _joined(self, words: list[str]) -> tuple[list[str], list[str]]:
        """The words, each flag with its value in one; and those that belong to the command in the container."""
        positionals = [action for action in self._actions if not action.option_strings]
        # How many of our own there are before a command's: there it ends with the first that is no flag.
        own = len(positionals) - 1 if positionals and positionals[-1].nargs == argparse.REMAINDER else -1
        options: list[str] = []
        plain: list[str] = []
        while words:
            if own >= 0 and len(plain) >= own:
                break
            word = words.pop(0)
            if word == "--":
                count = own - len(plain) if own >= 0 else len(words)
                plain, words = plain + words[:count], words[count:]
                break
            if word.startswith("--"):
                options += self._long(word, words)
            elif word.startswith("-") and len(word) > 1:
                options += self._short(word, words)
            else:
                plain.append(word)
        return [*options, "--", *plain] if plain else options, words

    def _long(self, word: str, words: list[str]) -> list[str]:
        name, equals, value = word.partition("=")
        action = self._option_string_actions.get(name)
        if action is None:
            return [word]
        if action.nargs == 0:
            return self._switched(action, name, value) if equals else [word]
        if equals or action.nargs == "?" or not words:
            return [word]
        return [f"{name}={words.pop(0)}"]

    def _short(self, word: str, words: list[str]) -> list[str]:
        """`-it`, `-n5`, `-n 5`, `-n=5`"""
        found: list[str] = []
        for at, letter in enumerate(word[1:], 1):
            name, rest = f"-{letter}", word[at + 1 :]
            action = self._option_string_actions.get(name)
            if action is None:
                self.error(f"{_UNKNOWN}{name}")
            if action.nargs == 0:
                if rest.startswith("="):
                    return found + self._switched(action, name, rest[1:])
                found.append(name)
                continue
            long = next((each for each in action.option_strings if each.startswith("--")), name)
            if action.nargs == "?":
                return [*found, f"{long}={rest.removeprefix('=')}" if rest else long]
            if rest:
                return [*found, f"{long}={rest.removeprefix('=')}"]
            return [*found, f"{long}={words.pop(0)}" if words else name]
        return found

    def _switched(self, action: argparse.Action, name: str, value: str) -> list[str]:
        """A flag that is true or false, with its value."""
        if value.lower() not in ("true", "t", "1", "false", "f", "0"):
            self.error(f'invalid argument "{value}" for "{name}" flag: neither true nor false')
        return [name] if value.lower() in ("true", "t", "1") else []


def _title(action: argparse.Action) -> str:
    """`-f, --filter FILTER`"""
    short = next((each for each in action.option_strings if not each.startswith("--")), "")
    long = [each for each in action.option_strings if each.startswith("--")]
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{short + ',' if short and long else short or '   '} {', '.join(long)}{value}".rstrip()


def add_sig_proxy(parser: Parser) -> None:
    """`--sig-proxy`: alone or with `=false`, as Docker's flags that are true or false."""
    parser.add_argument(
        "--sig-proxy", type=truth, nargs="?", const=True, default=True, metavar="BOOL",
        help="pass signals on to the container (the default)",
    )  # fmt: skip


FORMAT_HELP = "table, table TEMPLATE, json, or a Go template"


def add_format(parser: Parser) -> None:
    """`--format` of a list."""
    parser.add_argument("--format", default="", help=FORMAT_HELP)


def truth(text: str) -> bool:
    """The value of a flag that is true or false."""
    return text.lower() not in ("false", "0", "no")


def pairs(given: list[str]) -> dict[str, str]:
    """`NAME=VALUE` by name; a name alone has no value."""
    return dict(each.partition("=")[::2] for each in given)
