"""`ps`."""

from __future__ import annotations

import sys

from sampan.cli.arguments import Parser, add_format
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.listing import Row, joined_labels, labels_method, print_rows
from sampan.cli.table import ago, cut, quoted, short, size, when
from sampan.client.client import Document
from sampan.errors import InvalidArgument

FAILURE = 1
_KEYS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_TITLES = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "Status": "STATUS",
    "Ports": "PORTS", "Names": "NAMES", "CreatedAt": "CREATED AT", "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS", "Networks": "NETWORKS", "Platform": "PLATFORM", "Size": "SIZE", "State": "STATE",
}  # fmt: skip
_RAW = """container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{.State}}
status: {{.Status}}
names: {{.Names}}
labels: {{- if .Labels}} {{.Labels}}{{end}}
ports: {{- if .Ports}} {{.Ports}}{{end}}
"""
_COMMAND_WIDTH = 20
_MOUNT_WIDTH = 15


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS]", "List containers", 125)
    made.add_argument("-a", "--all", action="store_true", help="those that do not run too")
    made.add_argument("-q", "--quiet", action="store_true", help="ids only")
    made.add_argument("-n", "--last", type=int, default=-1, help="the last so many, in whatever state")
    made.add_argument("-l", "--latest", action="store_true", help="the latest, in whatever state")
    made.add_argument("-s", "--size", action="store_true", help="sizes too")
    made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
    made.add_argument("--no-trunc", action="store_true", help="do not cut anything off")
    add_format(made)
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    if flags.latest and flags.last > 0:
        raise InvalidArgument("--latest and --last are two ways to say how many")
    template = flags.format or ("" if flags.quiet else context.setting("psFormat"))
    limit = 1 if flags.latest else flags.last
    found = context.client.call(
        "GET", "/containers/json", all=flags.all, limit=limit if limit > 0 else None,
        size=flags.size or ".Size" in template or "json.}" in template.replace(" ", ""),
        filters=parse_filters(flags.filter),
    )  # fmt: skip
    if flags.quiet:
        if flags.format:
            print("WARNING: Ignoring custom format, because both --format and --quiet are set.", file=sys.stderr)
        for each in found:
            print(short(each["Id"], flags.no_trunc))
        return 0
    keys = (*_KEYS, "Size") if flags.size else _KEYS
    raw = f"{_RAW}size: {{{{.Size}}}}\n" if flags.size else _RAW
    print_rows([row(each, flags.no_trunc) for each in found], _TITLES, keys, template, raw=raw)
    return 0


def row(each: Document, full: bool) -> Row:
    """By the names that templates know."""
    image = each["Image"]
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in each.get("Mounts") or ()]
    return Row(
        ID=short(each["Id"], full),
        Image=short(image, full) if image.startswith("sha256:") else image or "<no image>",
        Command=quoted(cut(each["Command"], _COMMAND_WIDTH, full)),
        CreatedAt=when(each["Created"]),
        RunningFor=ago(each["Created"]),
        Status=each["Status"],
        State=each["State"],
        Ports=", ".join(ports(each.get("Ports") or [])),
        Names=",".join(name.removeprefix("/") for name in each["Names"] or () if full or name.count("/") == 1),
        Size=_sizes(each),
        Labels=joined_labels(each.get("Labels")),
        Label=labels_method(each.get("Labels")),
        Mounts=",".join(cut(mount, _MOUNT_WIDTH, full) for mount in mounts),
        LocalVolumes=str(sum(mount.get("Driver") == "local" for mount in each.get("Mounts") or ())),
        Networks=",".join(each["NetworkSettings"]["Networks"]),
        Platform=None,
    )


def _sizes(each: Document) -> str:
    whole = each.get("SizeRootFs", 0)
    return size(each.get("SizeRw", 0)) + (f" (virtual {size(whole)})" if whole else "")


def ports(found: list[Document]) -> list[str]:
    """Neighbours in one: `80-82/tcp`, `0.0.0.0:80-82->80-82/tcp`; then those that have another number outside."""
    runs: dict[tuple[str, str], list[list[int]]] = {}
    moved: list[str] = []
    for each in sorted(found, key=lambda one: (one["PrivatePort"], one.get("IP", ""), one.get("PublicPort", 0))):
        inside, address, outside = each["PrivatePort"], each.get("IP", ""), each.get("PublicPort", 0)
        if address and outside != inside:
            host = f"[{address}]" if ":" in address else address
            moved.append(f"{host}:{outside}->{inside}/{each['Type']}")
            continue
        run = runs.setdefault((address, each["Type"]), [])
        if run and run[-1][1] in (inside, inside - 1):
            run[-1][1] = inside
        else:
            run.append([inside, inside])
    shown = [_run(address, kind, *each) for (address, kind), run in runs.items() for each in run]
    return [*shown, *moved]


def _run(address: str, kind: str, first: int, last: int) -> str:
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{address}:{numbers}->{numbers}/{kind}" if address else f"{numbers}/{kind}"
