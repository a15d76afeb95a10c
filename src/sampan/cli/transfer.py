"""`pull`, `push`, `load`, `save` and `import`: images on their way in and out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, TextIO

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.credentials import header, server_of_image
from sampan.client.client import Client, Document, quoted
from sampan.errors import InvalidArgument, SampanError

FAILURE = 1
_CHUNK = 1 << 20
_TAR = {"Content-Type": "application/x-tar"}


def parser(name: str) -> Parser:
    if name == "pull":
        made = Parser(name, "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", 1)
        made.add_argument("-q", "--quiet", action="store_true", help="no progress")
        made.add_argument("-a", "--all-tags", action="store_true", help="every tag of the repository")
        made.add_argument("--platform", default="", help="os/architecture of the image")
        made.add_argument("image")
    elif name == "push":
        made = Parser(name, "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", 1)
        made.add_argument("-q", "--quiet", action="store_true", help="no progress")
        made.add_argument("-a", "--all-tags", action="store_true", help="every tag that the repository has here")
        made.add_argument("image")
    elif name == "load":
        made = Parser(name, "[OPTIONS]", "Load images from a tar archive", 1)
        made.add_argument("-i", "--input", default="", help="the archive, instead of standard input")
        made.add_argument("--platform", default="", help="os/architecture of the image")
        made.add_argument("-q", "--quiet", action="store_true", help="no progress")
    elif name == "save":
        made = Parser(name, "[OPTIONS] IMAGE [IMAGE...]", "Save images to a tar archive", 1)
        made.add_argument("-o", "--output", default="", help="the file, instead of standard output")
        made.add_argument("--platform", default="", help="os/architecture of the image")
        made.add_argument("images", nargs="+", metavar="IMAGE")
    else:
        made = Parser(
            name, "[OPTIONS] FILE|- [REPOSITORY[:TAG]]", "Import a tar of a file system to create an image", 1
        )
        made.add_argument("-c", "--change", action="append", default=[], help="a Dockerfile instruction to apply")
        made.add_argument("-m", "--message", default="", help="a comment for the image's history")
        made.add_argument("--platform", default="", help="os/architecture of the image")
        made.add_argument("file")
        made.add_argument("repository", nargs="?", default="")
    return made


def main(name: str, words: list[str], context: Context) -> int:
    flags = parser(name).parse_args(words)
    client = context.client
    if name in ("pull", "push"):
        move = pull if name == "pull" else push
        more = {"platform": flags.platform} if name == "pull" else {}
        move(client, flags.image, all_tags=flags.all_tags, output=None if flags.quiet else sys.stdout, **more)
        if flags.quiet:
            print(flags.image)
        return 0
    if name == "load":
        with opened(flags.input) as file:
            return show(
                client.messages(
                    "POST", "/images/load", body=pieces(file), headers=_TAR, quiet=flags.quiet,
                    platform=flags.platform,
                )
            )  # fmt: skip
    if name == "save":
        return _save(client, flags)
    return _import(client, flags)


def pull(
    client: Client, image: str, *, platform: str = "", all_tags: bool = False, output: TextIO | None = None
) -> None:
    """Pull with progress on `output`: bars on a terminal, lines elsewhere. Raises what the engine tells."""
    image = _with_tag(image, all_tags, output)
    auth = header(server_of_image(image))
    _tell(client.messages("POST", "/images/create", headers=auth, fromImage=image, platform=platform), output)


def push(client: Client, image: str, *, all_tags: bool = False, output: TextIO | None = None) -> None:
    """Push; else as `pull`."""
    image = _with_tag(image, all_tags, output)
    auth = header(server_of_image(image))
    name, _, tag = (image, "", "") if all_tags else image.rpartition(":")
    _tell(client.messages("POST", f"/images/{name}/push", headers=auth, tag=tag), output)


def _with_tag(image: str, all_tags: bool, output: TextIO | None) -> str:
    tagged = "@" in image or ":" in image.rpartition("/")[2]
    if all_tags and tagged:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if all_tags or tagged:
        return image
    if output is not None:
        print("Using default tag: latest", file=output)
    return f"{image}:latest"


def _tell(messages: Iterator[Document], output: TextIO | None) -> None:
    if output is not None and output.isatty():
        from sampan.cli.progress import draw

        draw(_checked(messages), output)
        return
    for message in _checked(messages):
        detail = message.get("progressDetail")
        if output is not None and message.get("status") and not (detail and detail.get("current")):
            identifier = message.get("id")
            print(f"{identifier}: {message['status']}" if identifier else message["status"], file=output, flush=True)


def _checked(messages: Iterator[Document]) -> Iterator[Document]:
    for message in messages:
        if "error" in message:
            raise SampanError(message["error"])
        yield message


def show(messages: Iterator[Document]) -> int:
    """Print a stream's text."""
    for message in _checked(messages):
        text = message.get("stream") or message.get("status", "")
        if "progressDetail" in message:
            if not sys.stdout.isatty():
                continue
            text = f"{message.get('id', '')}: {text}"
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    return 0


def opened(path: str) -> BinaryIO:
    if not path or path == "-":
        if sys.stdin.isatty():
            raise InvalidArgument("requested load from stdin, but stdin is empty")
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None


def pieces(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_CHUNK):
        yield data


def _save(client: Client, flags: argparse.Namespace) -> int:
    names = "&".join(f"names={quoted(name)}" for name in flags.images)
    return written(client, f"/images/get?{names}", flags.output, "save", platform=flags.platform)


def written(client: Client, path: str, output: str, what: str, platform: str = "") -> int:
    """An archive into a file, which is there when it is whole, or to standard output."""
    if not output and sys.stdout.isatty():
        raise InvalidArgument(f"cowardly refusing to {what} to a terminal. Use the -o flag or redirect")
    response = client.stream("GET", path, platform=platform)
    if not output:
        for data in response.chunks():
            sys.stdout.buffer.write(data)
        return 0
    temporary = f"{output}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            for data in response.chunks():
                file.write(data)
        os.rename(temporary, output)
    except OSError as error:
        raise InvalidArgument(f"write {output}: {(error.strerror or '').lower()}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return 0


def repository_and_tag(text: str) -> tuple[str, str]:
    """`name:tag` apart; a colon before a slash begins a port."""
    repository, _, tag = text.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (text, "")


def _import(client: Client, flags: argparse.Namespace) -> int:
    if flags.file.startswith(("http://", "https://")):
        raise InvalidArgument("importing from an address is not supported: fetch the file first")
    repository, tag = repository_and_tag(flags.repository)
    changes = "".join(f"&changes={quoted(each)}" for each in flags.change)
    with opened(flags.file) as file:
        last: Document = {}
        for message in _checked(
            client.messages(
                "POST", f"/images/create?fromSrc=-{changes}", body=pieces(file), headers=_TAR, repo=repository,
                tag=tag, message=flags.message, platform=flags.platform,
            )
        ):  # fmt: skip
            last = message
    print(last.get("status", ""))
    return 0
