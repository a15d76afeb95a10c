"""`stats`: what containers use, now or from second to second."""

from __future__ import annotations

import contextlib
import sys
import time

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.table import short, size, table
from sampan.client.client import Document
from sampan.errors import NotFound

FAILURE = 1
_INTERVAL = 1.0
_TITLES = {
    "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
    "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}  # fmt: skip
_CLEAR = "\033[H\033[J"


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS] [CONTAINER...]", "Display what containers use", 1)
    made.add_argument("containers", nargs="*", metavar="CONTAINER")
    made.add_argument("-a", "--all", action="store_true", help="those that do not run too")
    made.add_argument("--no-stream", action="store_true", help="once, instead of every second")
    made.add_argument("--no-trunc", action="store_true", help="do not cut anything off")
    made.add_argument("--format", default="", help="a Go template, json, or table TEMPLATE")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    before = _look(context, flags.containers, flags.all)
    while True:
        time.sleep(_INTERVAL)
        now = _look(context, flags.containers, flags.all)
        rows = [fields(before.get(identifier), each, flags.no_trunc) for identifier, each in now.items()]
        if flags.format:
            from sampan.cli.template import lines

            text = lines(flags.format, _TITLES, rows)
        else:
            text = table(list(_TITLES.values()), [[row[key] for key in _TITLES] for row in rows])
        if not flags.no_stream and sys.stdout.isatty():
            text = _CLEAR + text
        print(text, flush=True)
        if flags.no_stream:
            return 0
        before = now


def _look(context: Context, names: list[str], all_: bool) -> dict[str, Document]:
    """What each container has used up to now, by its id, the first first."""
    found: dict[str, Document] = {}
    if not names:
        listed = context.client.call("GET", "/containers/json", all=all_)
        for each in listed:
            # One that has gone meanwhile is not looked for.
            with contextlib.suppress(NotFound):
                used = context.client.call("GET", f"/containers/{each['Id']}/stats?stream=0&one-shot=1")
                found[each["Id"]] = {**used, "id": each["Id"], "name": each["Names"][0]}
        return found
    for name in names:
        shown = context.client.call("GET", f"/containers/{name}/json")
        used = context.client.call("GET", f"/containers/{name}/stats?stream=0&one-shot=1")
        found[shown["Id"]] = {**used, "id": shown["Id"], "name": shown["Name"]}
    return found


def fields(before: Document | None, now: Document, full: bool) -> dict[str, str]:
    """A row, by the names that templates know."""
    memory = now["memory_stats"]
    # Cached pages that nobody has used lately can be had back at any time: as Docker's command, v1's name and v2's.
    details = memory.get("stats", {})
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    used = max(0, memory.get("usage", 0) - cache)
    limit = memory.get("limit", 0)
    networks = (now.get("networks") or {}).values()
    blocks = now["blkio_stats"]["io_service_bytes_recursive"] or ()
    read, written = (sum(each["value"] for each in blocks if each["op"].lower() == op) for op in ("read", "write"))
    identifier = short(now["id"], full)
    return {
        "Container": identifier, "ID": identifier, "Name": now["name"].removeprefix("/"),
        "CPUPerc": f"{_cpu(before, now):.2f}%", "MemUsage": f"{_binary(used)} / {_binary(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{size(sum(n['rx_bytes'] for n in networks))} / {size(sum(n['tx_bytes'] for n in networks))}",
        "BlockIO": f"{size(read)} / {size(written)}", "PIDs": str(now["pids_stats"].get("current", 0)),
    }  # fmt: skip


def _cpu(before: Document | None, now: Document) -> float:
    """Percent of one CPU since the look before."""
    if before is None:
        return 0.0
    then, last = before["cpu_stats"], now["cpu_stats"]
    passed = last.get("system_cpu_usage", 0) - then.get("system_cpu_usage", 0)
    used = last["cpu_usage"]["total_usage"] - then["cpu_usage"]["total_usage"]
    if passed <= 0 or used <= 0:
        return 0.0
    return 100.0 * float(used / passed) * int(last.get("online_cpus", 1))


def _binary(count: int) -> str:
    """`1.5MiB`: powers of 1024, four digits at most."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.4g}{unit}"
        value /= 1024
    raise AssertionError("unreachable")
