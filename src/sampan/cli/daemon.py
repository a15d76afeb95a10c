"""`daemon`: this process becomes the engine, whose options are dockerd's."""

from __future__ import annotations

import os
import sys

from sampan.cli.context import Context


def main(name: str, words: list[str], context: Context) -> int:
    given = context.options.host
    host = ["--host", given] if given and "-H" not in words and "--host" not in words else []
    # -I: what stands in the working directory or the environment must not become part of the engine.
    os.execv(sys.executable, [sys.executable, "-I", "-m", "sampan.engine", *host, *words])
