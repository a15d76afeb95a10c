"""The Dockerfile instructions that `--change` of import and commit takes, applied to an image's configuration. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

import msgspec

from sampan.engine.timestamps import parse_duration
from sampan.errors import InvalidArgument
from sampan.oci.image import Empty, Healthcheck, RunConfig

_SHELL = ("/bin/sh", "-c")
_NO_CHANGES = frozenset({"ADD", "ARG", "COPY", "FROM", "MAINTAINER", "RUN", "SHELL"})
_HEALTH_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s*")


def apply_changes(run: RunConfig, changes: Iterable[str]) -> RunConfig:
    """Each change is one instruction. Raises InvalidArgument in Docker's words for what is none."""
    for change in changes:
        for line in change.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                run = _apply(run, line.strip())
    return run


def _apply(run: RunConfig, line: str) -> RunConfig:
    word, _, rest = line.partition(" ")
    name, rest = word.upper(), rest.strip()
    if name in _NO_CHANGES:
        raise InvalidArgument(f"{name} is not a valid change command")
    if name not in _INSTRUCTIONS:
        raise InvalidArgument(f"dockerfile parse error: unknown instruction: {name}")
    if not rest:
        raise InvalidArgument(f"{name} requires at least one argument")
    return _INSTRUCTIONS[name](run, rest)


def _words(text: str) -> list[str]:
    """Words with quotes and backslashes as the Dockerfile's key-value instructions have them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"dockerfile parse error: {str(error).lower()}: {text}") from None


def _command(text: str, shell: tuple[str, ...] | None) -> tuple[str, ...]:
    """The JSON form is the command itself, everything else a line for the shell."""
    if text.startswith("["):
        try:
            return msgspec.json.decode(text, type=tuple[str, ...])
        except msgspec.DecodeError:
            pass
    return (*(shell or _SHELL), text)


def _pairs(name: str, text: str) -> dict[str, str]:
    words = _words(text)
    if "=" not in words[0]:
        # The old form, `ENV name the rest of the line`.
        key, separator, value = text.partition(" ")
        if not separator:
            raise InvalidArgument(f"{name} must have two arguments")
        return {key: value.strip()}
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs[key] = value
    return pairs


def _list(text: str) -> tuple[str, ...]:
    return _command(text, ()) if text.startswith("[") else tuple(_words(text))


def _env(run: RunConfig, text: str) -> RunConfig:
    env = dict(each.partition("=")[::2] for each in run.env or ())
    env.update(_pairs("ENV", text))
    return msgspec.structs.replace(run, env=tuple(f"{key}={value}" for key, value in env.items()))


def _expose(run: RunConfig, text: str) -> RunConfig:
    ports = dict(run.exposed_ports or {})
    for word in _words(text):
        port, _, protocol = word.partition("/")
        if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidArgument(f"invalid containerPort: {word}")
        if protocol.lower() not in ("", "tcp", "udp", "sctp"):
            raise InvalidArgument(f"invalid proto: {protocol}")
        ports[f"{port}/{protocol.lower() or 'tcp'}"] = Empty()
    return msgspec.structs.replace(run, exposed_ports=ports)


def _volume(run: RunConfig, text: str) -> RunConfig:
    volumes = {**(run.volumes or {}), **{path: Empty() for path in _list(text)}}
    return msgspec.structs.replace(run, volumes=volumes)


def _label(run: RunConfig, text: str) -> RunConfig:
    return msgspec.structs.replace(run, labels={**(run.labels or {}), **_pairs("LABEL", text)})


def _workdir(run: RunConfig, text: str) -> RunConfig:
    path = text if text.startswith("/") else f"{run.working_dir.rstrip('/')}/{text}"
    return msgspec.structs.replace(run, working_dir=path)


def _healthcheck(run: RunConfig, text: str) -> RunConfig:
    flags: dict[str, int] = {}
    while (flag := _HEALTH_FLAG.match(text)) is not None:
        name, value = flag[1].replace("-", "_"), flag[2]
        if name not in ("interval", "timeout", "start_period", "start_interval", "retries"):
            raise InvalidArgument(f"dockerfile parse error: unknown flag: --{flag[1]}")
        if name == "retries":
            if not value.isdigit() or not int(value):
                raise InvalidArgument(f"--retries must be at least 1 (not {value})")
            flags[name] = int(value)
        else:
            flags[name] = parse_duration(value)
        text = text[flag.end() :]
    kind, _, command = text.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE" and not command and not flags:
        test: tuple[str, ...] = ("NONE",)
    elif kind.upper() == "CMD" and command:
        words = _command(command, ("CMD-SHELL",))
        test = words if words[0] == "CMD-SHELL" and not command.startswith("[") else ("CMD", *words)
    else:
        raise InvalidArgument(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    return msgspec.structs.replace(run, healthcheck=Healthcheck(test=test, **flags))


_INSTRUCTIONS: dict[str, Callable[[RunConfig, str], RunConfig]] = {
    "CMD": lambda run, text: msgspec.structs.replace(run, cmd=_command(text, run.shell)),
    "ENTRYPOINT": lambda run, text: msgspec.structs.replace(run, entrypoint=_command(text, run.shell)),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": lambda run, text: msgspec.structs.replace(run, on_build=(*(run.on_build or ()), text)),
    "STOPSIGNAL": lambda run, text: msgspec.structs.replace(run, stop_signal=text),
    "USER": lambda run, text: msgspec.structs.replace(run, user=text),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
