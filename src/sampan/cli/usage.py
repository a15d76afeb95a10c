"""`system df`, `system prune` and `system explain`: where the disk's space is, and how to have it back."""

from __future__ import annotations

import json

from sampan.cli.arguments import Parser, add_format
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.image import confirmed
from sampan.cli.images import rows
from sampan.cli.listing import Row, print_rows
from sampan.cli.table import ago, short, size, table
from sampan.client.client import Client, Document
from sampan.errors import InvalidArgument

FAILURE = 1
_TITLES = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
}  # fmt: skip
_WORDS = {
    "content": "blobs of images", "layer": "layers", "writable": "containers' writable layers",
    "container": "containers' other files", "log": "logs", "volume": "volumes", "transfer": "transfers under way",
    "trash": "being removed", "database": "database", "engine": "engine's own", "other": "not the engine's",
}  # fmt: skip


def usage(words: list[str], context: Context) -> int:
    """`system df`"""
    made = Parser("system df", "[OPTIONS]", "Show disk usage", 1)
    made.add_argument("-v", "--verbose", action="store_true", help="each object, and whose every byte is")
    add_format(made)
    flags = made.parse_args(words)
    if flags.verbose and flags.format not in ("", "json"):
        raise InvalidArgument("--verbose has no template: --format json is what it takes")
    found = context.client.call("GET", "/system/df")
    if flags.verbose:
        explained = context.client.call("GET", "/system/explain", interval="0")
        if flags.format:
            print(json.dumps({**found, "Parts": explained["Parts"], "Size": explained["Size"]}))
            return 0
        _verbose(found)
        print(f"\nData root space usage: {explained['DataRoot']}, {size(explained['Size'])}\n")
        print(_parts(explained["Parts"]))
        return 0
    print_rows(_summary(found), _TITLES, tuple(_TITLES), flags.format)
    return 0


def _summary(found: Document) -> list[Row]:
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes = found.get("Volumes") or []
    used = [each for each in images if each.get("Containers", 0) > 0]
    layers = found.get("LayersSize", 0)
    kept = sum(each["Size"] - max(each.get("SharedSize", 0), 0) for each in used)
    active = [each for each in containers if each["State"] in ("running", "paused", "restarting")]
    taken = sum(each.get("SizeRw", 0) for each in containers)
    sizes = [max(each["UsageData"]["Size"], 0) for each in volumes]
    busy = [each for each in volumes if each["UsageData"]["RefCount"] > 0]
    counted = (
        ("Images", len(images), len(used), layers, max(0, layers - kept)),
        ("Containers", len(containers), len(active), taken, taken - sum(each.get("SizeRw", 0) for each in active)),
        ("Local Volumes", len(volumes), len(busy), sum(sizes),
         sum(sizes) - sum(max(each["UsageData"]["Size"], 0) for each in busy)),
        ("Build Cache", 0, 0, 0, 0),
    )  # fmt: skip
    return [
        Row(
            Type=kind,
            TotalCount=str(total),
            Active=str(live),
            Size=size(held, 4),
            Reclaimable=f"{size(free, 4)} ({free * 100 // held}%)" if held else size(free, 4),
        )
        for kind, total, live, held, free in counted
    ]


def _verbose(found: Document) -> None:
    """In Docker's layout."""
    print("Images space usage:\n")
    keys = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
    shown = [
        [row[key] for key in keys]
        for image in found.get("Images") or ()
        for row in rows(image, False, False, counted=True)
    ]
    titles = ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS")
    print(table(titles, shown))
    print("\nContainers space usage:\n")
    titles = ("CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES")
    shown = [
        [
            short(each["Id"]), each["Image"], f'"{_cut(each["Command"])}"',
            str(sum(mount.get("Type") == "volume" for mount in each.get("Mounts") or ())),
            size(each.get("SizeRw", 0)), ago(each["Created"]), each["Status"],
            ",".join(name.lstrip("/") for name in each["Names"]),
        ]
        for each in found.get("Containers") or ()
    ]  # fmt: skip
    print(table(titles, shown))
    print("\nLocal Volumes space usage:\n")
    print(
        table(
            ("VOLUME NAME", "LINKS", "SIZE"),
            [
                [each["Name"], str(each["UsageData"]["RefCount"]), size(max(each["UsageData"]["Size"], 0), 4)]
                for each in found.get("Volumes") or ()
            ],
        )
    )
    print("\nBuild cache usage: 0B")


def _cut(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "…"


def _owners(part: Document) -> str:
    words = [", ".join(part["Images"]) or "", ", ".join(part["Containers"]) or ""]
    named = [f"{kind} {each}" for kind, each in zip(("images", "containers"), words, strict=True) if each]
    return "; ".join(named) or _WORDS[part["Kind"]]


def _parts(parts: Document) -> str:
    return table(
        ("KIND", "PATH", "FILES", "SIZE", "OF"),
        [[each["Kind"], _short(each["Path"]), str(each["Files"]), size(each["Size"]), _owners(each)] for each in parts],
    )


def _short(path: str) -> str:
    """Ids cut as everywhere."""
    return "/".join(
        part[:12] + ("…" if len(part) > 64 else "") if len(part) >= 64 and part[:64].isalnum() else part
        for part in path.split("/")
    )


def explain(words: list[str], context: Context) -> int:
    """`system explain`"""
    made = Parser("system explain", "[OPTIONS]", "Tell what is in overlay2, whose it is, and what grows", 1)
    made.add_argument("--interval", type=float, default=1.0, help="seconds between the two looks at what grows")
    made.add_argument("--format", default="", choices=("", "text", "json"), help="text or json")
    flags = made.parse_args(words)
    found = context.client.call("GET", "/system/explain", interval=str(flags.interval))
    if flags.format == "json":
        print(json.dumps(found))
        return 0
    sums: dict[str, int] = {}
    for each in found["Parts"]:
        sums[each["Kind"]] = sums.get(each["Kind"], 0) + each["Size"]
    print(f"{found['DataRoot']}: {size(found['Size'])}\n")
    print(table(("WHAT", "SIZE"), [[_WORDS[kind], size(sums[kind])] for kind in sorted(sums, key=lambda k: -sums[k])]))
    layers = [each for each in found["Parts"] if each["Path"].startswith("overlay2/")]
    if layers:
        print(f"\nIn {found['DataRoot']}/overlay2:\n")
        shown = [[_short(each["Path"])[9:], each["Kind"], size(each["Size"]), _owners(each)] for each in layers]
        print(table(("DIRECTORY", "KIND", "SIZE", "SHARED BY"), shown))
    for each in found["Growth"]:
        _growth(each, found["Interval"])
    return 0


def _growth(each: Document, interval: float) -> None:
    print(f"\nContainer {each['Container']} has {size(each['Size'])} in its writable layer", end="")
    if not each["Files"]:
        print(".")
        return
    print(f"; the fastest and largest files, within {interval:g} s:\n")
    shown = [
        [file["Path"], size(file["Size"]), f"{size(file['BytesPerSecond'])}/s" if file["Grown"] > 0 else "-"]
        for file in each["Files"]
    ]
    print(table(("FILE", "SIZE", "GROWS BY"), shown))
    if each["Advice"]:
        print("\nTo have them in a volume, which outlives the container and is not in overlay2:")
    for advice in each["Advice"]:
        print(f"  {advice['Option']}  ({size(advice['Size'])})")


def prune(words: list[str], context: Context) -> int:
    """`system prune`"""
    made = Parser("system prune", "[OPTIONS]", "Remove unused data", 1)
    made.add_argument("-a", "--all", action="store_true", help="all unused images, not just those without a name")
    made.add_argument("--volumes", action="store_true", help="anonymous volumes too")
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    made.add_argument("--filter", action="append", default=[], help="until=TIME, label=KEY[=VALUE], label!=…")
    flags = made.parse_args(words)
    filters = parse_filters(flags.filter)
    if flags.volumes and "until" in filters:
        raise InvalidArgument('ERROR: The "until" filter is not supported with "--volumes"')
    kinds = ["all stopped containers", "all networks not used by at least one container"]
    kinds += ["unused images" if flags.all else "dangling images"]
    kinds += ["anonymous volumes not used by at least one container"] if flags.volumes else []
    if not confirmed(flags.force, f"This will remove: {', '.join(kinds)}."):
        return 1
    client = context.client
    total = 0
    report = client.call("POST", "/containers/prune", filters=filters)
    _deleted("Deleted Containers:", report["ContainersDeleted"])
    total += report["SpaceReclaimed"]
    _deleted("Deleted Networks:", client.call("POST", "/networks/prune", filters=filters)["NetworksDeleted"])
    if flags.volumes:
        report = client.call("POST", "/volumes/prune", filters=filters)
        _deleted("Deleted Volumes:", report["VolumesDeleted"])
        total += report["SpaceReclaimed"]
    total += prune_images(client, filters, everything=flags.all)
    print(f"Total reclaimed space: {size(total, 4)}")
    return 0


def prune_images(client: Client, filters: dict[str, list[str]], *, everything: bool) -> int:
    """Tell what has been removed; the bytes that it took. `everything`: those that have a name too."""
    filters = {**filters, "dangling": ["false" if everything else "true"]}
    report = client.call("POST", "/images/prune", filters=filters)
    lines = [
        f"untagged: {line['Untagged']}" if line.get("Untagged") else f"deleted: {line['Deleted']}"
        for line in report["ImagesDeleted"] or ()
    ]
    _deleted("Deleted Images:", lines)
    return int(report["SpaceReclaimed"])


def _deleted(title: str, names: list[str] | None) -> None:
    if names:
        print(title, *names, "", sep="\n")
