"""Python, the one program whose needs its ELF file does not tell: it asks the interpreter itself."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys

from sampan.errors import InvalidArgument

_NAME = re.compile(r"python(3(\.\d+)?)?")
_QUESTION = """
import json, os, sys
executable = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps([os.path.realpath(executable), os.path.dirname(os.__file__)]))
"""
_NOT_NEEDED = ("test", "idlelib", "turtledemo", "site-packages", "dist-packages", "config-*", "lib2to3")
"""What stands beside the standard library, or is of it and serves its own developers."""


def is_python(path: str) -> bool:
    return _NAME.fullmatch(os.path.basename(path)) is not None


def python_paths(program: str = sys.executable) -> tuple[str, str]:
    """The interpreter that a command ends in, and its standard library's directory; both free of links.

    The command may be a version manager's script or belong to a virtual environment: it is run once and asked.
    Raises InvalidArgument if it does not answer.
    """
    try:
        # -I -S: neither this environment nor a site's configuration has a say.
        answer = subprocess.run(
            [program, "-I", "-S", "-c", _QUESTION],
            capture_output=True,
            check=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
        executable, library = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InvalidArgument(f"{program}: does not run as a Python interpreter: {error}") from error
    return str(executable), os.path.realpath(str(library))


def in_standard_library(path: str, library: str) -> bool:
    """Whether a path of the library's directory is packed."""
    name = path.removeprefix(library + "/")
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in _NOT_NEEDED)
