"""`commit`, `diff` and `export`: what a container did to its files."""

from __future__ import annotations

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.transfer import repository_and_tag, written
from sampan.client.client import quoted

FAILURE = 1
_KINDS = "CAD"


def parser(name: str) -> Parser:
    if name == "commit":
        made = Parser(
            name, "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes", 1
        )
        made.add_argument("-a", "--author", default="", help='such as "John Hannibal Smith <hannibal@a-team.com>"')
        made.add_argument("-c", "--change", action="append", default=[], help="a Dockerfile instruction to apply")
        made.add_argument("-m", "--message", default="", help="a comment for the image's history")
        made.add_argument("--no-pause", action="store_true", help="do not pause the container meanwhile")
        made.add_argument("container")
        made.add_argument("repository", nargs="?", default="")
    elif name == "diff":
        made = Parser(name, "CONTAINER", "Inspect changes to files or directories on a container's filesystem", 1)
        made.add_argument("container")
    else:
        made = Parser(name, "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", 1)
        made.add_argument("-o", "--output", default="", help="the file, instead of standard output")
        made.add_argument("container")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    client = context.client
    if name == "export":
        return written(client, f"/containers/{quoted(flags.container)}/export", flags.output, "save")
    if name == "diff":
        for each in client.call("GET", f"/containers/{quoted(flags.container)}/changes") or ():
            print(_KINDS[each["Kind"]], each["Path"])
        return 0
    repository, tag = repository_and_tag(flags.repository)
    changes = "".join(f"&changes={quoted(each)}" for each in flags.change)
    image = client.call(
        "POST", f"/commit?container={quoted(flags.container)}{changes}", repo=repository, tag=tag,
        comment=flags.message, author=flags.author, pause="0" if flags.no_pause else "1",
    )  # fmt: skip
    print(image["Id"])
    return 0
