"""What `--log-opt` means."""

from __future__ import annotations

import types
from typing import Any, cast

import msgspec
import pytest

from sampan.api.containers import ContainerConfig, HostConfig, LogConfig
from sampan.core.paths import Paths
from sampan.engine.containers.log_options import attributes, check, parse_address, parse_size, settled
from sampan.engine.containers.record import Record
from sampan.errors import InvalidArgument, Unsupported
from sampan.shimapi import messages as msg

RECORD = Record(
    id="0123456789ab" + "c" * 52, name="web", created=0, image="sha256:12",
    config=ContainerConfig(
        image="box", labels={"tier": "front", "team": "a b", "other": "x"}, env=("ONE=1", "TWO=2=2", "THREE")
    ),
    host_config=HostConfig(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [("10m", 10 << 20), ("1.5k", 1536), ("7", 7), ("2GB", 2 << 30), ("-1", 0), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_attributes() -> None:
    assert attributes({}, RECORD) == {}
    assert attributes({"labels": "tier,none", "env": "TWO"}, RECORD) == {"tier": "front", "TWO": "2=2"}
    assert attributes({"labels-regex": "^te", "env-regex": "^(ONE|THREE)$"}, RECORD) == {
        "team": "a b", "ONE": "1", "THREE": "",
    }  # fmt: skip
    tag = "{{.Name}}/{{ .ID }}/{{.ImageName}}"
    assert attributes({"tag": tag}, RECORD) == {"tag": "web/0123456789ab/box"}


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"nope": "1"}, "unknown log opt 'nope' for json-file log driver"),
        ("json-file", {"syslog-address": "1"}, "unknown log opt 'syslog-address' for json-file log driver"),
        ("local", {"labels": "1"}, "unknown log opt 'labels' for log driver local"),
        ("syslog", {"max-size": "1m"}, "unknown log opt 'max-size' for syslog log driver"),
        ("syslog", {"cache-nope": "1m"}, "unknown log opt 'cache-nope' for syslog log driver"),
        ("journald", {"compress": "true"}, "unknown log opt 'compress' for journald log driver"),
        ("json-file", {"max-size": "much"}, "invalid size: 'much'"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"compress": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("json-file", {"compress": "true", "max-size": "1m"}, "compress cannot be true when max-file is less than 2"),
        ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        ("json-file", {"mode": "fast"}, "logger: logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("local", {"mode": "non-blocking", "max-buffer-size": "x"}, "error parsing option max-buffer-size: invalid si"),
        ("json-file", {"labels-regex": "("}, r"invalid log option: '\('"),
        ("json-file", {"tag": "{{.Nope}}"}, "Nope is none of ID, FullID"),
        ("json-file", {"tag": "{{upper .Name}}"}, "only fields are known"),
        ("syslog", {"syslog-address": "foo"}, "unsupported scheme: ''"),
        ("syslog", {"syslog-address": "ftp://foo"}, "unsupported scheme: 'ftp'"),
        ("syslog", {"syslog-address": "unix:///nope"}, "stat /nope: no such file or directory"),
        ("syslog", {"syslog-address": "tcp://1:2:3"}, "address 1:2:3: too many colons in address"),
        ("syslog", {"syslog-address": "tcp://h:x"}, "invalid syslog-address tcp://h:x"),
        ("syslog", {"syslog-facility": "x"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "-"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "x"}, "Invalid syslog format"),
        ("syslog", {"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
        ("syslog", {"cache-max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        ("nope", {}, 'error looking up logging plugin nope: plugin "nope" not found'),
    ],
)
def test_what_is_no_option(driver: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        check(LogConfig(type=driver, config=options))


def test_what_is_not_done() -> None:
    with pytest.raises(Unsupported, match="log driver fluentd is not supported"):
        check(LogConfig(type="fluentd"))
    check(LogConfig(type="json-file", config={"mode": "non-blocking", "max-buffer-size": "4m", "compress": "false"}))
    check(LogConfig(type="json-file", config={"compress": "true"}))
    check(LogConfig(type="none", config={"whatever": "1"}))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ("", "", 0)),
        ("udp://logs.example", ("udp", "logs.example", 514)),
        ("tcp://127.0.0.1:1514", ("tcp", "127.0.0.1", 1514)),
        ("tcp+tls://[::1]:6514", ("tcp+tls", "::1", 6514)),
        ("unixgram:///dev/null", ("unixgram", "/dev/null", 0)),
    ],
)
def test_places_of_syslog(text: str, place: tuple[str, str, int]) -> None:
    assert parse_address(text) == place


def _settled(driver: str, **options: str) -> msg.LogConfig:
    """`cache_disabled=...` for what a keyword can't spell."""
    config = {name.replace("_", "-"): value for name, value in options.items()}
    host = HostConfig(log_config=LogConfig(type=driver, config=config))
    core = types.SimpleNamespace(paths=Paths("/d", "/r"))
    return settled(cast(Any, types.SimpleNamespace(core=core)), msgspec.structs.replace(RECORD, host_config=host))


def test_what_the_shim_is_told() -> None:
    directory = f"/d/containers/{RECORD.id}"
    assert _settled("json-file") == msg.LogConfig(
        path=f"{directory}/{RECORD.id}-json.log", max_size=20 << 20, max_file=5
    )  # fmt: skip
    assert _settled("json-file", max_size="1k").max_file == 1
    assert _settled("local", max_size="1k") == msg.LogConfig(
        driver="local", path=f"{directory}/local-logs/container.log", max_size=1024, max_file=5, compress=True
    )  # fmt: skip
    assert _settled("none", compress="x") == msg.LogConfig(driver="none")
    assert _settled(
        "syslog", syslog_address="tcp://h:1", syslog_facility="local3", mode="non-blocking", max_buffer_size="2k",
        tag="t/{{.Name}}", cache_max_size="1m", cache_compress="false",
    ) == msg.LogConfig(
        driver="syslog", path=f"{directory}/container-cached.log", max_size=1 << 20, max_file=5, lossy=True,
        buffer=2048, tag="t/web", syslog=msg.SyslogConfig(network="tcp", host="h", port=1, facility=19),
    )  # fmt: skip
    assert _settled("syslog", cache_disabled="true").path == ""
    assert _settled("journald", labels="tier", env_regex="^ONE").attributes == {
        "CONTAINER_ID": RECORD.id[:12], "CONTAINER_ID_FULL": RECORD.id, "CONTAINER_NAME": "web",
        "CONTAINER_TAG": RECORD.id[:12], "SYSLOG_IDENTIFIER": RECORD.id[:12], "IMAGE_NAME": "box", "TIER": "front",
        "ONE": "1",
    }  # fmt: skip
