"""Which OCI runtime runs a container: ours, in the shim's process, or one that the settings name, by its command."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from sampan.errors import Internal, InvalidArgument, Unsupported

if TYPE_CHECKING:
    from sampan.engine.config import Config

BUILT_IN = "sampan"
ALIASES = ("runc", "io.containerd.runc.v2")
"""What Docker's clients call the runtime that is always there; ours, unless the settings name another one so."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An entry of daemon.json's `runtimes`: a program that takes runc's command line, by its path or its name in PATH,
    and what goes before the command's own arguments."""

    path: str = ""
    runtime_args: tuple[str, ...] = ()
    runtime_type: str = ""
    options: dict[str, object] = {}


def parse_runtime(text: str) -> tuple[str, str]:
    """`NAME=PATH` of --add-runtime. Raises InvalidArgument in dockerd's words."""
    name, _, path = text.partition("=")
    name, path = name.strip(), path.strip()
    if not name or not path:
        raise InvalidArgument(f"invalid runtime argument: {text}")
    return name.lower(), path


def check(runtimes: Mapping[str, RuntimeSettings], default: str) -> None:
    """Raises InvalidArgument in dockerd's words, Unsupported for shims of containerd's."""
    for name, settings in runtimes.items():
        if name == BUILT_IN:
            raise InvalidArgument(f"runtime name '{name}' is reserved")
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"invalid runtime name: '{name}'")
        if settings.path and settings.runtime_type:
            raise InvalidArgument(f"runtime {name}: cannot configure both path and runtimeType for the same runtime")
        if settings.runtime_type:
            raise Unsupported(f"runtime {name}: runtimeType is not supported, a path is")
        if not settings.path:
            raise InvalidArgument(f"runtime {name}: either a runtimeType or a path must be configured")
        if settings.options:
            raise InvalidArgument(f"runtime {name}: options cannot be used with a path runtime")
    if default and not (default in runtimes or default in (BUILT_IN, *ALIASES)):
        raise InvalidArgument(f"specified default runtime '{default}' does not exist")


def resolve(config: Config, name: str) -> str:
    """The runtime's name for a container that asks for `name`, or for nothing. Raises InvalidArgument."""
    name = name or config.default_runtime or BUILT_IN
    if name in config.runtimes or name in (BUILT_IN, *ALIASES):
        return name
    raise InvalidArgument(f"unknown or invalid runtime name: {name}")


def is_foreign(config: Config, name: str) -> bool:
    """Whether a runtime, by its resolved name, is not ours."""
    return name in config.runtimes


def command(config: Config, name: str) -> tuple[str, ...]:
    """The program and its first arguments; empty for ours. Raises what `resolve` raises, and Internal for a program
    that is not in PATH."""
    settings = config.runtimes.get(resolve(config, name))
    if settings is None:
        return ()
    return (_found(settings.path), *settings.runtime_args)


def _found(path: str) -> str:
    if "/" in path:
        return os.path.abspath(path)
    for directory in f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".split(":"):
        if directory and os.access(f"{directory}/{path}", os.X_OK):
            return f"{directory}/{path}"
    raise Internal(f'exec: "{path}": executable file not found in $PATH')
