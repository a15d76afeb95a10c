"""`--log-driver` and `--log-opt`: what may be asked for, and what the shim is told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sampan.api.containers import LogConfig
from sampan.engine.containers.record import Record
from sampan.errors import InvalidArgument, Unsupported
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine

DEFAULT_SIZE, DEFAULT_FILES = "20m", 5
"""Without a word about it a log is rotated: nobody's disk fills up with what nobody reads (Docker's is not)."""
_OF_DOCKER = ("awslogs", "fluentd", "gcplogs", "gelf", "journald", "local", "splunk", "syslog")
_OPTIONS = frozenset((
    "max-size", "max-file", "mode", "max-buffer-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag",
))  # fmt: skip
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_SIZE = re.compile(r"(-?\d+(?:\.\d+)?)([kmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def check(log: LogConfig) -> None:
    """Raises InvalidArgument, Unsupported."""
    if log.type in _OF_DOCKER:
        raise Unsupported(f"log driver {log.type} is not supported")
    if log.type not in ("", "json-file", "none"):
        raise InvalidArgument(f'error looking up logging plugin {log.type}: plugin "{log.type}" not found')
    options = log.config or {}
    for option, value in options.items():
        if option not in _OPTIONS:
            raise InvalidArgument(f"unknown log opt '{option}' for json-file log driver")
        if option in ("max-size", "max-buffer-size"):
            parse_size(value)
        if option == "max-file" and (not value.isdigit() or int(value) < 1):
            raise InvalidArgument(f"invalid value '{value}' for log opt max-file")
        if option == "mode" and value not in ("", "blocking", "non-blocking"):
            raise InvalidArgument(f"logger: logging mode not supported: {value}")
        if option == "compress" and value not in ("", "false"):
            raise Unsupported("log option compress is not supported")
        if option in ("labels-regex", "env-regex"):
            _pattern(value)
        if option == "tag":
            _tag(value, dict.fromkeys(_tag_fields(), ""))
    if "max-buffer-size" in options and options.get("mode") != "non-blocking":
        raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")


def parse_size(text: str) -> int:
    """`10m` in bytes; less than 0 is none: 0. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return max(0, int(float(match[1]) * _UNITS[match[2].lower()]))


def settled(engine: Engine, record: Record) -> msg.LogConfig:
    """For the shim."""
    own = record.host_config.log_config
    options = own.config or {}
    if own.type == "none":
        return msg.LogConfig(driver="none")
    # Whoever says how long a file may get gets as many as Docker has by default: one.
    files = options.get("max-file", "1" if "max-size" in options else str(DEFAULT_FILES))
    return msg.LogConfig(
        driver=own.type, path=engine.core.paths.log(record.id), max_file=int(files),
        max_size=parse_size(options.get("max-size", DEFAULT_SIZE)), attributes=attributes(options, record),
    )  # fmt: skip


def attributes(options: dict[str, str], record: Record) -> dict[str, str]:
    """What is told with every line: the labels and variables that the options name, and the tag."""
    variables = dict(entry.partition("=")[::2] for entry in record.config.env or ())
    found: dict[str, str] = {}
    for have, names, pattern in (
        (record.config.labels or {}, options.get("labels", ""), options.get("labels-regex", "")),
        (variables, options.get("env", ""), options.get("env-regex", "")),
    ):
        wanted = {name for name in names.split(",") if name}
        matching = _pattern(pattern) if pattern else None
        found |= {name: value for name, value in have.items() if name in wanted or (matching and matching.search(name))}
    if options.get("tag"):
        values = (record.id[:12], record.id, record.name, record.config.image, record.image, "docker")
        found["tag"] = _tag(options["tag"], dict(zip(_tag_fields(), values, strict=True)))
    return found


def _tag_fields() -> tuple[str, ...]:
    return "ID", "FullID", "Name", "ImageName", "ImageFullID", "DaemonName"


def _tag(template: str, values: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InvalidArgument(f"invalid log tag {template!r}: {match[1]} is none of {', '.join(values)}")
        return values[match[1]]

    text = _FIELD.sub(value, template)
    if "{{" in text and "{{" not in "".join(values.values()):
        raise InvalidArgument(f"invalid log tag {template!r}: only fields are known, such as {{{{.Name}}}}")
    return text


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidArgument(f"invalid log option: {text!r}: {error}") from None
