"""`search`: what a registry has."""

from __future__ import annotations

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.credentials import header, server_of_image
from sampan.cli.filters import parse_filters
from sampan.cli.table import table
from sampan.errors import InvalidArgument

FAILURE = 1
_WIDE = 45
_TITLES = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}


def parser() -> Parser:
    made = Parser("search", "[OPTIONS] TERM", "Search Docker Hub, or another registry (HOST/TERM), for images", 1)
    made.add_argument("-f", "--filter", action="append", default=[], help="is-official=BOOL or stars=COUNT")
    made.add_argument("--format", default="", help="a Go template, json, or table TEMPLATE")
    made.add_argument("--limit", default="", help="how many at most (25)")
    made.add_argument("--no-trunc", action="store_true", help="do not cut anything off")
    made.add_argument("term", metavar="TERM")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser().parse_args(words)
    if flags.limit and not flags.limit.isdigit():
        raise InvalidArgument(f'invalid argument "{flags.limit}" for "--limit" flag: not a number')
    found = context.client.call(
        "GET", "/images/search", headers=header(server_of_image(flags.term)), term=flags.term, limit=flags.limit,
        filters=parse_filters(flags.filter),
    )  # fmt: skip
    rows = [
        {
            "Name": each["name"], "Description": _cut(each.get("description") or "", flags.no_trunc),
            "StarCount": str(each.get("star_count", 0)), "IsOfficial": "[OK]" if each.get("is_official") else "",
        }
        for each in sorted(found, key=lambda each: -each.get("star_count", 0))
    ]  # fmt: skip
    if flags.format:
        from sampan.cli.template import lines

        text = lines(flags.format, _TITLES, rows)
        print(text, end="\n" if text else "")
    else:
        print(table(list(_TITLES.values()), [list(row.values()) for row in rows]))
    return 0


def _cut(text: str, whole: bool) -> str:
    text = " ".join(text.split())
    return text if whole or len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"
