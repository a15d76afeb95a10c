"""From a command line to the document that the engine gets."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli.flags import create_document, parse_ports, parse_size
from sampan.cli.mounts import parse_mount
from sampan.cli.run import parser
from sampan.client.frames import Demultiplexer
from sampan.errors import InvalidArgument


def document(*words: str) -> dict[str, Any]:
    return create_document(parser("run").parse_args(words))


def test_options_after_the_image_are_the_commands() -> None:
    made = document("-it", "--name", "x", "-e", "A=b", "box", "sh", "-c", "echo -n --rm")
    assert made["Image"] == "box"
    assert made["Cmd"] == ["sh", "-c", "echo -n --rm"]
    assert (made["Tty"], made["OpenStdin"], made["StdinOnce"]) == (True, True, True)
    assert made["Env"] == ["A=b"]
    assert not made["HostConfig"]["AutoRemove"]


def test_limits_and_security() -> None:
    host = document(
        "--memory", "64m", "--cpus", "1.5", "--ulimit", "nofile=10:20", "--cap-drop", "ALL",
        "--restart", "on-failure:3",
        "--read-only", "--tmpfs", "/t:size=1m", "--device", "/dev/null:/dev/x:r", "-h", "box", "img",
    )["HostConfig"]  # fmt: skip
    assert host["Memory"] == 64 << 20
    assert host["NanoCpus"] == 1_500_000_000
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["CapDrop"] == ["ALL"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["Tmpfs"] == {"/t": "size=1m"}
    assert host["Devices"] == [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]


@pytest.mark.parametrize(
    ("published", "bindings"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("8080:80/udp", {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("127.0.0.1:8080:80", {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
        ("[::1]:1:2", {"2/tcp": [{"HostIp": "::1", "HostPort": "1"}]}),
        (
            "10-11:20-21",
            {"20/tcp": [{"HostIp": "", "HostPort": "10"}], "21/tcp": [{"HostIp": "", "HostPort": "11"}]},
        ),
    ],
)
def test_ports(published: str, bindings: object) -> None:
    assert parse_ports([published], [])[1] == bindings


@pytest.mark.parametrize("text", ["x", "1:x", "70000", "1-2:3-5", "0"])
def test_bad_ports(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_ports([text], [])


def test_sizes_and_mounts() -> None:
    assert [parse_size(each) for each in ("1k", "1.5m", "2GiB", "7", "-1")] == [1024, 1572864, 2 << 30, 7, -1]
    assert parse_mount("type=bind,src=/a,dst=/b,readonly") == {
        "Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True,
    }  # fmt: skip
    for bad in ("type=bind", "target=/x,colour=red"):
        with pytest.raises(InvalidArgument):
            parse_mount(bad)


def test_frames_in_pieces() -> None:
    data = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x01d"
    taken = Demultiplexer()
    assert [each for byte in data for each in taken.feed(bytes([byte]))] == [(1, b"abc"), (2, b"d")]
