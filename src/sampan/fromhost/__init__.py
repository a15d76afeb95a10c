"""Images without a registry: programs of this machine, with everything they need, as a one-layer OCI image.

>>> with open("tools.tar", "wb") as output:
...     pack("tools", ["sh", "ls", "python3"], output)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from sampan.errors import InvalidArgument
from sampan.fromhost.collect import collect
from sampan.fromhost.layout import write_layout
from sampan.fromhost.python import python_paths
from sampan.oci.image import RunConfig
from sampan.oci.reference import parse_reference

__all__ = ["pack", "python_paths"]


def pack(name: str, paths: Sequence[str], output: BinaryIO) -> None:
    """Write an OCI image layout as a tar, holding programs and directories of this machine with all that they need.

    `paths` are names of programs, looked up on the PATH, or paths (with a slash in them) of files and directories;
    each keeps its place. Python brings its standard library. The image runs `sh` if it is there, else the first
    program. Raises InvalidArgument (a malformed name, a program for another machine), NotFound (a program or library
    that is not there) and OSError.
    """
    reference = parse_reference(name).with_default_tag()
    if reference.digest is not None:
        raise InvalidArgument("an image cannot be made under a digest")
    if not paths:
        raise InvalidArgument("at least one program or path is needed")
    collected = collect(paths)
    shells = [program for program in collected.programs if program.endswith("/sh")]
    command = (shells or collected.programs)[:1]
    run = RunConfig(env=(f"PATH={collected.search_path}",), cmd=tuple(command) or None)
    write_layout(reference, collected.tree, run, "packed from this machine: " + " ".join(paths), output)
