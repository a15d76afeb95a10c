"""Stands between an engine and its runtime: writes down how it was called, then becomes the runtime.

`SAMPAN_RECORD=FILE python -m pytest tests/e2e/swap -k runc` has the lab put it before each runtime: one JSON object a
line, from which docs/design/0009-runtime-command.md was written. Run as `python -IS recorder.py FILE RUNTIME WORD…`.
"""

import contextlib
import json
import os
import sys


def descriptors() -> dict[int, str]:
    """What the engine left open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # The list's own.
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}").split(":[")[0]
    return found


def document(words: list[str], name: str) -> object:
    """The JSON document that an option names, which the engine may remove as soon as the call is over."""
    for at, word in enumerate(words):
        if word == name or word.startswith(name + "="):
            path = word.partition("=")[2] or words[at + 1]
            if path != "-":
                with open(path, "rb") as file:
                    return json.load(file)
            data = sys.stdin.buffer.read()
            again = os.memfd_create("stdin")
            os.write(again, data)
            os.lseek(again, 0, os.SEEK_SET)
            os.dup2(again, 0)
            return json.loads(data)
    return None


def main() -> None:
    file, runtime, *words = sys.argv[1:]
    with open(f"/proc/{os.getppid()}/comm") as parent:
        caller = parent.read().strip()
    call = {
        "caller": caller, "words": words, "descriptors": descriptors(), "environment": sorted(os.environ),
        "cwd": os.getcwd(), "process": document(words, "--process"), "resources": document(words, "--resources"),
    }  # fmt: skip
    with open(file, "a") as record:
        record.write(json.dumps(call) + "\n")
    os.execv(runtime, [runtime, *words])


if __name__ == "__main__":
    main()
