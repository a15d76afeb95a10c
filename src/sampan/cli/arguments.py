"""Argument parsers that speak as Docker's command does: one line for a mistake, and status 125 or 1."""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_WIDTH = 100


def _formatter(prog: str) -> argparse.HelpFormatter:
    # With its width given, argparse does not ask for the terminal's with every option that is added.
    return argparse.HelpFormatter(prog, width=_WIDTH)


class Parser(argparse.ArgumentParser):
    """`status`: what a wrong flag ends with."""

    def __init__(self, name: str, usage: str, description: str, status: int = 125, *, help_flag: bool = True) -> None:
        super().__init__(
            prog=f"sampan {name}", usage=f"sampan {name} {usage}", description=description, allow_abbrev=False,
            add_help=help_flag, formatter_class=_formatter,
        )  # fmt: skip
        self._status = status

    def error(self, message: str) -> NoReturn:
        advice = f"Usage:  {self.usage}\n\nRun '{self.prog} --help' for more information"
        print(f"{self.prog}: {message}\n\n{advice}", file=sys.stderr)
        sys.exit(self._status)


def add_sig_proxy(parser: Parser) -> None:
    """`--sig-proxy`: alone or with `=false`, as Docker's flags that are true or false."""
    parser.add_argument(
        "--sig-proxy", type=truth, nargs="?", const=True, default=True, metavar="BOOL",
        help="pass signals on to the container (the default)",
    )  # fmt: skip


def truth(text: str) -> bool:
    """The value of a flag that is true or false."""
    return text.lower() not in ("false", "0", "no")
