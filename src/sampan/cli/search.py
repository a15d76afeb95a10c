"""`search`: what a registry has."""

from __future__ import annotations

from sampan.cli.arguments import Parser, add_format
from sampan.cli.context import Context
from sampan.cli.credentials import header, server_of_image
from sampan.cli.filters import parse_filters
from sampan.cli.listing import Row, print_rows
from sampan.cli.table import cut
from sampan.errors import InvalidArgument

FAILURE = 1
_WIDE = 45
_TITLES = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}


def parser() -> Parser:
    made = Parser("search", "[OPTIONS] TERM", "Search Docker Hub, or another registry (HOST/TERM), for images", 1)
    made.add_argument("-f", "--filter", action="append", default=[], help="is-official=BOOL or stars=COUNT")
    add_format(made)
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
        Row(
            Name=each["name"],
            Description=cut(" ".join((each.get("description") or "").split()), _WIDE, flags.no_trunc),
            StarCount=str(each.get("star_count", 0)),
            IsOfficial="[OK]" if each.get("is_official") else "",
            IsAutomated="[OK]" if each.get("is_automated") else "",
        )
        for each in sorted(found, key=lambda each: -each.get("star_count", 0))
    ]
    print_rows(rows, {**_TITLES, "IsAutomated": "AUTOMATED"}, tuple(_TITLES), flags.format)
    return 0
