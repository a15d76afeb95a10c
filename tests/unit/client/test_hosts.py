"""Where an engine is, as a person writes it."""

from __future__ import annotations

import pytest

from sampan.client.client import parse_host
from sampan.client.ssh import command
from sampan.errors import InvalidArgument, Unsupported


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"), ("/run/x.sock", "unix:///run/x.sock"),
        ("tcp://h:2375", "tcp://h:2375"), ("tcp://h", "tcp://h:2375"), ("h:1", "tcp://h:1"),
        ("tcp://[::1]:7", "tcp://[::1]:7"), ("tcp://h:1/", "tcp://h:1"), ("http://h:80", "tcp://h:80"),
        ("ssh://me@h", "ssh://me@h"), ("ssh://h:22/run/x.sock", "ssh://h:22/run/x.sock"), ("ssh://[::1]", "ssh://[::1]"),
    ],
)  # fmt: skip
def test_a_host(text: str, shown: str) -> None:
    assert str(parse_host(text)) == shown


def test_tls_has_a_port_of_its_own() -> None:
    assert str(parse_host("tcp://h").with_tls({}, verify=True)) == "tcp://h:2376"
    assert str(parse_host("tcp://h:1").with_tls({}, verify=True)) == "tcp://h:1"


@pytest.mark.parametrize(
    "text",
    ["", "foo://x", "tcp://", "unix://", "tcp://h:x", "tcp://h:99999", "tcp://me@h:1", "tcp://h:1/path", "tcp://[::1",
     "tcp://[::1]x", "ssh://", "ssh://me:secret@h", "ssh://-oProxyCommand=x", "tcp://h:٣"],
)  # fmt: skip
def test_no_host(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to parse docker host"):
        parse_host(text)


def test_hosts_of_other_systems() -> None:
    with pytest.raises(Unsupported, match="npipe"):
        parse_host("npipe:////./pipe/docker_engine")


def test_what_ssh_is_told() -> None:
    words = command(parse_host("ssh://me@h:7/a'b.sock"))
    assert words[:-1] == ["ssh", "-o", "ConnectTimeout=30", "-T", "-l", "me", "-p", "7", "--", "h"]
    assert words[-1].startswith("sh -c '") and words[-1].endswith("'")
