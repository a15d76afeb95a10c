"""Other runtimes' words, sorted into our kinds. The words are what runc 1.1 and crun 1.8 log."""

from __future__ import annotations

import pytest

from sampan.errors import CommandNotExecutable, CommandNotFound, Internal, SampanError
from sampan.shim.foreign import failure


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ('runc create failed: exec: "x": executable file not found in $PATH', CommandNotFound, ""),
        ('exec: "/x": stat /x: no such file or directory', CommandNotFound, ""),
        (
            "executable file `x` not found in $PATH: No such file or directory", CommandNotFound,
            "executable file `x` not found in $PATH: no such file or directory",
        ),
        ('exec: "/data": permission denied', CommandNotExecutable, ""),
        ("open executable: Permission denied", CommandNotExecutable, "open executable: permission denied"),
        ("open executable: Operation not permitted", CommandNotExecutable, "open executable: permission denied"),
        ("writing file `x`: Operation not permitted", Internal, "writing file `x`: operation not permitted"),
        ("unknown version specified", Internal, ""),
        ("two\n lines: EOF", Internal, "two lines: EOF"),
        ("x" * 5000, Internal, "x" * 4096),
    ],
)  # fmt: skip
def test_a_message_tells_its_kind(text: str, kind: type[SampanError], message: str) -> None:
    error = failure(text)
    assert (type(error), error.message) == (kind, message or text)
