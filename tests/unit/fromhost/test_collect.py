"""Programs by the names that they were asked for."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from sampan.fromhost.collect import Collector


def test_python_is_found_by_the_name_of_the_script_that_leads_to_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python3"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    collector = Collector()
    collector.add(str(script))
    (program,) = collector.programs
    directory = os.path.dirname(program)
    assert directory in collector.search_path.split(":")
    nodes = {node.path: node for node in collector.tree}
    link = nodes[f"{directory}/python3"]
    assert link.target is None or nodes[os.path.normpath(f"{directory}/{link.target}")].path == program
    assert str(script) not in nodes
