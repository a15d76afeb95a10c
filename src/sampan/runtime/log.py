"""The runtime's log: lines that an engine reads for the reason of a failure. runc's two formats, `text` and `json`.

Without a file, warnings go to standard error as they are. Only what is worth a line is written: warnings and errors;
the steps of the command too, where they are asked for.
"""

from __future__ import annotations

import contextlib
import os
import time

import msgspec

from sampan.errors import InvalidArgument

_STDERR = 2


class Log:
    """`path` empty: standard error. Opened when the first line is written."""

    path = ""
    json = False
    debug = False
    name = "sampan-runtime"


def configure(path: str, form: str, debug: bool = False) -> None:
    """Write to `path` from now on; `debug`: the steps too. Raises InvalidArgument for an unknown format, and for a file
    that can't be opened."""
    if form not in ("text", "json"):
        raise InvalidArgument(f"invalid log-format: {form}")
    Log.path, Log.json, Log.debug = path, form == "json", debug
    if path:
        try:
            os.close(_open())
        except OSError as error:
            Log.path = ""
            raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from error


def debug(message: str) -> None:
    """A step. Never in a container's process: the log's path would be one of the container's."""
    if Log.debug:
        _write("debug", message)
        if not Log.path:
            os.write(_STDERR, f"{Log.name}: {message}\n".encode())


def warning(message: str) -> None:
    """Something went wrong that does not stop the runtime."""
    _write("warning", message)
    if not Log.path:
        os.write(_STDERR, f"{Log.name}: warning: {message}\n".encode())


def error(message: str) -> None:
    """Why the command fails: in the log, and on standard error for who has no log."""
    _write("error", message)
    os.write(_STDERR, f"{Log.name}: {message}\n".encode())


def _open() -> int:
    return os.open(Log.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write(level: str, message: str) -> None:
    if not Log.path:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if Log.json:
        line = msgspec.json.encode({"level": level, "msg": message, "time": now})
    else:
        line = f'time="{now}" level={level} msg={msgspec.json.encode(message).decode()}'.encode()
    with contextlib.suppress(OSError):
        descriptor = _open()
        try:
            os.write(descriptor, line + b"\n")
        finally:
            os.close(descriptor)
