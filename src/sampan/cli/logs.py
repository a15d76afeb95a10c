"""`logs`."""

from __future__ import annotations

import time

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.durations import parse_duration
from sampan.cli.streams import write_all
from sampan.client.frames import Demultiplexer

FAILURE = 1


def parser(name: str) -> Parser:
    made = Parser(name, "[OPTIONS] CONTAINER", "Fetch the logs of a container", 1)
    made.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    made.add_argument("--details", action="store_true", help="show what --log-opt labels, env and tag add")
    made.add_argument("-t", "--timestamps", action="store_true", help="show when")
    made.add_argument("-n", "--tail", default="all", help="how many lines from the end")
    made.add_argument("--since", default="", help="a time (RFC 3339), or a duration such as 10m")
    made.add_argument("--until", default="", help="a time, or a duration before now")
    made.add_argument("container")
    return made


def moment(text: str) -> str:
    """A time as the API takes it: a duration counts back from now. Raises InvalidArgument."""
    if not text or (text[0].isdigit() and ("-" in text or text.replace(".", "").isdigit())):
        return text
    return f"{time.time() - parse_duration(text):.9f}"


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    client = context.client
    terminal = client.call("GET", f"/containers/{flags.container}/json")["Config"]["Tty"]
    response = client.stream(
        "GET", f"/containers/{flags.container}/logs", stdout=True, stderr=True, follow=flags.follow,
        timestamps=flags.timestamps, details=flags.details, tail=flags.tail, since=moment(flags.since),
        until=moment(flags.until),
    )  # fmt: skip
    demultiplexer = Demultiplexer()
    for data in response.chunks():
        if terminal:
            write_all(1, data)
            continue
        for stream, piece in demultiplexer.feed(data):
            write_all(2 if stream == 2 else 1, piece)
    return 0
