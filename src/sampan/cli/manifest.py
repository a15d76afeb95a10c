"""`manifest inspect`: what a registry has under a name, without taking it."""

from __future__ import annotations

import json

from sampan.cli.arguments import Parser
from sampan.cli.context import Context
from sampan.cli.credentials import header, server_of_image
from sampan.cli.groups import Command, run_group
from sampan.client.client import Document

FAILURE = 1


def _inspect(words: list[str], context: Context) -> int:
    made = Parser("manifest inspect", "[OPTIONS] NAME[:TAG|@DIGEST]", "Show a manifest, or a list of manifests", 1)
    made.add_argument("-v", "--verbose", action="store_true", help="with descriptors, and each manifest of a list")
    made.add_argument("image", metavar="NAME[:TAG|@DIGEST]")
    flags = made.parse_args(words)
    document, descriptor = _manifest(context, flags.image)
    shown: Document = document
    if flags.verbose:
        shown = _verbose(flags.image, document, descriptor)
        if document.get("manifests"):
            name = _repository(flags.image)
            shown = [
                _verbose(f"{name}@{each['digest']}", _manifest(context, f"{name}@{each['digest']}")[0], each)
                for each in document["manifests"]
            ]
    print(json.dumps(shown, indent="\t", ensure_ascii=False))
    return 0


def _manifest(context: Context, image: str) -> tuple[Document, Document]:
    """The document, and its descriptor."""
    response = context.client.stream("GET", f"/distribution/{image}/manifest", headers=header(server_of_image(image)))
    data = b"".join(response.chunks())
    response.close()
    return json.loads(data), {
        "mediaType": response.headers.get("content-type", ""), "size": len(data),
        "digest": response.headers.get("docker-content-digest", ""),
    }  # fmt: skip


def _verbose(reference: str, document: Document, descriptor: Document) -> Document:
    kind = "OCIManifest" if "vnd.oci" in descriptor.get("mediaType", "") else "SchemaV2Manifest"
    return {"Ref": reference, "Descriptor": descriptor, kind: document}


def _repository(image: str) -> str:
    name = image.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


COMMANDS: dict[str, Command] = {"inspect": _inspect}


def main(name: str, words: list[str], context: Context) -> int:
    return run_group(name, words, context, COMMANDS)
