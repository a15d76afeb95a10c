"""`stats`: what containers use, now or from second to second."""

from __future__ import annotations

import contextlib
import sys
import time

from sampan.cli.arguments import Parser, add_format
from sampan.cli.context import Context
from sampan.cli.listing import Row, rendered
from sampan.cli.table import short, size
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
    add_format(made)
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    template = flags.format or context.setting("statsFormat")
    before = _look(context, flags.containers, flags.all)
    while True:
        time.sleep(_INTERVAL)
        now = _look(context, flags.containers, flags.all)
        rows = [fields(before.get(identifier), each, flags.no_trunc) for identifier, each in now.items()]
        text = rendered(rows, {**_TITLES, "Container": "CONTAINER"}, tuple(_TITLES), template)
        if not flags.no_stream and sys.stdout.isatty():
            text = _CLEAR + text
        print(text, flush=True)
        if flags.no_stream:
            return 0
        before = now


def _look(context: Context, names: list[str], all_: bool) -> dict[str, Document]:
    """What each container has used up to now, by its id, the first first."""
    client = context.client
    if names:
        shown = [client.call("GET", f"/containers/{name}/json") for name in names]
        wanted = [(each["Id"], each["Name"], name) for each, name in zip(shown, names, strict=True)]
    else:
        listed = client.call("GET", "/containers/json", all=all_)
        wanted = [(each["Id"], each["Names"][0], "") for each in listed]
    found: dict[str, Document] = {}
    for identifier, name, called in wanted:
        # One of a list that has gone meanwhile is not looked for.
        with contextlib.suppress(*() if names else (NotFound,)):
            used = client.call("GET", f"/containers/{identifier}/stats?stream=0&one-shot=1")
            found[identifier] = {**used, "id": identifier, "name": name, "called": called}
    return found


def fields(before: Document | None, now: Document, full: bool) -> Row:
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
    return Row(
        Container=now.get("called") or identifier,
        ID=identifier,
        Name=now["name"].removeprefix("/"),
        CPUPerc=f"{_cpu(before, now):.2f}%",
        MemUsage=f"{size(used, 4, 1024)} / {size(limit, 4, 1024)}",
        MemPerc=f"{100 * used / limit if limit else 0:.2f}%",
        NetIO=f"{size(sum(n['rx_bytes'] for n in networks))} / {size(sum(n['tx_bytes'] for n in networks))}",
        BlockIO=f"{size(read)} / {size(written)}",
        PIDs=str(now["pids_stats"].get("current", 0)),
    )


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
