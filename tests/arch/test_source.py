"""Files, names and docstrings."""

from __future__ import annotations

import ast
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).parents[2] / "src/sampan"
MODULES = sorted(SOURCE.rglob("*.py"))
LONGEST = 560
LONG_NOW = {"network/controller.py": 580}
"""What is longer, and may only become shorter."""


def _name(path: pathlib.Path) -> str:
    return str(path.relative_to(SOURCE))


def test_files_stay_short() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONG_NOW.get(name, LONGEST)} == {}


def test_modules_are_named_for_what_they_hold() -> None:
    assert [_name(path) for path in MODULES if path.stem in ("utils", "util", "common", "helpers", "misc")] == []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_says_what_it_is(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body


def test_only_linux_speaks_to_libc() -> None:
    users = {
        _name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(each.name.partition(".")[0] == "ctypes" for each in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ctypes")
    }
    assert {name for name in users if not name.startswith("linux/")} == set()
