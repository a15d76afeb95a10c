"""Reading what a container sees of its mounts, and running a test on a host whose mounts are shared."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import NamedTuple

from sampan.linux import mount as m
from sampan.linux import namespaces


class Mounted(NamedTuple):
    """A line of mountinfo. `options` are the mount's, `tags` tell its propagation, `own` are the file system's."""

    root: str
    options: frozenset[str]
    tags: tuple[str, ...]
    kind: str
    source: str
    own: frozenset[str]


def parse(text: str) -> dict[str, Mounted]:
    """By mount point; where mounts lie over each other, the topmost."""
    found = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator:
            continue
        _, _, _, root, point, options, *tags = before.split(" ")
        kind, source, own = after.split(" ", 2)
        found[point] = Mounted(
            root, frozenset(options.split(",")), tuple(tags), kind, source, frozenset(own.split(","))
        )  # fmt: skip
    return found


def here() -> dict[str, Mounted]:
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return parse(table.read())


def on_a_host_that_shares(test: Callable[[], object]) -> None:
    """Run the test in a child, in a mount namespace of its own, in which every mount is shared."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        said = ""
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            m.mount("", "/", flags=m.MS_PRIVATE | m.MS_REC)
            m.mount("", "/", flags=m.MS_SHARED | m.MS_REC)
            test()
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = json.loads(pipe.read() or b'"it died"')
    os.waitpid(child, 0)
    assert not said, said
