"""`--log-driver` and `--log-opt`: what may be asked for, and what the shim is told."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from sampan.api.containers import LogConfig
from sampan.engine.containers.record import Record
from sampan.errors import InvalidArgument, Unsupported
from sampan.shimapi import messages as msg

if TYPE_CHECKING:
    from sampan.engine.services import Engine

DRIVERS = ("json-file", "local", "syslog", "journald", "none")
DEFAULT_SIZE, DEFAULT_FILES = "20m", 5
"""Without a word about it a log is rotated: nobody's disk fills up with what nobody reads (Docker's is not)."""
_OF_DOCKER = ("awslogs", "fluentd", "gcplogs", "gelf", "splunk")
_OF_ALL = frozenset((
    "mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress",
))  # fmt: skip
_OF_LINES = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_OF_FILES = frozenset(("max-size", "max-file", "compress"))
_OPTIONS = {
    "json-file": _OF_FILES | _OF_LINES,
    "local": _OF_FILES,
    "journald": _OF_LINES,
    "syslog": _OF_LINES | {
        "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key",
        "syslog-tls-skip-verify",
    },
}  # fmt: skip
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_SIZE = re.compile(r"(-?\d+(?:\.\d+)?)([kmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_BOOLEANS = {**dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
             **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False", ""), False)}  # fmt: skip
_BUFFER = "1m"
_FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
"""By their numbers; four have no name."""
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_NETWORKS = ("unix", "unixgram", "udp", "tcp", "tcp+tls")
_SYSLOG_PORT = 514
_MODES = ("", "blocking", "non-blocking")


def check(log: LogConfig) -> None:
    """Raises InvalidArgument, Unsupported."""
    driver, options = log.type or "json-file", log.config or {}
    if driver in _OF_DOCKER:
        raise Unsupported(f"log driver {driver} is not supported")
    if driver == "none":  # Which takes whatever it is told, as with Docker.
        return
    if driver not in DRIVERS:
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    if options.get("mode", "") not in _MODES:
        raise InvalidArgument(f"logger: logging mode not supported: {options['mode']}")
    if "max-buffer-size" in options:
        if options.get("mode") != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_size(options["max-buffer-size"])
        except InvalidArgument as error:
            raise InvalidArgument(f"error parsing option max-buffer-size: {error.message}") from None
    for option in options:
        if option not in _OPTIONS[driver] | _OF_ALL:
            called = "log driver local" if driver == "local" else f"{driver} log driver"
            raise InvalidArgument(f"unknown log opt '{option}' for {called}")
    if options.get("cache-disabled", "") not in _BOOLEANS:
        raise InvalidArgument(f"invalid value for option cache-disabled: {options['cache-disabled']}")
    _file(driver, options, "")
    _check_lines(options)
    if driver == "syslog":
        _syslog(options)


def _check_lines(options: dict[str, str]) -> None:
    for option in ("labels-regex", "env-regex"):
        _pattern(options.get(option, ""))
    _tag(options.get("tag", ""), dict.fromkeys(_tag_fields(), ""))


def parse_size(text: str) -> int:
    """`10m` in bytes; less than 0 is none: 0. Raises InvalidArgument."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return max(0, int(float(match[1]) * _UNITS[match[2].lower()]))


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return _BOOLEANS[text]


def _file(driver: str, options: dict[str, str], path: str) -> msg.LogConfig:
    """The file: of json-file and of local, or the copy of what goes elsewhere. Raises InvalidArgument."""
    prefix = "" if driver in ("json-file", "local") else "cache-"
    size = options.get(f"{prefix}max-size", DEFAULT_SIZE)
    # Whoever says how long a file may get gets as many as Docker has by default: of json-file, one.
    few = driver == "json-file" and "max-size" in options
    files = options.get(f"{prefix}max-file", "1" if few else str(DEFAULT_FILES))
    compress = _boolean(options.get(f"{prefix}compress", "false" if driver == "json-file" else "true"))
    if not files.lstrip("-").isdigit():
        raise InvalidArgument(f'strconv.Atoi: parsing "{files}": invalid syntax')
    if int(files) < 1:
        raise InvalidArgument("max-file cannot be less than 1")
    if driver == "json-file" and compress and (int(files) < 2 or not parse_size(size)):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    if driver != "json-file" and compress and int(files) == 1:
        raise InvalidArgument("compression cannot be enabled when max file count is 1")
    return msg.LogConfig(
        driver=driver, path=path, max_size=parse_size(size), max_file=int(files), compress=compress,
        lossy=options.get("mode") == "non-blocking", buffer=parse_size(options.get("max-buffer-size", _BUFFER)),
    )  # fmt: skip


def _syslog(options: dict[str, str]) -> msg.SyslogConfig:
    """Raises InvalidArgument, in Docker's words."""
    network, host, port = parse_address(options.get("syslog-address", ""))
    facility = options.get("syslog-facility") or "daemon"
    number = int(facility) if facility.isdecimal() else _FACILITIES.index(facility) if facility in _FACILITIES else -1
    if not 0 <= number < len(_FACILITIES):
        raise InvalidArgument("invalid syslog facility")
    form = options.get("syslog-format", "")
    if form not in _FORMATS:
        raise InvalidArgument("Invalid syslog format")
    return msg.SyslogConfig(
        network=network, host=host, port=port, facility=number, format=form, ca=options.get("syslog-tls-ca-cert", ""),
        certificate=options.get("syslog-tls-cert", ""), key=options.get("syslog-tls-key", ""),
        verify="syslog-tls-skip-verify" not in options,
    )  # fmt: skip


def parse_address(text: str) -> tuple[str, str, int]:
    """A `syslog-address`: network, host or path, and port. Raises InvalidArgument."""
    if not text:
        return "", "", 0
    try:
        url = urlsplit(text)
        if url.scheme not in _NETWORKS:
            raise InvalidArgument(f"unsupported scheme: '{url.scheme}'")
        if url.scheme.startswith("unix"):
            if not os.path.exists(url.path):
                raise InvalidArgument(f"stat {url.path}: no such file or directory")
            return url.scheme, url.path, 0
        if url.netloc.count(":") > 1 and "]" not in url.netloc:
            raise InvalidArgument(f"address {url.netloc}: too many colons in address")
        return url.scheme, url.hostname or "", url.port or _SYSLOG_PORT
    except ValueError as error:
        raise InvalidArgument(f"invalid syslog-address {text}: {error}") from None


def path(engine: Engine, record: Record) -> str:
    """Where the lines are, for those who read them; empty: they are kept nowhere."""
    own, paths = record.host_config.log_config, engine.core.paths
    if own.type == "none":
        return ""
    if own.type in ("", "json-file"):
        return paths.log(record.id)
    if own.type == "local":
        return paths.local_log(record.id)
    return "" if _BOOLEANS[(own.config or {}).get("cache-disabled", "")] else paths.cached_log(record.id)


def settled(engine: Engine, record: Record) -> msg.LogConfig:
    """For the shim."""
    own = record.host_config.log_config
    driver, options = own.type or "json-file", own.config or {}
    if driver == "none":
        return msg.LogConfig(driver="none")
    config = _file(driver, options, path(engine, record))
    told = attributes(options, record)
    if driver == "json-file":
        return _with(config, attributes=told)
    if driver == "syslog":
        return _with(config, tag=_settled_tag(options, record, default=True), syslog=_syslog(options))
    if driver == "journald":
        return _with(config, attributes=_journal_fields(options, record, told))
    return config


def _with(config: msg.LogConfig, **changes: object) -> msg.LogConfig:
    return msgspec.structs.replace(config, **changes)


def _journal_fields(options: dict[str, str], record: Record, told: dict[str, str]) -> dict[str, str]:
    """As Docker names them."""
    tag = _settled_tag(options, record, default=True)
    fields = {
        "CONTAINER_ID": record.id[:12], "CONTAINER_ID_FULL": record.id, "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag, "IMAGE_NAME": record.config.image, "SYSLOG_IDENTIFIER": tag,
    }  # fmt: skip
    for name, value in told.items():
        # Capital letters, digits and underscores; those that begin with one are the journal's own.
        if name != "tag" and (plain := re.sub(r"[^A-Z0-9]", "_", name.upper()).lstrip("_")):
            fields[plain] = value
    return fields


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
        found["tag"] = _settled_tag(options, record)
    return found


def _settled_tag(options: dict[str, str], record: Record, *, default: bool = False) -> str:
    values = (record.id[:12], record.id, record.name, record.config.image, record.image, "docker")
    return _tag(options.get("tag") or ("{{.ID}}" if default else ""), dict(zip(_tag_fields(), values, strict=True)))


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
