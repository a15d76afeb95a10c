"""Where an engine's data can lie."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.requires("root", "overlay")


def test_a_data_root_on_an_overlay_is_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    merged = tmp_path / "merged"
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(merged)], check=True)
    try:
        done = subprocess.run(
            [
                sys.executable, "-I", "-m", "sampan.engine", "-H", f"unix://{tmp_path}/sock", "--data-root",
                f"{merged}/data", "--exec-root", f"{tmp_path}/run",
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{merged}/data is on an overlay file system: put the data root onto a volume or a disk" in line
        assert os.listdir(merged / "data") == ["engine.lock"]
    finally:
        subprocess.run(["umount", str(merged)], check=True)
