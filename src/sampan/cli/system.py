"""`version`, `info`, `events` and `system …`."""

from __future__ import annotations

import argparse
import time

from sampan import __version__
from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.filters import parse_filters
from sampan.cli.groups import Command, alias, run_group
from sampan.cli.logs import moment
from sampan.client.client import API_VERSION, Document

FAILURE = 1


def parser(name: str) -> Parser:
    text = {
        "version": "Show the version information",
        "info": "Display system-wide information",
        "events": "Get real time events from the engine",
    }[name]
    made = Parser(name, "[OPTIONS]", text, 1)
    made.add_argument("-f" if name != "events" else "--template", "--format", default="", help="a Go template")
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
    server = context.client.call("GET", "/version")
    if flags.format:
        from sampan.cli.template import render

        client = {"Version": __version__, "ApiVersion": API_VERSION}
        document = {"Client": client, "Server": server}
        print(render("{{json .}}" if flags.format == "json" else flags.format, document))
        return 0
    print(f"Client:\n Version:     {__version__}\n API version: {API_VERSION}\n")
    print(f"Server: {server.get('Platform', {}).get('Name', '')}")
    for title, key in (
        ("Version", "Version"),
        ("API version", "ApiVersion"),
        ("OS/Arch", "Os"),
        ("Kernel", "KernelVersion"),
    ):
        value = f"{server['Os']}/{server['Arch']}" if key == "Os" else server.get(key, "")
        print(f" {title + ':':<12} {value}")
    return 0


def _info(context: Context, flags: argparse.Namespace) -> int:
    info = context.client.call("GET", "/info")
    if flags.format:
        from sampan.cli.template import render

        print(render("{{json .}}" if flags.format == "json" else flags.format, info))
        return 0
    for title, key in (
        ("Containers", "Containers"), (" Running", "ContainersRunning"), (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"), ("Images", "Images"), ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"), ("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"), ("Runtimes", "Runtimes"), ("Default Runtime", "DefaultRuntime"),
        ("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"), ("OSType", "OSType"),
        ("Architecture", "Architecture"), ("CPUs", "NCPU"), ("Total Memory", "MemTotal"), ("Name", "Name"),
        ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"), ("Debug Mode", "Debug"),
    ):  # fmt: skip
        value = info.get(key, "")
        shown = (
            f"{value / (1 << 30):.2f}GiB"
            if key == "MemTotal"
            else str(value).lower()
            if value in (True, False)
            else " ".join(sorted(value))
            if key == "Runtimes"
            else value
        )
        print(f"{title}: {shown}")
    for warning in info.get("Warnings") or ():
        print(f"WARNING: {warning}")
    return 0


def _events(context: Context, flags: argparse.Namespace) -> int:
    for event in context.client.messages(
        "GET", "/events", filters=parse_filters(flags.filter), since=moment(flags.since), until=moment(flags.until)
    ):
        if flags.format:
            from sampan.cli.template import render

            print(render("{{json .}}" if flags.format == "json" else flags.format, event), flush=True)
        else:
            print(_event_line(event), flush=True)
    return 0


def _event_line(event: Document) -> str:
    second, fraction = divmod(event["timeNano"], 1_000_000_000)
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + f".{fraction:09d}Z"
    actor = event["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    return f"{when} {event['Type']} {event['Action']} {actor['ID']} ({attributes})"


def _lazily(name: str) -> Command:
    def run(words: list[str], context: Context) -> int:
        from sampan.cli import usage

        command: Command = getattr(usage, name)
        return command(words, context)

    return run


COMMANDS: dict[str, Command] = {
    "df": _lazily("usage"), "prune": _lazily("prune"), "explain": _lazily("explain"), "info": alias("info"),
    "events": alias("events"),
}  # fmt: skip
