"""`top` and `port`."""

from __future__ import annotations

import argparse

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.table import table
from sampan.errors import NotFound

FAILURE = 1
_NARROWEST = 20


def parser(name: str) -> Parser:
    if name == "port":
        made = Parser(name, "CONTAINER [PORT[/PROTOCOL]]", "List port mappings of a container", 1)
        made.add_argument("container")
        made.add_argument("port", nargs="?", default="")
        return made
    made = Parser(name, "CONTAINER [PS OPTIONS]", "Display the running processes of a container", 1)
    made.add_argument("container")
    made.add_argument("options", nargs=argparse.REMAINDER)
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    if name == "port":
        return _port(context, flags.container, flags.port)
    found = context.client.call("GET", f"/containers/{flags.container}/top", ps_args=" ".join(flags.options))
    print(table(found["Titles"], found["Processes"], _NARROWEST))
    return 0


def _port(context: Context, container: str, port: str) -> int:
    ports = context.client.call("GET", f"/containers/{container}/json")["NetworkSettings"]["Ports"] or {}
    if port:
        wanted = port if "/" in port else f"{port}/tcp"
        if not ports.get(wanted):
            raise NotFound(f"no public port '{wanted}' published for {container}")
        for each in ports[wanted]:
            print(f"{each['HostIp']}:{each['HostPort']}")
        return 0
    for inside, bindings in sorted(ports.items()):
        for each in bindings or ():
            print(f"{inside} -> {each['HostIp']}:{each['HostPort']}")
    return 0
