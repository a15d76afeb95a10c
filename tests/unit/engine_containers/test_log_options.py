"""What `--log-opt` means."""

from __future__ import annotations

import pytest

from sampan.api.containers import ContainerConfig, HostConfig, LogConfig
from sampan.engine.containers.log_options import attributes, check, parse_size
from sampan.engine.containers.record import Record
from sampan.errors import InvalidArgument, Unsupported

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
    ("options", "message"),
    [
        ({"nope": "1"}, "unknown log opt 'nope' for json-file log driver"),
        ({"max-size": "much"}, "invalid size: 'much'"),
        ({"max-file": "0"}, "invalid value '0' for log opt max-file"),
        ({"mode": "fast"}, "logger: logging mode not supported: fast"),
        ({"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ({"labels-regex": "("}, r"invalid log option: '\('"),
        ({"tag": "{{.Nope}}"}, "Nope is none of ID, FullID"),
        ({"tag": "{{upper .Name}}"}, "only fields are known"),
    ],
)
def test_what_is_no_option(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        check(LogConfig(type="json-file", config=options))


def test_what_is_not_done() -> None:
    with pytest.raises(Unsupported, match="log option compress is not supported"):
        check(LogConfig(type="json-file", config={"compress": "true"}))
    with pytest.raises(Unsupported, match="log driver journald is not supported"):
        check(LogConfig(type="journald"))
    check(LogConfig(type="json-file", config={"mode": "non-blocking", "max-buffer-size": "4m", "compress": "false"}))
