"""`images`, `rmi`, `tag` and `history`."""

from __future__ import annotations

import argparse
import time

from sampan.cli.arguments import Parser, add_format, truth
from sampan.cli.context import Context
from sampan.cli.each import for_each
from sampan.cli.filters import parse_filters
from sampan.cli.listing import Row, print_rows
from sampan.cli.table import ago, cut, short, size, when
from sampan.client.client import Document
from sampan.errors import Unsupported

FAILURE = 1
_KEYS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_DIGEST_KEYS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
_TITLES = {
    "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
    "Digest": "DIGEST", "CreatedAt": "CREATED AT", "VirtualSize": "SIZE", "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
}  # fmt: skip
_RAW = """repository: {{.Repository}}
tag: {{.Tag}}
image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}
"""
_RAW_DIGESTS = _RAW.replace("image_id", "digest: {{.Digest}}\nimage_id")
_HISTORY_KEYS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
_HISTORY_TITLES = {
    "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
    "CreatedAt": "CREATED AT",
}  # fmt: skip
_COMMAND_WIDTH = 45


def parser(name: str) -> Parser:
    if name == "tag":
        made = Parser(name, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag that refers to an image", 1)
        made.add_argument("source")
        made.add_argument("target")
    elif name == "rmi":
        made = Parser(name, "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", 1)
        made.add_argument("-f", "--force", action="store_true", help="even if it is in use or has several names")
        made.add_argument("--no-prune", action="store_true", help="keep untagged parents")
        made.add_argument("images", nargs="+", metavar="IMAGE")
    elif name == "history":
        made = Parser(name, "[OPTIONS] IMAGE", "Show the history of an image", 1)
        made.add_argument("--no-trunc", action="store_true", help="do not cut anything off")
        made.add_argument("-q", "--quiet", action="store_true", help="ids only")
        made.add_argument("-H", "--human", type=truth, nargs="?", const=True, default=True, metavar="BOOL",
                          help="sizes and times as people read them (the default)")  # fmt: skip
        add_format(made)
        made.add_argument("image")
    else:
        made = Parser(name, "[OPTIONS] [REPOSITORY[:TAG]]", "List images", 1)
        made.add_argument("-a", "--all", action="store_true", help="intermediate ones too")
        made.add_argument("-q", "--quiet", action="store_true", help="ids only")
        made.add_argument("--digests", action="store_true", help="digests too")
        made.add_argument("--no-trunc", action="store_true", help="do not cut anything off")
        made.add_argument("-f", "--filter", action="append", default=[], help="NAME=VALUE")
        add_format(made)
        made.add_argument("--tree", action="store_true", help="not supported")
        made.add_argument("repository", nargs="?", default="")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    if name == "tag":
        repository, _, tag = (
            flags.target.rpartition(":") if ":" in flags.target.rpartition("/")[2] else (flags.target, "", "")
        )
        context.client.call("POST", f"/images/{flags.source}/tag", repo=repository, tag=tag)
        return 0
    if name == "rmi":
        return _remove(context, flags)
    if name == "history":
        return _history(context, flags)
    return _list(context, flags)


def _list(context: Context, flags: argparse.Namespace) -> int:
    if flags.tree:
        raise Unsupported("--tree is not supported: an image has one platform here")
    filters = parse_filters(flags.filter)
    if flags.repository:
        filters.setdefault("reference", []).append(flags.repository)
    found = context.client.call("GET", "/images/json", all=flags.all, filters=filters)
    template = flags.format or ("" if flags.quiet else context.setting("imagesFormat"))
    by_digest = flags.digests or ".Digest" in template
    shown = [row for image in found for row in rows(image, flags.no_trunc, by_digest)]
    if flags.quiet and template in ("", "table"):
        for identifier in dict.fromkeys(row["ID"] for row in shown):
            print(identifier)
        return 0
    keys, raw = (_DIGEST_KEYS, _RAW_DIGESTS) if flags.digests else (_KEYS, _RAW)
    print_rows(shown, _TITLES, keys, template, raw=raw)
    return 0


def rows(image: Document, full: bool, by_digest: bool, *, counted: bool = False) -> list[Row]:
    """A line for each name. `by_digest`: for each of its digests too. `counted`: with its containers."""
    digests: dict[str, list[str]] = {}
    for each in image.get("RepoDigests") or ():
        digests.setdefault(each.partition("@")[0], []).append(each.partition("@")[2])
    names = [name.rpartition(":")[::2] for name in image.get("RepoTags") or () if name != "<none>:<none>"]
    tagged = {repository for repository, _ in names}
    names += [(repository, "<none>") for repository in digests if repository not in tagged]
    created = image["Created"]
    shared = image.get("SharedSize", -1)
    return [
        Row(
            Repository=repository,
            Tag=tag,
            ID=short(image["Id"], full),
            Digest=digest,
            CreatedSince=ago(created) if created > 0 else "N/A",
            CreatedAt=when(created),
            Size=size(image["Size"]),
            VirtualSize=size(image["Size"], 4),
            SharedSize="N/A" if shared < 0 else size(shared, 4),
            UniqueSize="N/A" if shared < 0 else size(image["Size"] - shared, 4),
            Containers=str(image["Containers"]) if counted and image.get("Containers", -1) >= 0 else "N/A",
        )
        for repository, tag in names or [("<none>", "<none>")]
        for digest in (digests.get(repository) or ["<none>"])[: None if by_digest else 1]
    ]


def _remove(context: Context, flags: argparse.Namespace) -> int:
    def remove(image: str) -> None:
        for line in context.client.call("DELETE", f"/images/{image}", force=flags.force, noprune=flags.no_prune):
            print(f"Untagged: {line['Untagged']}" if line.get("Untagged") else f"Deleted: {line['Deleted']}")

    return for_each(flags.images, remove, missing_is_fine=flags.force)


def _history(context: Context, flags: argparse.Namespace) -> int:
    rows: list[Row] = []
    for each in context.client.call("GET", f"/images/{flags.image}/history"):
        created = each["Created"]
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(max(0, created)))
        at = at.removesuffix("+0000") + "Z" if at.endswith("+0000") else f"{at[:-2]}:{at[-2:]}"
        rows.append(
            Row(
                ID=each["Id"] if each["Id"].startswith("<") else short(each["Id"], flags.no_trunc),
                CreatedSince=(ago(created) if created > 0 else "N/A") if flags.human else at,
                CreatedAt=at,
                CreatedBy=cut(each.get("CreatedBy", "").replace("\t", " "), _COMMAND_WIDTH, flags.no_trunc),
                Size=size(each["Size"]) if flags.human else str(each["Size"]),
                Comment=each.get("Comment", ""),
            )
        )
    if flags.quiet:
        print("\n".join(row["ID"] for row in rows))
    else:
        titles = _HISTORY_TITLES if flags.human else {**_HISTORY_TITLES, "CreatedSince": "CREATED AT"}
        print_rows(rows, titles, _HISTORY_KEYS, flags.format)
    return 0
