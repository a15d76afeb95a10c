"""The engine's settings: dockerd's names, its rules, one line for each mistake."""

from __future__ import annotations

import pathlib

import msgspec
import pytest

from sampan.engine.config import Config, Host, load, parse_host
from sampan.errors import InvalidArgument, SampanError, Unsupported


def _file(directory: pathlib.Path, document: object) -> str:
    path = directory / "daemon.json"
    path.write_bytes(msgspec.json.encode(document))
    return str(path)


def test_flags_in_all_their_forms(tmp_path: pathlib.Path) -> None:
    config = load(
        ["-H", "unix:///a.sock", "--host=tcp://0.0.0.0:99", "-D", "--live-restore=true", "--log-opt", "max-size=1m",
         "--log-opt=max-file=2", "--bip", "172.27.0.1/16", "-p", "/x.pid", "--data-root=/d/../e/", "--dns", "1.1.1.1",
         "--config-file", _file(tmp_path, {})]
    )  # fmt: skip
    assert config.listen == (Host("unix", "/a.sock"), Host("tcp", "0.0.0.0", 99))
    assert (config.level, config.log_opts) == ("debug", {"max-size": "1m", "max-file": "2"})
    assert (config.pid_path, config.data_root, config.dns) == ("/x.pid", "/e", ("1.1.1.1",))


def test_the_file_and_the_defaults(tmp_path: pathlib.Path) -> None:
    path = _file(tmp_path, {"debug": True, "exec-root": "/r", "insecure-registries": ["a:5000"], "mtu": 1400})
    config = load(["--config-file", path, "--log-level", "warn"])
    assert config.listen == (Host("unix", "/r/sampan.sock"),)
    assert (config.level, config.mtu, config.insecure_registries) == ("debug", 1400, ("a:5000",))
    assert config.pid_path == "/r/sampan.pid"
    assert Config().data_root == "/var/lib/sampan"


@pytest.mark.parametrize(
    ("document", "flags", "message"),
    [
        ({"nope": 1, "also": 2}, [], "the following directives don't match any configuration option: also, nope"),
        (
            {"debug": True, "hosts": ["unix:///b"]}, ["--debug=false", "-H", "unix:///a"],
            "the following directives are specified both as a flag and in the configuration file: "
            "debug: (from flag: false, from file: true), hosts: (from flag: [unix:///a], from file: [unix:///b])",
        ),
        ({"debug": "yes"}, [], "Expected `bool`, got `str` - at `$.debug`"),
        ([1], [], "Expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_a_wrong_file(tmp_path: pathlib.Path, document: object, flags: list[str], message: str) -> None:
    path = _file(tmp_path, document)
    with pytest.raises(InvalidArgument) as caught:
        load(["--config-file", path, *flags])
    assert caught.value.message == f"unable to configure the engine with file {path}: {message}"


def test_a_file_that_is_not_there_or_no_json(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file or directory"):
        load(["--config-file", str(tmp_path / "none.json")])
    (tmp_path / "bad.json").write_text("{\n")
    with pytest.raises(InvalidArgument, match="unable to configure"):
        load(["--config-file", str(tmp_path / "bad.json")])


@pytest.mark.parametrize(
    ("flags", "kind", "message"),
    [
        (["--nope"], InvalidArgument, "unknown flag: --nope"),
        (["--deb"], InvalidArgument, "unknown flag: --deb"),
        (["word"], InvalidArgument, "unknown flag: word"),
        (["--data-root", "relative"], InvalidArgument, "data-root must be an absolute path: 'relative'"),
        (["--log-level", "loud"], InvalidArgument, "invalid logging level: loud"),
        (["--mtu", "x"], InvalidArgument, 'invalid argument "x" for --mtu: not a number'),
        (["--mtu", "10"], InvalidArgument, "invalid MTU 10: 68 to 65535"),
        (["--bip", "172.27.0.1"], InvalidArgument, "invalid CIDR address: 172.27.0.1"),
        (["--dns", "x"], InvalidArgument, "x is not an ip address"),
        (["--log-opt", "x"], InvalidArgument, "bad attribute format: x"),
        (["--log-driver", "gelf"], Unsupported, "log driver gelf is not supported"),
        (["--log-opt", "x=y"], InvalidArgument, "failed to set log opts: unknown log opt 'x' for json-file log driver"),
        (["-s", "btrfs"], Unsupported, "storage driver btrfs is not supported: overlay2 is"),
        (
            ["--storage-opt", "layers=squashed"],
            Unsupported,
            "storage option layers=squashed is not supported: layers=indexed, layers=unpacked, blobs=dropped, "
            "blobs=kept are",
        ),
        (
            ["--live-restore=0"],
            Unsupported,
            "live-restore=false is not supported: containers never depend on the engine",
        ),
        (
            ["--registry-mirror", "m"],
            InvalidArgument,
            "invalid mirror: 'm' is not of the form https://HOST[:PORT][/PATH]",
        ),
    ],
)
def test_wrong_values(flags: list[str], kind: type[SampanError], message: str) -> None:
    with pytest.raises(kind) as caught:
        load(flags)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("unix:///run/x.sock", Host("unix", "/run/x.sock")),
        ("tcp://127.0.0.1:2376", Host("tcp", "127.0.0.1", 2376)),
        ("tcp://[::1]:80", Host("tcp", "::1", 80)),
        ("tcp://:99", Host("tcp", "127.0.0.1", 99)),
        ("fd://", Host("fd")),
        ("fd://web", Host("fd", "web")),
        ("/run/y.sock", Host("unix", "/run/y.sock")),
    ],
)
def test_hosts(text: str, host: Host) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["unix://relative", "tcp://a:99999", "tcp://a:b:c", "http://x", f"unix:///{'x' * 107}"]
)
def test_hosts_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid bind address"):
        parse_host(text)
