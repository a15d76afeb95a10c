"""Progress on a terminal: bars for the layers, and plain lines elsewhere."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import select
import subprocess
import sys

import pytest

from tests.e2e.conftest import Engine
from tests.e2e.registries import PROGRAMS, RegistryServer

pytestmark = [
    pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:docker", *PROGRAMS),
    pytest.mark.usefixtures("docker_config"),
]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(engine: Engine, *words: str) -> tuple[int, str]:
    """Status, and what it drew."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "sampan.cli.__main__", *words]
    environment = {**engine.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    drawn = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:  # The other side has ended.
            break
        drawn += data
    os.close(leader)
    return process.wait(10), drawn.decode()


def test_progress(engine: Engine, tmp_path: pathlib.Path) -> None:
    registry = RegistryServer(tmp_path / "registry")
    image = f"{registry.address}/app:v1"
    try:
        engine.docker("tag", "box", image, check=True)
        status, drawn = on_a_terminal(engine, "push", image)
        assert status == 0, drawn
        assert "\x1b[" in drawn
        plain = _ESCAPES.sub("", drawn)
        assert re.search(r"[0-9a-f]{12} Pushed +━", plain), plain
        assert "v1: digest: sha256:" in plain
        status, drawn = on_a_terminal(engine, "pull", image)
        assert re.search(r"[0-9a-f]{12} Already exists", _ESCAPES.sub("", drawn)), drawn
        assert f"Status: Image is up to date for {image}" in drawn
        status, drawn = on_a_terminal(engine, "pull", f"{image}x")
        assert status == 1
        assert "manifest unknown" in drawn
        # Elsewhere each line says one thing, and none is drawn over.
        lines = engine.sampan("pull", image, check=True).stdout
        assert "\x1b" not in lines
        assert re.search(r"^[0-9a-f]{12}: Already exists$", lines, re.MULTILINE)
        engine.docker("rmi", image, check=True)
    finally:
        registry.stop()
