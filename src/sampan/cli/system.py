"""`version`, `info`, `events` and `system …`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

from sampan import __version__
from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.groups import Command, alias, run_group
from sampan.cli.logs import moment
from sampan.client.client import API_VERSION, Document
from sampan.errors import SampanError

FAILURE = 1


def parser(name: str) -> Parser:
    text = {
        "version": "Show the version information",
        "info": "Display system-wide information",
        "events": "Get real time events from the engine",
    }[name]
    made = Parser(name, "[OPTIONS]", text, 1)
    short = () if name == "events" else ("-f",)
    made.add_argument(*short, "--format", default="", help="json, or a Go template")
    if name == "events":
        made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
        made.add_argument("--since", default="", help="events since this time")
        made.add_argument("--until", default="", help="end at this time")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    if name == "system":
        return run_group(name, words, context, COMMANDS)
    flags = parser(name).parse_args(words)
    match name:
        case "version":
            return _version(context, flags)
        case "info":
            return _info(context, flags)
        case _:
            return _events(context, flags)


def _version(context: Context, flags: argparse.Namespace) -> int:
    client = {
        "Platform": {"Name": "Sampan"}, "Version": __version__, "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION, "GitCommit": "", "GoVersion": f"Python {sys.version.split()[0]}",
        "Os": sys.platform, "Arch": _ARCHITECTURES.get(os.uname().machine, os.uname().machine), "BuildTime": "",
        "Context": context.name,
    }  # fmt: skip
    failure: SampanError | None = None
    server: Document = None
    try:
        server = context.client.call("GET", "/version")
    except SampanError as error:
        failure = error
    if flags.format:
        from sampan.cli.template import render

        print(render(flags.format, {"Client": client, "Server": server}))
    else:
        print("\n".join(_version_lines(client, server)))
    if failure is not None:
        raise failure
    return 0


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def _version_lines(client: Document, server: Document) -> Iterator[str]:
    """In Docker's layout."""
    yield "Client:"
    yield from (
        f" {title + ':':<18} {client[key]}"
        for title, key in (("Version", "Version"), ("API version", "ApiVersion"), ("Go version", "GoVersion"))
    )
    yield f" {'OS/Arch:':<18} {client['Os']}/{client['Arch']}"
    yield f" {'Context:':<18} {client['Context']}"
    if server is None:
        return
    yield ""
    yield f"Server: {(server.get('Platform') or {}).get('Name', '')}".rstrip()
    parts = server.get("Components") or [{"Name": "Engine", "Version": server["Version"], "Details": server}]
    for part in parts:
        details = part.get("Details") or {}
        yield f" {part['Name']}:"
        yield f"  {'Version:':<17} {part['Version']}"
        if part["Name"] != "Engine":
            yield from (f"  {key + ':':<17} {details[key]}" for key in sorted(details))
            continue
        yield f"  {'API version:':<17} {details['ApiVersion']} (minimum version {details.get('MinAPIVersion', '')})"
        for title, key in (("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")):
            yield f"  {title + ':':<17} {details.get(key, '')}"
        yield f"  {'OS/Arch:':<17} {details['Os']}/{details['Arch']}"
        yield f"  {'Experimental:':<17} {details.get('Experimental', 'false')}"


def _info(context: Context, flags: argparse.Namespace) -> int:
    client = {"Debug": False, "Plugins": [], "Warnings": None, "Context": context.name}
    failure: SampanError | None = None
    info: Document = {}
    try:
        info = context.client.call("GET", "/info")
    except SampanError as error:
        failure = error
    if flags.format:
        from sampan.cli.template import render

        print(render(flags.format, {**info, "ClientInfo": client}))
    else:
        from sampan.cli.information import lines

        print("Client:", f" Version:    {__version__}", f" Context:    {context.name}", " Debug Mode: false", sep="\n")
        print("\nServer:")
        if failure is None:
            print("\n".join(f" {line}" for line in lines(info)))
            print()
        for warning in info.get("Warnings") or ():
            print(warning, file=sys.stderr)
    if failure is not None:
        raise failure
    return 0


def _events(context: Context, flags: argparse.Namespace) -> int:
    template = None
    if flags.format:
        from sampan.cli.template import Template

        template = Template("{{json .}}" if flags.format == "json" else flags.format)
    for event in context.client.messages(
        "GET", "/events", filters=parse_filters(flags.filter), since=moment(flags.since), until=moment(flags.until)
    ):
        print(_event_line(event) if template is None else template.render(event), flush=True)
    return 0


def _event_line(event: Document) -> str:
    second, fraction = divmod(event["timeNano"], 1_000_000_000)
    local = time.localtime(second)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{fraction:09d}{zone}"
    actor = event["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    return f"{when} {event['Type']} {event['Action']} {actor['ID']} ({attributes})"


def _lazily(name: str, module: str = "usage") -> Command:
    def run(words: list[str], context: Context) -> int:
        import importlib

        command: Command = getattr(importlib.import_module(f"sampan.cli.{module}"), name)
        return command(words, context)

    return run


def _dial(words: list[str], context: Context) -> int:
    """What another machine's command runs here by ssh."""
    from sampan.cli.dialing import dial

    Parser("system dial-stdio", "", "Copy between the standard streams and the engine's socket", 1).parse_args(words)
    return dial(context)


COMMANDS: dict[str, Command] = {
    "df": _lazily("usage"), "prune": _lazily("prune"), "explain": _lazily("explain"), "info": alias("info"),
    "events": alias("events"), "dial-stdio": _dial,
    "install": _lazily("install", "systemd"), "uninstall": _lazily("uninstall", "systemd"),
}  # fmt: skip
