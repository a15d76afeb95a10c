"""`ps`."""

from __future__ import annotations

import time

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.table import ago, short, size, table
from sampan.client.client import Document

FAILURE = 1
_TITLES = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
_COMMAND_WIDTH = 20


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS]", "List containers", 1)
    made.add_argument("-a", "--all", action="store_true", help="those that do not run too")
    made.add_argument("-q", "--quiet", action="store_true", help="ids only")
    made.add_argument("-n", "--last", type=int, default=-1, help="the last so many, in whatever state")
    made.add_argument("-l", "--latest", action="store_true", help="the latest, in whatever state")
    made.add_argument("-s", "--size", action="store_true", help="sizes too")
    made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
    made.add_argument("--no-trunc", action="store_true", help="do not cut anything off")
    made.add_argument("--format", default="", help="a Go template, json, or table TEMPLATE")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    limit = 1 if flags.latest else flags.last
    found = context.client.call(
        "GET", "/containers/json", all=flags.all, limit=limit if limit > 0 else None, size=flags.size,
        filters=parse_filters(flags.filter),
    )  # fmt: skip
    if flags.quiet:
        for each in found:
            print(short(each["Id"], flags.no_trunc))
        return 0
    if flags.format:
        from sampan.cli.template import lines

        keys = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
        text = lines(
            flags.format, dict(zip(keys, _TITLES, strict=True)), [_fields(each, flags.no_trunc) for each in found]
        )
        print(text, end="\n" if text else "")
        return 0
    titles = (*_TITLES, "SIZE") if flags.size else _TITLES
    rows = [_row(each, flags.no_trunc, flags.size) for each in found]
    print(table(titles, rows))
    return 0


def _command(text: str, full: bool) -> str:
    if not full and len(text) > _COMMAND_WIDTH:
        text = text[: _COMMAND_WIDTH - 1] + "…"
    return f'"{text}"'


def _row(each: Document, full: bool, with_size: bool) -> tuple[str, ...]:
    fields = _fields(each, full)
    row = tuple(fields[key] for key in ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"))
    return (*row, f"{size(each.get('SizeRw', 0))} (virtual {size(each.get('SizeRootFs', 0))})") if with_size else row


def _fields(each: Document, full: bool) -> dict[str, str]:
    image = each["Image"]
    return {
        "ID": short(each["Id"], full),
        "Image": short(image, full) if image.startswith("sha256:") else image,
        "Command": _command(each["Command"], full),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(each["Created"])),
        "RunningFor": ago(each["Created"]),
        "Status": each["Status"],
        "State": each["State"],
        "Ports": ", ".join(sorted(_port(port) for port in each["Ports"])),
        "Names": ",".join(name.removeprefix("/") for name in each["Names"]),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((each.get("Labels") or {}).items())),
        "Mounts": ",".join(mount.get("Name") or mount.get("Source", "") for mount in each.get("Mounts") or ()),
        "Networks": ",".join(each["NetworkSettings"]["Networks"]),
    }


def _port(port: Document) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '')}:{port['PublicPort']}->{inside}" if port.get("PublicPort") else inside
