"""`network …`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from sampan.cli.arguments import Parser, add_format, pairs
from sampan.cli.context import Context
from sampan.cli.each import for_each
from sampan.cli.filters import parse_filters
from sampan.cli.groups import Command, run_group
from sampan.cli.image import confirmed
from sampan.cli.inspect import group_command
from sampan.cli.listing import Row, joined_labels, labels_method, print_rows
from sampan.cli.table import moment_shown, natural, short
from sampan.client.client import Document
from sampan.errors import InvalidArgument

FAILURE = 1


_TITLES = {
    "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "CreatedAt": "CREATED AT",
    "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS",
}  # fmt: skip
_RAW = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"


def _list(words: list[str], context: Context) -> int:
    made = Parser("network ls", "[OPTIONS]", "List networks", 1)
    made.add_argument("-q", "--quiet", action="store_true", help="ids only")
    made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
    made.add_argument("--no-trunc", action="store_true", help="do not cut ids off")
    add_format(made)
    flags = made.parse_args(words)
    template = flags.format or ("" if flags.quiet else context.setting("networksFormat"))
    found = context.client.call("GET", "/networks", filters=parse_filters(flags.filter))
    found.sort(key=lambda each: natural(each["Name"]))
    if flags.quiet and template in ("", "table"):
        for each in found:
            print(short(each["Id"], flags.no_trunc))
        return 0
    rows = [_row(each, flags.no_trunc) for each in found]
    print_rows(rows, _TITLES, ("ID", "Name", "Driver", "Scope"), template, raw=_RAW)
    return 0


def _row(each: Document, full: bool) -> Row:
    return Row(
        ID=short(each["Id"], full),
        Name=each["Name"],
        Driver=each["Driver"],
        Scope=each["Scope"],
        CreatedAt=moment_shown(each.get("Created", "")),
        IPv4=str(each.get("EnableIPv4", True)).lower(),
        IPv6=str(each.get("EnableIPv6", False)).lower(),
        Internal=str(each.get("Internal", False)).lower(),
        Labels=joined_labels(each.get("Labels")),
        Label=labels_method(each.get("Labels")),
    )


def _create(words: list[str], context: Context) -> int:
    made = Parser("network create", "[OPTIONS] NETWORK", "Create a network", 1)
    made.add_argument("-d", "--driver", default="bridge", help="network driver")
    made.add_argument(
        "--subnet", action="append", default=[], help="its addresses, such as 10.8.0.0/24; else free ones"
    )
    made.add_argument("--ip-range", action="append", default=[], help="the part of them that containers get")
    made.add_argument("--gateway", action="append", default=[], help="the host's address in it")
    made.add_argument("--ipv6", action="store_true", help="with addresses of IPv6 too")
    made.add_argument("--aux-address", action="append", default=[], help="an address to leave alone: NAME=ADDRESS")
    made.add_argument("--internal", action="store_true", help="without a way out")
    made.add_argument("--attachable", action="store_true", help="accepted, as Docker does")
    made.add_argument("--label", action="append", default=[], help="NAME=VALUE")
    made.add_argument("-o", "--opt", action="append", default=[], help="driver option: NAME=VALUE")
    made.add_argument("name", metavar="NETWORK")
    flags = made.parse_args(words)
    made_network = context.client.call(
        "POST", "/networks/create",
        {
            "Name": flags.name, "Driver": flags.driver, "Internal": flags.internal, "Attachable": flags.attachable,
            "EnableIPv6": flags.ipv6, "IPAM": {"Config": _subnets(flags)},
            "Labels": pairs(flags.label), "Options": pairs(flags.opt),
        },
    )  # fmt: skip
    print(made_network["Id"])
    return 0


def _subnets(flags: Namespace) -> list[dict[str, Any]]:
    """Each subnet with what belongs to it."""
    found: dict[str, dict[str, Any]] = {each: {"Subnet": each} for each in flags.subnet}
    others = [("IPRange", each, each) for each in flags.ip_range] + [("Gateway", each, each) for each in flags.gateway]
    others += [("AuxiliaryAddresses", value, each) for each in flags.aux_address for value in (each.partition("=")[2],)]
    for key, address, given in others:
        subnet = next((each for each in found if _within(address, each)), None)
        if subnet is None:
            raise InvalidArgument(
                f"no --subnet holds {given}" if found else "--ip-range, --gateway and --aux-address need a --subnet"
            )
        if key == "AuxiliaryAddresses":
            found[subnet].setdefault(key, {}).update(pairs([given]))
        else:
            found[subnet][key] = given
    return list(found.values())


def _within(address: str, subnet: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(address.partition("/")[0]) in ip_network(subnet, strict=False)
    except ValueError:
        return False


def _remove(words: list[str], context: Context) -> int:
    made = Parser("network rm", "[OPTIONS] NETWORK [NETWORK...]", "Remove one or more networks", 1)
    made.add_argument("-f", "--force", action="store_true", help="no error if it is not there")
    made.add_argument("names", nargs="+", metavar="NETWORK")
    flags = made.parse_args(words)

    def remove(name: str) -> None:
        context.client.call("DELETE", f"/networks/{name}")
        print(name)

    return for_each(flags.names, remove, missing_is_fine=flags.force)


def _connect(words: list[str], context: Context) -> int:
    made = Parser("network connect", "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network", 1)
    made.add_argument("--ip", default="", help="the container's address there")
    made.add_argument("--ip6", default="", help="the container's IPv6 address there")
    made.add_argument("--alias", action="append", default=[], help="one more name there")
    made.add_argument("network", metavar="NETWORK")
    made.add_argument("container", metavar="CONTAINER")
    flags = made.parse_args(words)
    wanted = {"IPv4Address": flags.ip, "IPv6Address": flags.ip6}
    settings = {
        "IPAMConfig": {name: value for name, value in wanted.items() if value} or None,
        "Aliases": flags.alias or None,
    }
    context.client.call(
        "POST", f"/networks/{flags.network}/connect", {"Container": flags.container, "EndpointConfig": settings}
    )  # fmt: skip
    return 0


def _disconnect(words: list[str], context: Context) -> int:
    made = Parser("network disconnect", "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network", 1)
    made.add_argument("-f", "--force", action="store_true", help="whatever stands in the way")
    made.add_argument("network", metavar="NETWORK")
    made.add_argument("container", metavar="CONTAINER")
    flags = made.parse_args(words)
    context.client.call(
        "POST", f"/networks/{flags.network}/disconnect", {"Container": flags.container, "Force": flags.force}
    )  # fmt: skip
    return 0


def _prune(words: list[str], context: Context) -> int:
    made = Parser("network prune", "[OPTIONS]", "Remove unused networks", 1)
    made.add_argument("-f", "--force", action="store_true", help="do not ask")
    made.add_argument("--filter", action="append", default=[], help="NAME=VALUE")
    flags = made.parse_args(words)
    if not confirmed(flags.force, "This will remove all networks that no container uses."):
        return 1
    report = context.client.call("POST", "/networks/prune", filters=parse_filters(flags.filter))
    for each in report["NetworksDeleted"] or ():
        print(each)
    return 0


COMMANDS: dict[str, Command] = {
    "ls": _list, "list": _list, "inspect": group_command("network"), "create": _create, "rm": _remove,
    "remove": _remove, "connect": _connect, "disconnect": _disconnect, "prune": _prune,
}  # fmt: skip


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
