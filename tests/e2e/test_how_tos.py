"""The files of the how-tos, run as they stand."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.e2e.conftest import Engine

pytestmark = pytest.mark.requires("root", "overlay", "bridge", "nftables", "program:busybox")

HOW_TOS = pathlib.Path(__file__).parents[2] / "docs/how-to"
_FILE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _write(name: str, into: pathlib.Path) -> set[str]:
    """The files of a how-to."""
    files = dict(_FILE.findall((HOW_TOS / name).read_text()))
    for file, text in files.items():
        (into / file).write_text(text)
    return set(files)


def _python(*words: str, directory: pathlib.Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, *words], env={**environment, "PATH": path}, cwd=directory, capture_output=True, text=True,
        timeout=110, check=False,
    )  # fmt: skip


def _pytest(directory: pathlib.Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # A checkout that was installed before the plug-in came has no entry point for it.
    known = any(each.name == "sampan" for each in importlib.metadata.entry_points(group="pytest11"))
    plugin = [] if known else ["-p", "sampan.embedded.fixtures"]
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "--rootdir", str(directory), "-c", os.devnull)
    return _python(*words, str(directory), directory=directory, environment=environment)


def test_python(engine: Engine, tmp_path: pathlib.Path) -> None:
    assert _write("python.md", tmp_path) == {"own.py", "streams.py", "many.py", "test_shell.py"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "SAMPAN_"))}
    done = _python("own.py", directory=tmp_path, environment=outside)
    assert (done.stdout, done.stderr) == ("3 hello\n", "")
    engine.sampan("image", "from-host", "tools", "sh", check=True)
    done = _python("streams.py", directory=tmp_path, environment=engine.environment)
    assert (done.stdout, done.stderr) == ("1 one\n1 two\n0\nNo such container: words\n", "")
    done = _python("many.py", directory=tmp_path, environment=engine.environment)
    assert (done.stdout, done.stderr) == ("['one', 'two', 'three']\n", "")
    engine.sampan("rmi", "tools", check=True)
    done = _pytest(tmp_path, outside)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.requires("module:testcontainers")
def test_a_test_suite(engine: Engine, tmp_path: pathlib.Path) -> None:
    assert _write("test-suites.md", tmp_path) == {"conftest.py", "test_service.py"}
    done = _pytest(tmp_path, {**engine.environment, "TESTCONTAINERS_RYUK_DISABLED": "true"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    engine.docker("rmi", "service", check=True)
    assert engine.docker("ps", "-aq").stdout == ""
