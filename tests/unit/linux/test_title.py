"""A process's title, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sampan.linux.process import TITLE_ROOM

_PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
from sampan.linux import process
process.set_name("name", {title!r})
if os.fork():
    os.wait()
    sys.exit()
with open("/proc/self/cmdline", "rb") as file, open("/proc/self/comm") as name:
    print(file.read(), name.read().strip(), sep="|", end="")
"""


def shown(title: str, *arguments: str) -> str:
    program = _PROGRAM.format(path=sys.path, title=title)
    command = [sys.executable, "-I", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("title", ["/sbin/docker-init -- sleep 600", "é" * 100])
def test_title_is_what_ps_shows_of_a_child_too(title: str) -> None:
    assert shown(title, TITLE_ROOM) == f"{title.encode() + bytes(1)!r}|name"


def test_title_is_the_name_where_none_is_given() -> None:
    assert shown("", TITLE_ROOM) == f"{b'name' + bytes(1)!r}|name"


def test_title_that_is_too_long_is_cut_and_shows_nothing_else() -> None:
    title, _, name = shown("x" * 100_000, TITLE_ROOM).partition("|")
    assert name == "name"
    # No more than a page is shown, and of the environment behind it nothing.
    assert set(title.replace("\\x00", "")) == set("bx'")
    assert len(title) > 2048
