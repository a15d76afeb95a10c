"""`volume …`."""

from __future__ import annotations

from sampan.cli.arguments import Parser, add_format, pairs
from sampan.cli.context import Context
from sampan.cli.each import for_each
from sampan.cli.filters import parse_filters
from sampan.cli.groups import Command, run_group
from sampan.cli.image import confirmed
from sampan.cli.inspect import group_command
from sampan.cli.listing import Row, joined_labels, labels_method, print_rows
from sampan.cli.table import natural, size
from sampan.cli.transfer import opened, pieces, written
from sampan.client.client import Document

FAILURE = 1


_TITLES = {
    "Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
    "Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS",
}  # fmt: skip
_RAW = "name: {{.Name}}\ndriver: {{.Driver}}\n"


def _list(words: list[str], context: Context) -> int:
    made = Parser("volume ls", "[OPTIONS]", "List volumes", 1)
    made.add_argument("-q", "--quiet", action="store_true", help="names only")
    made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
    add_format(made)
    flags = made.parse_args(words)
    template = flags.format or ("" if flags.quiet else context.setting("volumesFormat"))
    found = context.client.call("GET", "/volumes", filters=parse_filters(flags.filter))["Volumes"] or []
    found.sort(key=lambda each: natural(each["Name"]))
    if flags.quiet and template in ("", "table"):
        for volume in found:
            print(volume["Name"])
        return 0
    print_rows(list(map(_row, found)), _TITLES, ("Driver", "Name"), template, raw=_RAW)
    return 0


def _row(volume: Document) -> Row:
    usage = volume.get("UsageData")
    return Row(
        Driver=volume["Driver"],
        Name=volume["Name"],
        Scope=volume["Scope"],
        Mountpoint=volume["Mountpoint"],
        Labels=joined_labels(volume.get("Labels")),
        Label=labels_method(volume.get("Labels")),
        Links=str(usage["RefCount"]) if usage else "N/A",
        Size=size(usage["Size"], 4) if usage else "N/A",
        # A cluster's volumes have these, and there are none.
        Group="N/A", Availability="N/A", Status="N/A",
    )  # fmt: skip


def _create(words: list[str], context: Context) -> int:
    made = Parser("volume create", "[OPTIONS] [VOLUME]", "Create a volume", 1)
    made.add_argument("-d", "--driver", default="local", help="volume driver")
    made.add_argument("--label", action="append", default=[], help="NAME=VALUE")
    made.add_argument("-o", "--opt", action="append", default=[], help="driver option: NAME=VALUE")
    made.add_argument("name", nargs="?", default="")
    flags = made.parse_args(words)
    volume = context.client.call(
        "POST", "/volumes/create",
        {
            "Name": flags.name, "Driver": flags.driver,
            # Without a word about them there are none: an empty set is another thing.
            "Labels": pairs(flags.label) or None, "DriverOpts": pairs(flags.opt) or None,
        },
    )  # fmt: skip
    print(volume["Name"])
    return 0


def _remove(words: list[str], context: Context) -> int:
    made = Parser("volume rm", "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", 1)
    made.add_argument("-f", "--force", action="store_true", help="no error if it is not there")
    made.add_argument("names", nargs="+", metavar="VOLUME")
    flags = made.parse_args(words)

    def remove(name: str) -> None:
        context.client.call("DELETE", f"/volumes/{name}", force=flags.force)
        print(name)

    return for_each(flags.names, remove)


def _prune(words: list[str], context: Context) -> int:
    made = Parser("volume prune", "[OPTIONS]", "Remove unused volumes", 1)
    made.add_argument("-a", "--all", action="store_true", help="those that have a name too")
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    made.add_argument("--filter", action="append", default=[], help="label=KEY[=VALUE], label!=…")
    flags = made.parse_args(words)
    filters = parse_filters(flags.filter)
    if flags.all:
        filters["all"] = ["1"]
    if not confirmed(flags.force, "This will remove all volumes that no container uses."):
        return 1
    report = context.client.call("POST", "/volumes/prune", filters=filters)
    for name in report["VolumesDeleted"] or ():
        print(name)
    print(f"Total reclaimed space: {size(report['SpaceReclaimed'], 4)}")
    return 0


def _export(words: list[str], context: Context) -> int:
    made = Parser("volume export", "[OPTIONS] VOLUME", "Write all that is in a volume to a tar archive", 1)
    made.add_argument("-o", "--output", default="", help="a file, instead of standard output")
    made.add_argument("name", metavar="VOLUME")
    flags = made.parse_args(words)
    return written(context.client, f"/volumes/{flags.name}/export", flags.output, "export")


def _import(words: list[str], context: Context) -> int:
    made = Parser(
        "volume import", "VOLUME [FILE|-]", "Put what a tar archive has into the place of all that is in a volume", 1
    )  # fmt: skip
    made.add_argument("name", metavar="VOLUME")
    made.add_argument("file", nargs="?", default="-", metavar="FILE|-")
    flags = made.parse_args(words)
    with opened(flags.file) as file:
        context.client.call(
            "POST", f"/volumes/{flags.name}/import", body=pieces(file), headers={"Content-Type": "application/x-tar"}
        )
    print(flags.name)
    return 0


COMMANDS: dict[str, Command] = {
    "ls": _list, "list": _list, "create": _create, "inspect": group_command("volume"), "rm": _remove, "prune": _prune,
    "export": _export, "import": _import,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
