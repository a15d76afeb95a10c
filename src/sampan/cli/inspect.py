"""`inspect`: containers, images, volumes and networks, whatever has the name."""

from __future__ import annotations

import json
import sys

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.groups import Command
from sampan.client.client import Client, Document
from sampan.errors import NotFound, SampanError

FAILURE = 1
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on objects", 1)
    made.add_argument("-f", "--format", default="", help="json, or a Go template")
    made.add_argument("-s", "--size", action="store_true", help="sizes of containers too")
    made.add_argument("--type", default="", choices=("", *_PATHS), help="only objects of this type")
    made.add_argument("names", nargs="+", metavar="NAME")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    return inspect(context.client, flags.names, flags.type, flags.format, size=flags.size)


def group_command(kind: str) -> Command:
    """`inspect` among the commands of a kind of object: `volume inspect`."""

    def run(words: list[str], context: Context) -> int:
        name = kind.upper()
        made = Parser(
            f"{kind} inspect", f"[OPTIONS] {name} [{name}...]", f"Display detailed information on {kind}s", 1
        )  # fmt: skip
        made.add_argument("-f", "--format", default="", help="json, or a Go template")
        if kind == "container":
            made.add_argument("-s", "--size", action="store_true", help="sizes too")
        made.add_argument("names", nargs="+", metavar=name)
        flags = made.parse_args(words)
        return inspect(context.client, flags.names, kind, flags.format, size=kind == "container" and flags.size)

    return run


def inspect(client: Client, names: list[str], kind: str, template: str, *, size: bool = False) -> int:
    """Print what is there; a line and status 1 for each that is not."""
    found: list[Document] = []
    status = 0
    for each in names:
        try:
            found.append(_find(client, each, kind, size))
        except SampanError as error:
            print(f"sampan: {error.message}", file=sys.stderr)
            status = 1
    if template == "json":
        print(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
    elif template:
        from sampan.cli.template import Template

        compiled = Template(template)
        for document in found:
            print(compiled.render(document))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    return status


def _find(client: Client, name: str, kind: str, size: bool) -> Document:
    for each in [kind] if kind else _PATHS:
        try:
            return client.call("GET", _PATHS[each].format(name), size=size if each == "container" else None)
        except SampanError:
            if kind:
                raise
    raise NotFound(f"No such object: {name}")
