"""The files of the how-tos, run as they stand."""

from __future__ import annotations

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


@pytest.mark.requires("module:testcontainers")
def test_a_test_suite(engine: Engine, tmp_path: pathlib.Path) -> None:
    files = dict(_FILE.findall((HOW_TOS / "test-suites.md").read_text()))
    assert set(files) == {"conftest.py", "test_service.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = {
        **engine.environment, "TESTCONTAINERS_RYUK_DISABLED": "true",
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", os.devnull,
         str(tmp_path)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    engine.docker("rmi", "service", check=True)
    assert engine.docker("ps", "-aq").stdout == ""
